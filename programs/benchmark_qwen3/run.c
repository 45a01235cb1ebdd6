/* run.c - one test, timed.
 *
 * A repetition forgets all sequences and brings them to the depth of the test, which is not timed. It then times the
 * prompt as one batch, the choice of the first token, and the generation as one batch per step, each part between
 * barriers of all ranks; the slowest rank counts. The duration of a repetition is that of prompt and generation. Tokens
 * are drawn by the seed and nothing is sampled in these parts, unless the test is greedy: then the choice of the next
 * token belongs to each decode step. Communication is read from the session's counters of the same parts. */
#include <math.h>
#include <stdlib.h>

#include "benchmark.h"
#include "common/program.h"
#include "common/statistics.h"

/* What one rank tells of its repetitions. */
typedef struct rank_totals {
    qwen3_comm_stats prefill, decode;                            /* sums */
    uint64_t weight_bytes, kv_bytes, scratch_bytes, score_bytes; /* maxima: the session tells of its last step */
    double expert_load;                                          /* of the last prompt */
} rank_totals;

typedef struct test_run {
    const benchmark *b;
    const benchmark_test *test;
    qwen3_session *session;
    workload work;
    rank_totals totals;
    qwen3_roofline limits; /* as last measured */
    benchmark_result *r;
} test_run;

/* Seconds of the slowest rank. */
typedef struct times {
    double prefill, first_token, decode;
} times;

qwen3_status session_open(const benchmark *b, const benchmark_test *t, qwen3_session **session, qwen3_error *err)
{
    qwen3_session_options options = b->o.arguments.session;
    options.max_sequences = t->batch;
    options.max_tokens = test_length(t);
    options.algorithm = t->algorithm;
    return qwen3_session_open(b->model, &options, session, err);
}

/* ---- Timing ------------------------------------------------------------------------------------ */

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void add_counters(test_run *run, qwen3_comm_stats *sum)
{
    rank_totals *totals = &run->totals;
    qwen3_session_info info;
    qwen3_session_get_info(run->session, &info);
    if (sum == &totals->prefill)
        totals->expert_load = info.expert_load;
    totals->kv_bytes = larger(totals->kv_bytes, info.kv_bytes);
    totals->scratch_bytes = larger(totals->scratch_bytes, info.scratch_bytes);
    totals->score_bytes = larger(totals->score_bytes, info.score_bytes);
    for (int kind = 0; kind < QWEN3_COMM_KINDS; kind++) {
        sum->calls[kind] += info.comm.calls[kind];
        sum->bytes[kind] += info.comm.bytes[kind];
        sum->seconds[kind] += info.comm.seconds[kind];
        sum->under_way[kind] += info.comm.under_way[kind];
    }
}

static double start_part(test_run *run)
{
    qwen3_comm_barrier(run->b->world);
    qwen3_session_reset_stats(run->session);
    return seconds_now();
}

/* `sum` NULL: the part is not counted. */
static double end_part(test_run *run, double start, qwen3_comm_stats *sum)
{
    if (sum)
        add_counters(run, sum);
    qwen3_comm_barrier(run->b->world);
    return seconds_now() - start;
}

/* The timed parts. Collective. */
static qwen3_status run_parts(test_run *run, int steps, bool counted, times *t, qwen3_error *err)
{
    qwen3_status status = QWEN3_OK;
    *t = (times){0};
    if (run->test->prompt) {
        const double start = start_part(run);
        if ((status = workload_prefill(&run->work, run->session, 1, err)) != QWEN3_OK)
            return status;
        t->prefill = end_part(run, start, counted ? &run->totals.prefill : NULL);
        if ((status = workload_choose(&run->work, run->session, 1, 0, err)) != QWEN3_OK)
            return status;
        t->first_token = end_part(run, start, NULL);
    }
    if (steps) {
        const double start = start_part(run);
        for (int step = 0; step < steps && status == QWEN3_OK; step++) {
            status = workload_decode(&run->work, run->session, (size_t)step, run->test->kv_cache, err);
            if (status == QWEN3_OK && run->test->greedy)
                status = workload_choose(&run->work, run->session, 1, (size_t)step + 1, err);
        }
        if (status != QWEN3_OK)
            return status;
        t->decode = end_part(run, start, counted ? &run->totals.decode : NULL);
    }
    qwen3_comm_max(run->b->world, (double *)t, sizeof *t / sizeof(double));
    return QWEN3_OK;
}

/* Collective. */
static qwen3_status measure_limits(test_run *run, qwen3_error *err)
{
    const qwen3_plan *plan = qwen3_model_plan(run->b->model);
    return qwen3_roofline_measure(run->b->world, plan->threads, plan->isa, &run->limits, err);
}

static void take_samples(test_run *run, size_t i, const times *t, const qwen3_roofline *limits)
{
    const benchmark_test *test = run->test;
    benchmark_result *r = run->r;
    const int prompt = test_prompt(test);
    const double seconds = (prompt ? t->prefill : 0) + t->decode;
    r->ns.values[i] = round(1e9 * seconds);
    r->ts.values[i] = test->batch * ((double)prompt + test->generate) / seconds;
    r->prefill.samples.values[i] = 1e3 * t->prefill;
    r->first_token.values[i] = 1e3 * t->first_token;
    r->decode.samples.values[i] = 1e3 * t->decode;
    if (limits) {
        r->bandwidth.values[i] = limits->read_bytes_per_second;
        r->peak.values[i] = roofline_peak(limits, qwen3_model_plan(run->b->model)->dtype);
        r->limit_ts.values[i] = test_limit(run->b->model, test, limits);
    }
}

/* One measured repetition: depth, limits, timed parts, limits. The mean of the limits on both sides counts. Where no
 * depth lies between, those after a repetition are those before the next. Collective. */
static qwen3_status repeat(test_run *run, size_t i, qwen3_error *err)
{
    const bool roofline = run->b->o.roofline;
    times t;
    qwen3_status status = workload_fill(&run->work, run->session, err);
    if (status == QWEN3_OK && roofline && (run->test->depth || i == 0))
        status = measure_limits(run, err);
    qwen3_roofline limits = run->limits;
    if (status == QWEN3_OK)
        status = run_parts(run, run->test->generate, true, &t, err);
    if (status == QWEN3_OK && roofline)
        status = measure_limits(run, err);
    if (status != QWEN3_OK)
        return status;
    limits = roofline_mean(&limits, &run->limits);
    take_samples(run, i, &t, roofline ? &limits : NULL);
    if (run->b->o.verbose && qwen3_comm_rank(run->b->world) == 0)
        fprintf(run->b->notes, "%-10s %zu: prefill %.3f ms, first token %.3f ms, decode %.3f ms, %.2f t/s\n",
                "repetition", i + 1, 1e3 * t.prefill, 1e3 * t.first_token, 1e3 * t.decode, run->r->ts.values[i]);
    return QWEN3_OK;
}

/* Warm-up and repetitions. A warm-up computes the prompt and one step, as that of llama-bench. Collective. */
static qwen3_status repeat_all(test_run *run, qwen3_error *err)
{
    const benchmark_options *o = &run->b->o;
    qwen3_status status = QWEN3_OK;
    for (int i = 0; i < o->warmup && status == QWEN3_OK; i++) {
        times t;
        status = workload_fill(&run->work, run->session, err);
        if (status == QWEN3_OK)
            status = run_parts(run, run->test->generate > 0, false, &t, err);
    }
    for (int i = 0; i < o->repetitions && status == QWEN3_OK; i++)
        status = repeat(run, (size_t)i, err);
    return status;
}

/* ---- Over the ranks ---------------------------------------------------------------------------- */

/* What all ranks communicated in one phase, per repetition. */
static void reduce_counters(phase_result *p, const rank_totals *all, bool prefill, int ranks, int repetitions)
{
    double inside[QWEN3_COMM_KINDS] = {0}, under_way[QWEN3_COMM_KINDS] = {0};
    p->comm_bytes_total = p->comm_seconds_total = 0;
    for (int kind = 0; kind < QWEN3_COMM_KINDS; kind++)
        p->comm_calls[kind] = p->comm_bytes[kind] = p->comm_seconds[kind] = 0;
    for (int rank = 0; rank < ranks; rank++) {
        const qwen3_comm_stats *s = prefill ? &all[rank].prefill : &all[rank].decode;
        double seconds = 0;
        for (int kind = 0; kind < QWEN3_COMM_KINDS; kind++) {
            p->comm_calls[kind] = fmax(p->comm_calls[kind], (double)s->calls[kind] / repetitions);
            p->comm_bytes[kind] += (double)s->bytes[kind] / repetitions;
            p->comm_bytes_total += (double)s->bytes[kind] / repetitions;
            p->comm_seconds[kind] = fmax(p->comm_seconds[kind], s->seconds[kind] / repetitions);
            seconds += s->seconds[kind] / repetitions;
            inside[kind] += s->seconds[kind];
            under_way[kind] += s->under_way[kind];
        }
        p->comm_seconds_total = fmax(p->comm_seconds_total, seconds);
    }
    for (int kind = 0; kind < QWEN3_COMM_KINDS; kind++)
        p->comm_overlapped[kind] = under_way[kind] > 0 ? fmax(0, 1 - inside[kind] / under_way[kind]) : NAN;
}

/* NaN where nothing was routed. */
static void reduce_load(benchmark_result *r, const rank_totals *all, int ranks)
{
    double most = 0;
    for (int rank = 0; rank < ranks; rank++)
        most = fmax(most, all[rank].expert_load);
    r->expert_load = most > 0 ? most : NAN;
}

static void reduce_memory(benchmark_result *r, const rank_totals *all, int ranks, FILE *progress)
{
    const double mib = 1048576.0;
    r->weight_bytes = r->kv_bytes = r->scratch_bytes = r->score_bytes = 0;
    for (int rank = 0; rank < ranks; rank++) {
        const double weights = (double)all[rank].weight_bytes, kv = (double)all[rank].kv_bytes;
        const double scratch = (double)all[rank].scratch_bytes, scores = (double)all[rank].score_bytes;
        r->weight_bytes = fmax(r->weight_bytes, weights);
        r->kv_bytes = fmax(r->kv_bytes, kv);
        r->scratch_bytes = fmax(r->scratch_bytes, scratch);
        r->score_bytes = fmax(r->score_bytes, scores);
        if (progress)
            fprintf(progress, "rank %-5d weights %.2f MiB, KV cache %.2f MiB, scratch %.2f MiB (scores %.2f MiB)\n",
                    rank, weights / mib, kv / mib, scratch / mib, scores / mib);
    }
}

/* Brings the totals of all ranks to rank 0 and completes the result there. Collective. */
static qwen3_status collect(const test_run *run, qwen3_error *err)
{
    const benchmark *b = run->b;
    const int rank = qwen3_comm_rank(b->world), ranks = qwen3_comm_size(b->world);
    rank_totals *all = NULL;
    if (rank == 0)
        all = allocate((size_t)ranks, sizeof *all, "counters", err);
    qwen3_status status = qwen3_comm_agree(b->world, err);
    if (status == QWEN3_OK)
        qwen3_comm_gather(b->world, &run->totals, sizeof run->totals, all);
    if (status == QWEN3_OK && all) {
        if (test_prompt(run->test))
            reduce_counters(&run->r->prefill, all, true, ranks, b->o.repetitions);
        if (run->test->generate)
            reduce_counters(&run->r->decode, all, false, ranks, b->o.repetitions);
        reduce_memory(run->r, all, ranks, b->o.verbose ? b->notes : NULL);
        reduce_load(run->r, all, ranks);
        result_complete(run->r, run->test->prompt > 0);
    }
    free(all);
    return status;
}

/* ---- One test ---------------------------------------------------------------------------------- */

qwen3_status run_test(const benchmark *b, const benchmark_test *t, benchmark_result *r, qwen3_error *err)
{
    test_run run = {.b = b, .test = t, .r = r};
    run.totals.weight_bytes = qwen3_model_plan(b->model)->owned_bytes;
    if (result_make_samples(r, (size_t)b->o.repetitions, b->o.roofline, err) == QWEN3_OK)
        workload_make(&run.work, t, b->o.arguments.model.seed, b->config.vocab_size, err);
    qwen3_status status = qwen3_comm_agree(b->world, err);
    if (status == QWEN3_OK)
        status = session_open(b, t, &run.session, err);
    if (status == QWEN3_OK) {
        describe_test(b, t, run.session, r);
        status = repeat_all(&run, err);
        if (status == QWEN3_OK)
            status = collect(&run, err);
        qwen3_session_close(run.session);
    }
    workload_free(&run.work);
    return status;
}
