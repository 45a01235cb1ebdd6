/* metrics.c - see metrics.h. */
#include "metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const double bounds[METRICS_BUCKETS] = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120};

void metrics_count_reply(metrics *m, int status)
{
    size_t i = 0;
    while (i + 1 < METRICS_STATUSES && m->replies[i].status != 0 && m->replies[i].status != status)
        i++;
    m->replies[i].status = status;
    m->replies[i].count++;
}

void metrics_add_time(metrics_times *t, double seconds)
{
    size_t i = 0;
    while (i < METRICS_BUCKETS && seconds > bounds[i])
        i++;
    t->counts[i]++;
    t->sum += seconds;
}

static void put(text_buffer *out, qwen3_error *err, const char *line)
{
    text_append(out, line, strlen(line), err);
}

static void head(text_buffer *out, const char *name, const char *type, const char *help, qwen3_error *err)
{
    char line[320];
    snprintf(line, sizeof line, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
    put(out, err, line);
}

static void single(text_buffer *out, const char *name, const char *type, const char *help, double value,
                   qwen3_error *err)
{
    char line[160];
    head(out, name, type, help, err);
    snprintf(line, sizeof line, "%s %.17g\n", name, value);
    put(out, err, line);
}

static void times(text_buffer *out, const char *name, const char *help, const metrics_times *t, qwen3_error *err)
{
    char line[160];
    uint64_t count = 0;
    head(out, name, "histogram", help, err);
    for (size_t i = 0; i <= METRICS_BUCKETS; i++) {
        count += t->counts[i];
        if (i < METRICS_BUCKETS)
            snprintf(line, sizeof line, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", name, bounds[i], count);
        else
            snprintf(line, sizeof line, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, count);
        put(out, err, line);
    }
    snprintf(line, sizeof line, "%s_sum %.9g\n%s_count %" PRIu64 "\n", name, t->sum, name, count);
    put(out, err, line);
}

static void of_scheduler(text_buffer *out, const qwen3_scheduler_stats *s, qwen3_error *err)
{
    const struct {
        const char *name, *type, *help;
        double value;
    } all[] = {
        {"qwen3_answers_running", "gauge", "Answers that are computed.", s->running},
        {"qwen3_answers_waiting", "gauge", "Answers in the waiting line.", s->waiting},
        {"qwen3_answers_finished_total", "counter", "Answers that ended by themselves.", (double)s->finished},
        {"qwen3_answers_cancelled_total", "counter", "Answers that clients ended.", (double)s->cancelled},
        {"qwen3_answers_failed_total", "counter", "Answers that ended with an error.", (double)s->failed},
        {"qwen3_answers_postponed_total", "counter", "Answers put back because KV pages ran out.",
         (double)s->postponed},
        {"qwen3_prompt_tokens_total", "counter", "Tokens of prompts.", (double)s->prompt_tokens},
        {"qwen3_cached_tokens_total", "counter", "Tokens of prompts that were not computed again.",
         (double)s->cached_tokens},
        {"qwen3_generated_tokens_total", "counter", "Tokens of answers.", (double)s->generated_tokens},
        {"qwen3_drafted_tokens_total", "counter", "Tokens that were guessed.", (double)s->drafted_tokens},
        {"qwen3_kept_tokens_total", "counter", "Of these, tokens that were right.", (double)s->kept_tokens},
        {"qwen3_steps_total", "counter", "Forward passes.", (double)s->steps},
        {"qwen3_step_seconds_total", "counter", "Time in forward passes.", s->step_seconds},
        {"qwen3_longest_gap_seconds", "gauge", "Longest time between two tokens of an answer.", s->longest_gap},
        {"qwen3_prefixes", "gauge", "Sequences that are kept as prefixes.", s->cached},
        {"qwen3_kv_pages", "gauge", "Pages of keys and values that rank 0 may keep.", (double)s->kv_pages},
        {"qwen3_kv_pages_used", "gauge", "Of these, pages that hold tokens.", (double)s->kv_pages_used},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        single(out, all[i].name, all[i].type, all[i].help, all[i].value, err);
}

qwen3_status metrics_write(const metrics *m, const qwen3_scheduler_stats *stats, text_buffer *out, qwen3_error *err)
{
    char line[96];
    head(out, "qwen3_replies_total", "counter", "Replies by their HTTP status.", err);
    for (size_t i = 0; i < METRICS_STATUSES && m->replies[i].status; i++) {
        snprintf(line, sizeof line, "qwen3_replies_total{code=\"%d\"} %" PRIu64 "\n", m->replies[i].status,
                 m->replies[i].count);
        put(out, err, line);
    }
    single(out, "qwen3_clients_left_total", "counter", "Clients that went away before their answer ended.",
           (double)m->left, err);
    of_scheduler(out, stats, err);
    times(out, "qwen3_first_token_seconds", "From a request to its first token.", &m->first_token, err);
    times(out, "qwen3_request_seconds", "From a request to the end of its answers.", &m->whole, err);
    return err->status;
}
