/* origin.h - where and when results come from: the first fields of every record. */
#ifndef ORIGIN_H
#define ORIGIN_H

#include "common/records.h"

typedef struct result_origin {
    char version[16], commit[32], host[64], cpu_info[128], test_time[24];
} result_origin;

/* Of this program, at this moment. */
void origin_describe(result_origin *o, const qwen3_rank_info *machine);

/* The fields of a record whose member `origin` is at `offset`. */
#define ORIGIN_FIELD(key, offset, member)                                                                              \
    {                                                                                                                  \
        key, NULL, (offset) + offsetof(result_origin, member), TEXT, NULL, 1, NULL, 0                                  \
    }
#define ORIGIN_FIELDS(offset)                                                                                          \
    ORIGIN_FIELD("version", offset, version), ORIGIN_FIELD("commit", offset, commit),                                  \
        ORIGIN_FIELD("host", offset, host), ORIGIN_FIELD("cpu_info", offset, cpu_info),                                \
        ORIGIN_FIELD("test_time", offset, test_time)

#endif
