/* origin.c - see origin.h. */
#include "common/origin.h"

#include <build_commit.h>
#include <time.h>

void origin_describe(result_origin *o, const qwen3_rank_info *machine)
{
    const time_t now = time(NULL);
    struct tm utc;
    snprintf(o->version, sizeof o->version, "%s", QWEN3_VERSION);
    snprintf(o->commit, sizeof o->commit, "%s", QWEN3_BUILD_COMMIT);
    snprintf(o->host, sizeof o->host, "%s", machine->host);
    snprintf(o->cpu_info, sizeof o->cpu_info, "%s", machine->cpu);
    strftime(o->test_time, sizeof o->test_time, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
}
