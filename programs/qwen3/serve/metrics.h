/* metrics.h - counters of the server, as Prometheus reads them. */
#ifndef METRICS_H
#define METRICS_H

#include <stdint.h>

#include "common/text_buffer.h"
#include "qwen3_scheduler.h"

enum { METRICS_BUCKETS = 12, METRICS_STATUSES = 16 };

/* Seconds in classes: [i] up to the i-th bound, the last one above all. */
typedef struct metrics_times {
    uint64_t counts[METRICS_BUCKETS + 1];
    double sum;
} metrics_times;

typedef struct metrics {
    struct {
        int status;
        uint64_t count;
    } replies[METRICS_STATUSES];
    uint64_t left; /* clients that went away */
    metrics_times first_token, whole;
} metrics;

void metrics_count_reply(metrics *m, int status);
void metrics_add_time(metrics_times *t, double seconds);
qwen3_status metrics_write(const metrics *m, const qwen3_scheduler_stats *stats, text_buffer *out, qwen3_error *err);

#endif
