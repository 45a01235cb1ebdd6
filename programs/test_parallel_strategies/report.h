/* report.h - what was checked: lines of the tables, or records of another form. */
#ifndef TEST_PARALLEL_STRATEGIES_REPORT_H
#define TEST_PARALLEL_STRATEGIES_REPORT_H

#include "common/origin.h"

/* What was sent, of each kind: the counters of qwen3_comm_stats. */
typedef struct traffic {
    double calls[QWEN3_COMM_KINDS], bytes[QWEN3_COMM_KINDS], seconds[QWEN3_COMM_KINDS], under_way[QWEN3_COMM_KINDS];
} traffic;

/* What this rank has sent since `before`. */
traffic traffic_since(const qwen3_comm *world, const qwen3_comm_stats *before);
void traffic_add(traffic *sum, const traffic *t);
/* The sum over the ranks, but for calls, in which all take part. The same on all ranks. Collective. */
traffic traffic_of_all(qwen3_comm *world, const traffic *own);

/* A line: a pair on all cases of a class. */
typedef struct check_record {
    result_origin origin;
    char pair[40], layout[16], class[32], result[8]; /* layout "": the model */
    double ranks, cases, relative_l2, largest, over_bound, bytes;
    traffic sent; /* by all ranks */
    double overlapped[QWEN3_COMM_KINDS];
} check_record;

typedef enum check_output { CHECK_TABLE, CHECK_CSV, CHECK_JSON, CHECK_JSONL } check_output;

typedef struct check_report {
    bool speak; /* rank 0 */
    check_output output;
    result_origin origin;
    int ranks;
    int passed, failed; /* lines; the same on all ranks */
    check_record *records;
    size_t n, room;
} check_report;

/* Tables alone have headings. */
static inline bool report_tables(const check_report *report)
{
    return report->speak && report->output == CHECK_TABLE;
}
/* A line that is not counted. */
void report_print(const check_record *record, bool passed);
/* Counts a line and prints it or keeps it; pair, layout, class, cases, differences and traffic are given. */
void report_add(check_report *report, check_record record, bool passed);
/* At the end: prints what was kept, and the count of the lines. */
qwen3_status report_finish(check_report *report, qwen3_error *err);

#endif
