/* report.c - see report.h. */
#include "test_parallel_strategies/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/program.h"
#include "test_parallel_strategies/problem.h"

traffic traffic_since(const qwen3_comm *world, const qwen3_comm_stats *before)
{
    traffic t;
    qwen3_comm_stats now;
    qwen3_comm_get_stats(world, &now);
    for (int kind = 0; kind < QWEN3_COMM_KINDS; kind++) {
        t.calls[kind] = (double)(now.calls[kind] - before->calls[kind]);
        t.bytes[kind] = (double)(now.bytes[kind] - before->bytes[kind]);
        t.seconds[kind] = now.seconds[kind] - before->seconds[kind];
        t.under_way[kind] = now.under_way[kind] - before->under_way[kind];
    }
    return t;
}

void traffic_add(traffic *sum, const traffic *t)
{
    for (int kind = 0; kind < QWEN3_COMM_KINDS; kind++) {
        sum->calls[kind] += t->calls[kind];
        sum->bytes[kind] += t->bytes[kind];
        sum->seconds[kind] += t->seconds[kind];
        sum->under_way[kind] += t->under_way[kind];
    }
}

traffic traffic_of_all(qwen3_comm *world, const traffic *own)
{
    const int ranks = qwen3_comm_size(world);
    traffic total = {0}, *all = checked_alloc((size_t)ranks * sizeof *all);
    qwen3_comm_gather(world, own, sizeof *own, all);
    for (int r = 0; r < ranks; r++)
        traffic_add(&total, &all[r]);
    free(all);
    memcpy(total.calls, own->calls, sizeof total.calls);
    qwen3_comm_broadcast(world, &total, sizeof total);
    return total;
}

/* ---- Lines ------------------------------------------------------------------------------------- */

#define AT(member) offsetof(check_record, member)
#define RAW NULL, 1, NULL, 0
#define TRAFFIC(kind, index)                                                                                           \
    {kind "_calls", NULL, AT(sent.calls[index]), NUMBER, RAW},                                                         \
        {kind "_bytes", NULL, AT(sent.bytes[index]), NUMBER, RAW},                                                     \
        {kind "_seconds", NULL, AT(sent.seconds[index]), NUMBER, RAW},                                                 \
    {                                                                                                                  \
        kind "_overlapped", NULL, AT(overlapped[index]), NUMBER, RAW                                                   \
    }

static const field fields[] = {
    ORIGIN_FIELDS(AT(origin)),
    {"n_ranks", NULL, AT(ranks), NUMBER, RAW},
    {"pair", NULL, AT(pair), TEXT, RAW},
    {"layout", NULL, AT(layout), TEXT, RAW},
    {"class", NULL, AT(class), TEXT, RAW},
    {"cases", NULL, AT(cases), NUMBER, RAW},
    {"relative_l2", NULL, AT(relative_l2), NUMBER, RAW},
    {"max_difference", NULL, AT(largest), NUMBER, RAW},
    {"over_bound", NULL, AT(over_bound), NUMBER, RAW},
    {"result", NULL, AT(result), TEXT, RAW},
    {"comm_bytes", NULL, AT(bytes), NUMBER, RAW},
    TRAFFIC("reduce", QWEN3_COMM_REDUCE),
    TRAFFIC("kv", QWEN3_COMM_KV),
    TRAFFIC("query", QWEN3_COMM_QUERY),
    TRAFFIC("partial", QWEN3_COMM_PARTIAL),
    TRAFFIC("logits", QWEN3_COMM_LOGITS),
    TRAFFIC("control", QWEN3_COMM_CONTROL),
};
enum { FIELDS = sizeof fields / sizeof *fields };

/* What follows from what is given. */
static void complete(check_record *r, bool passed)
{
    snprintf(r->result, sizeof r->result, "%s", passed ? "PASS" : "FAIL");
    r->bytes = 0;
    for (int kind = 0; kind < QWEN3_COMM_KINDS; kind++) {
        const double inside = r->sent.seconds[kind], under_way = r->sent.under_way[kind];
        r->bytes += kind == QWEN3_COMM_CONTROL ? 0 : r->sent.bytes[kind];
        r->overlapped[kind] = under_way > 0 ? fmax(0, 1 - inside / under_way) : (double)NAN;
    }
}

void report_print(const check_record *record, bool passed)
{
    check_record r = *record;
    char bound[16] = "";
    complete(&r, passed);
    if (r.layout[0]) {
        snprintf(bound, sizeof bound, "%.3f", r.over_bound);
        printf("%-26s %-10s ", r.pair, r.layout);
    } else {
        printf("%-37s ", r.pair);
    }
    printf("%-20s %5.0f %9.2e %9.2e %6s %10.0f  %s\n", r.class, r.cases, r.relative_l2, r.largest, bound, r.bytes,
           r.result);
}

static void keep(check_report *report, const check_record *r)
{
    if (report->n == report->room) {
        check_record *more = checked_alloc((2 * report->room + 64) * sizeof *more);
        if (report->n)
            memcpy(more, report->records, report->n * sizeof *more);
        free(report->records);
        report->records = more;
        report->room = 2 * report->room + 64;
    }
    report->records[report->n++] = *r;
}

void report_add(check_report *report, check_record record, bool passed)
{
    *(passed ? &report->passed : &report->failed) += 1;
    if (!report->speak)
        return;
    record.origin = report->origin;
    record.ranks = report->ranks;
    complete(&record, passed);
    if (report->output == CHECK_TABLE)
        report_print(&record, passed);
    else
        keep(report, &record);
}

qwen3_status report_finish(check_report *report, qwen3_error *err)
{
    const record_list list = {fields, FIELDS, report->records, sizeof *report->records, report->n};
    qwen3_status status = QWEN3_OK;
    if (report_tables(report))
        printf("%d passed, %d failed\n", report->passed, report->failed);
    else if (report->speak && report->output == CHECK_CSV)
        records_print_csv(stdout, &list);
    else if (report->speak)
        status = json_print(stdout, records_json(&list), report->output == CHECK_JSONL, err);
    free(report->records);
    return status == QWEN3_OK ? flush_output(stdout, "standard output", err) : status;
}
