/* verify.c - the configuration asked for against one rank of plain C kernels in f32.
 *
 * The reference generates greedily; the configuration under test is fed the same tokens, so that a near tie of two
 * logits cannot lead the two apart. The relative L2 is taken row by row, |x - y| / |y| over the vocabulary, and the
 * worst row is reported: one wrong row among many right ones does not pass. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "benchmark.h"
#include "common/program.h"

/* Rows of logits are wide (600 KiB for the published vocabulary). */
#define MAX_PREFILL_ROWS 64
#define MAX_STEPS 16

/* Relative L2 of a row by the type of the weights. What q8 and q4 lose, they lose when the weights are loaded. */
static const double tolerances[] = {
    [QWEN3_DTYPE_F32] = 1e-5, [QWEN3_DTYPE_BF16] = 1e-2, [QWEN3_DTYPE_Q8] = 5e-2, [QWEN3_DTYPE_Q4] = 0.5};
/* More, where keys and values have another type than such weights have by themselves. */
static const double kv_tolerances[] = {[QWEN3_DTYPE_F32] = 0, [QWEN3_DTYPE_BF16] = 1e-2, [QWEN3_DTYPE_Q8] = 3e-2};

/* Runs prompts and steps on `model` and collects the logits in out [rows, vocab] on rank 0: first the prompts' rows
 * of every sequence, then each step's. `greedy` writes the continuation, otherwise it is read. Collective over the
 * model's ranks. */
static qwen3_status run(reference *ref, qwen3_model *model, const qwen3_session_options *options, bool kv_cache,
                        bool greedy, float *out, qwen3_error *err)
{
    workload *w = &ref->work;
    qwen3_session *session = NULL;
    qwen3_status status = qwen3_session_open(model, options, &session, err);
    if (status != QWEN3_OK)
        return status;
    status = workload_prefill(w, session, ref->prefill_rows, err);
    for (size_t step = 0; status == QWEN3_OK; step++) {
        size_t rows = step ? 1 : ref->prefill_rows;
        status = qwen3_logits(session, out, err);
        if (status != QWEN3_OK || step == ref->steps)
            break;
        if (out)
            out += w->batch * rows * ref->vocab;
        if (greedy)
            status = workload_choose(w, session, rows, step, err);
        if (status == QWEN3_OK)
            status = workload_decode(w, session, step, kv_cache, err);
    }
    qwen3_session_close(session);
    return status;
}

/* A packed model is of one type, perhaps another than that of the reference. */
static void explain(qwen3_error *err)
{
    char why[sizeof err->message];
    const qwen3_status status = err->status;
    snprintf(why, sizeof why, "%s", err->message);
    *err = (qwen3_error){0};
    set_error(err, status, "--verify computes its reference in f32: %s", why);
}

/* On rank 0, alone. */
static qwen3_status compute_reference(reference *ref, const benchmark_options *o, qwen3_error *err)
{
    qwen3_model_options model_options = qwen3_model_options_default();
    qwen3_session_options session_options = qwen3_session_options_default();
    qwen3_model *model = NULL;

    model_options.strategy = QWEN3_STRATEGY_HEAD_WISE;
    model_options.dtype = QWEN3_DTYPE_F32;
    model_options.isa = QWEN3_ISA_C;
    model_options.threads = o->arguments.model.threads;
    model_options.seed = o->arguments.model.seed;
    session_options.max_sequences = o->batch;
    session_options.max_tokens = o->arguments.session.max_tokens;
    session_options.algorithm = QWEN3_ATTENTION_ONLINE_SOFTMAX;
    if (!(ref->logits = allocate(ref->rows * ref->vocab, sizeof *ref->logits, "--verify: logits", err)))
        return err->status;
    qwen3_status status = qwen3_model_open(qwen3_comm_self(), o->spec, &model_options, &model, err);
    if (status == QWEN3_OK)
        status = run(ref, model, &session_options, true, true, ref->logits, err);
    else
        explain(err);
    qwen3_model_close(model);
    return status;
}

static size_t clamp(size_t n, size_t least, size_t most)
{
    return n < least ? least : n > most ? most : n;
}

qwen3_status reference_make(reference *ref, qwen3_comm *world, const benchmark_options *o, qwen3_error *err)
{
    qwen3_config config;
    *ref = (reference){0};
    if (qwen3_config_read(o->spec, &config, err) == QWEN3_OK)
        workload_make(&ref->work, (size_t)o->batch, (size_t)o->prompt, has_decode(o) ? (size_t)o->generate : 0,
                      o->arguments.model.seed, config.vocab_size, err);
    if (err->status == QWEN3_OK) {
        workload *w = &ref->work;
        ref->vocab = (size_t)config.vocab_size;
        ref->prefill_rows = clamp(MAX_PREFILL_ROWS / w->batch, 1, w->prompt);
        ref->steps = clamp(w->generate, 0, MAX_STEPS);
        ref->rows = w->batch * (ref->prefill_rows + ref->steps);
        if (qwen3_comm_rank(world) == 0)
            compute_reference(ref, o, err);
    }
    qwen3_status status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK)
        qwen3_comm_broadcast(world, ref->work.history,
                             ref->work.batch * ref->work.capacity * sizeof *ref->work.history);
    return status;
}

void reference_free(reference *ref)
{
    workload_free(&ref->work);
    free(ref->logits);
    *ref = (reference){0};
}

static size_t largest(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

/* NAN anywhere gives a relative L2 of infinity. */
static void compare(const reference *ref, const float *logits, benchmark_result *r)
{
    size_t agreed = 0;
    r->relative_l2 = r->max_difference = 0;
    for (size_t row = 0; row < ref->rows; row++) {
        const float *x = logits + row * ref->vocab, *y = ref->logits + row * ref->vocab;
        double difference = 0, norm = 0, worst = 0;
        for (size_t i = 0; i < ref->vocab; i++) {
            double d = fabs((double)x[i] - (double)y[i]);
            difference += d * d;
            norm += (double)y[i] * (double)y[i];
            worst = fmax(worst, d);
        }
        double l2 = norm > 0 ? sqrt(difference / norm) : difference > 0 ? INFINITY : 0;
        r->relative_l2 = fmax(r->relative_l2, isnan(difference) || isnan(norm) ? INFINITY : l2);
        r->max_difference = fmax(r->max_difference, worst);
        agreed += largest(x, ref->vocab) == largest(y, ref->vocab);
    }
    r->verified_rows = (double)ref->rows;
    r->top1_agreement = (double)agreed / (double)ref->rows;
}

qwen3_status verify(reference *ref, qwen3_comm *world, qwen3_model *model, const qwen3_session_options *session,
                    bool kv_cache, benchmark_result *r, qwen3_error *err)
{
    float *logits = NULL;
    if (qwen3_comm_rank(world) == 0)
        logits = allocate(ref->rows * ref->vocab, sizeof *logits, "--verify: logits", err);
    qwen3_status status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK)
        status = run(ref, model, session, kv_cache, false, logits, err);
    if (status == QWEN3_OK && logits) {
        compare(ref, logits, r);
        const qwen3_plan *plan = qwen3_model_plan(model);
        r->tolerance = tolerances[plan->dtype];
        if (plan->kv_dtype == QWEN3_DTYPE_Q8 || plan->dtype == QWEN3_DTYPE_F32)
            r->tolerance += kv_tolerances[plan->kv_dtype];
        snprintf(r->verified, sizeof r->verified, "%s", r->relative_l2 <= r->tolerance ? "pass" : "fail");
    }
    free(logits);
    return status;
}
