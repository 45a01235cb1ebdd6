/* measure.c - one configuration, timed.
 *
 * One iteration is a prefill, the choice of the first token and the decode steps, each part between barriers of
 * all ranks; the slowest rank counts. Communication is read from the session's counters of the same parts. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "benchmark.h"
#include "common/program.h"
#include "common/statistics.h"

/* What an iteration yields, of the slowest rank. */
typedef struct times {
    double prefill, first_token, decode; /* ms */
} times;

/* Sums over the measured iterations on this rank. */
typedef struct counters {
    qwen3_comm_stats prefill, decode;
} counters;

typedef struct measurement {
    qwen3_comm *world;
    qwen3_session *session;
    const benchmark_options *o;
    bool kv_cache;
    workload *w;
    counters counted;
    rank_memory memory;                     /* the most that any part needed: the session tells of its last step */
    double *prefill, *first_token, *decode; /* [iterations] ms */
} measurement;

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void add_counters(measurement *m, qwen3_comm_stats *sum)
{
    qwen3_session_info info;
    qwen3_session_get_info(m->session, &info);
    m->memory.kv = larger(m->memory.kv, info.kv_bytes);
    m->memory.scratch = larger(m->memory.scratch, info.scratch_bytes);
    m->memory.scores = larger(m->memory.scores, info.score_bytes);
    for (int kind = 0; kind < QWEN3_COMM_KINDS; kind++) {
        sum->calls[kind] += info.comm.calls[kind];
        sum->bytes[kind] += info.comm.bytes[kind];
        sum->seconds[kind] += info.comm.seconds[kind];
    }
}

static double start_part(measurement *m)
{
    qwen3_comm_barrier(m->world);
    qwen3_session_reset_stats(m->session);
    return seconds_now();
}

static double end_part(measurement *m, double start, qwen3_comm_stats *sum)
{
    if (sum)
        add_counters(m, sum);
    qwen3_comm_barrier(m->world);
    return 1e3 * (seconds_now() - start);
}

/* `counted` NULL: warm-up. Collective. */
static qwen3_status iterate(measurement *m, counters *counted, times *t, qwen3_error *err)
{
    qwen3_status status;
    double start = start_part(m);
    *t = (times){0};
    if ((status = workload_prefill(m->w, m->session, 1, err)) != QWEN3_OK)
        return status;
    t->prefill = end_part(m, start, counted ? &counted->prefill : NULL);
    if ((status = workload_choose(m->w, m->session, 1, 0, err)) != QWEN3_OK)
        return status;
    t->first_token = end_part(m, start, NULL);

    start = start_part(m);
    for (size_t step = 0; step < m->w->generate; step++) {
        if ((status = workload_decode(m->w, m->session, step, m->kv_cache, err)) != QWEN3_OK)
            return status;
        if ((status = workload_choose(m->w, m->session, 1, step + 1, err)) != QWEN3_OK)
            return status;
    }
    t->decode = end_part(m, start, counted ? &counted->decode : NULL);
    qwen3_comm_max(m->world, (double *)t, sizeof *t / sizeof(double));
    return QWEN3_OK;
}

/* Warm-up and measured iterations. Collective. */
static qwen3_status iterate_all(measurement *m, FILE *progress, qwen3_error *err)
{
    bool print = m->o->verbose && qwen3_comm_rank(m->world) == 0;
    for (int i = -m->o->warmup; i < m->o->iterations; i++) {
        times t;
        qwen3_status status = iterate(m, i < 0 ? NULL : &m->counted, &t, err);
        if (status != QWEN3_OK)
            return status;
        if (print)
            fprintf(progress, "%-10s prefill %.3f ms, first token %.3f ms, decode %.3f ms\n",
                    i < 0 ? "warmup" : "iteration", t.prefill, t.first_token, t.decode);
        if (i >= 0) {
            m->prefill[i] = t.prefill;
            m->first_token[i] = t.first_token;
            m->decode[i] = t.decode;
        }
    }
    return QWEN3_OK;
}

/* Sums of bytes and maxima of seconds over the ranks, per iteration. */
static void reduce_counters(phase_result *r, const counters *all, int ranks, int iterations, bool prefill)
{
    r->comm_bytes_total = r->comm_seconds_total = 0;
    for (int kind = 0; kind < QWEN3_COMM_KINDS; kind++) {
        r->comm_bytes[kind] = r->comm_seconds[kind] = 0;
        for (int rank = 0; rank < ranks; rank++) {
            const qwen3_comm_stats *s = prefill ? &all[rank].prefill : &all[rank].decode;
            r->comm_bytes[kind] += (double)s->bytes[kind] / iterations;
            r->comm_seconds[kind] = fmax(r->comm_seconds[kind], s->seconds[kind] / iterations);
        }
        r->comm_bytes_total += r->comm_bytes[kind];
    }
    for (int rank = 0; rank < ranks; rank++) {
        const qwen3_comm_stats *s = prefill ? &all[rank].prefill : &all[rank].decode;
        double seconds = 0;
        for (int kind = 0; kind < QWEN3_COMM_KINDS; kind++)
            seconds += s->seconds[kind] / iterations;
        r->comm_seconds_total = fmax(r->comm_seconds_total, seconds);
    }
}

static void fill_phase(phase_result *r, const double *ms, size_t n, double tokens)
{
    r->ms = mean(ms, n);
    r->ms_deviation = standard_deviation(ms, n);
    r->tokens_per_second = tokens / (1e-3 * r->ms);
    r->ms_per_token = r->ms / tokens;
}

static void fill_times(const measurement *m, benchmark_result *r)
{
    const workload *w = m->w;
    size_t n = (size_t)m->o->iterations;
    r->first_token_ms = r->total_ms = mean(m->first_token, n);
    r->first_token_ms_deviation = standard_deviation(m->first_token, n);
    if (has_prefill(m->o))
        fill_phase(&r->prefill, m->prefill, n, (double)w->batch * (double)w->prompt);
    if (has_decode(m->o)) {
        fill_phase(&r->decode, m->decode, n, (double)w->batch * (double)w->generate);
        r->ms_per_step = r->decode.ms / (double)w->generate;
        r->total_ms += r->decode.ms;
    }
}

static void fill_plan(const measurement *m, const qwen3_model *model, benchmark_result *r)
{
    const benchmark_options *o = m->o;
    const qwen3_plan *plan = qwen3_model_plan(model);
    const qwen3_config *config = qwen3_model_config(model);
    static const char *const phases[] = {"prefill", "decode", "both"};
    qwen3_session_info info;

    qwen3_session_get_info(m->session, &info);
    snprintf(r->model, sizeof r->model, "%s", o->spec);
    snprintf(r->strategy, sizeof r->strategy, "%s", qwen3_strategy_name(plan->strategy));
    snprintf(r->grid, sizeof r->grid, "%dx%d", plan->grid_sequence, plan->grid_heads);
    snprintf(r->algorithm, sizeof r->algorithm, "%s", qwen3_algorithm_name(info.algorithm));
    snprintf(r->dtype, sizeof r->dtype, "%s", qwen3_dtype_name(plan->dtype));
    snprintf(r->isa, sizeof r->isa, "%s", qwen3_isa_name(plan->isa));
    snprintf(r->phase, sizeof r->phase, "%s", phases[o->phase]);
    snprintf(r->kv_cache, sizeof r->kv_cache, "%s", !has_decode(o) ? "" : m->kv_cache ? "yes" : "no");
    snprintf(r->seed, sizeof r->seed, "%llu", (unsigned long long)o->arguments.model.seed);
    r->ranks = qwen3_comm_size(m->world);
    r->threads = plan->threads;
    r->batch = o->batch;
    r->prompt = o->prompt;
    r->generate = has_decode(o) ? o->generate : NAN;
    r->iterations = o->iterations;
    r->warmup = o->warmup;
    r->prefill_flops = has_prefill(o) ? prefill_flops(config, o->batch, 0, o->prompt) : NAN;
    r->decode_bytes = has_decode(o) && m->kv_cache
                          ? (double)qwen3_model_bytes_per_token(model) +
                                decode_kv_bytes(config, plan->kv_dtype, o->batch, o->prompt, o->generate)
                          : NAN;
}

static void fill_memory(benchmark_result *r, const rank_memory *all, int ranks, FILE *progress)
{
    r->weight_bytes = r->kv_bytes = r->scratch_bytes = r->score_bytes = 0;
    for (int rank = 0; rank < ranks; rank++) {
        r->weight_bytes = fmax(r->weight_bytes, (double)all[rank].weights);
        r->kv_bytes = fmax(r->kv_bytes, (double)all[rank].kv);
        r->scratch_bytes = fmax(r->scratch_bytes, (double)all[rank].scratch);
        r->score_bytes = fmax(r->score_bytes, (double)all[rank].scores);
        if (progress)
            fprintf(progress,
                    "rank %-5d weights %.2f MiB, KV cache %.2f MiB, scratch %.2f MiB, thereof scores %.2f MiB\n", rank,
                    (double)all[rank].weights / 1048576.0, (double)all[rank].kv / 1048576.0,
                    (double)all[rank].scratch / 1048576.0, (double)all[rank].scores / 1048576.0);
    }
}

/* Brings counters and memory of all ranks to rank 0 and fills in the result there. Collective. */
static qwen3_status collect(const measurement *m, const qwen3_model *model, FILE *progress, benchmark_result *r,
                            qwen3_error *err)
{
    int rank = qwen3_comm_rank(m->world), ranks = qwen3_comm_size(m->world);
    counters *all_counters = NULL;
    rank_memory *all_memory = NULL;

    if (rank == 0 && (all_counters = allocate((size_t)ranks, sizeof *all_counters, "counters", err)))
        all_memory = allocate((size_t)ranks, sizeof *all_memory, "memory", err);
    qwen3_status status = qwen3_comm_agree(m->world, err);
    if (status == QWEN3_OK) {
        qwen3_comm_gather(m->world, &m->counted, sizeof m->counted, all_counters);
        qwen3_comm_gather(m->world, &m->memory, sizeof m->memory, all_memory);
    }
    if (status == QWEN3_OK && all_counters && all_memory) {
        fill_plan(m, model, r);
        fill_times(m, r);
        if (has_prefill(m->o))
            reduce_counters(&r->prefill, all_counters, ranks, m->o->iterations, true);
        if (has_decode(m->o))
            reduce_counters(&r->decode, all_counters, ranks, m->o->iterations, false);
        fill_memory(r, all_memory, ranks, m->o->verbose ? progress : NULL);
    }
    free(all_counters);
    free(all_memory);
    return status;
}

qwen3_status measure(qwen3_comm *world, qwen3_model *model, const qwen3_session_options *session,
                     const benchmark_options *o, bool kv_cache, workload *w, FILE *progress, benchmark_result *r,
                     qwen3_error *err)
{
    measurement m = {.world = world, .o = o, .kv_cache = kv_cache, .w = w};
    m.memory.weights = qwen3_model_plan(model)->owned_bytes;
    size_t n = (size_t)o->iterations;
    double *samples = allocate(3 * n, sizeof *samples, "samples", err);
    qwen3_status status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK)
        status = qwen3_session_open(model, session, &m.session, err);
    if (status == QWEN3_OK) {
        m.prefill = samples;
        m.first_token = samples + n;
        m.decode = samples + 2 * n;
        status = iterate_all(&m, progress, err);
        if (status == QWEN3_OK)
            status = collect(&m, model, progress, r, err);
        qwen3_session_close(m.session);
    }
    free(samples);
    return status;
}
