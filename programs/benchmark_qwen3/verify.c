/* verify.c - a test against one rank of plain C kernels in f32.
 *
 * In a greedy test the reference chooses the tokens; the test is fed the same ones, so that a near tie of two logits
 * cannot lead the two apart. The relative L2 is taken row by row, |x - y| / |y| over the vocabulary, and the
 * worst row is reported: one wrong row among many right ones does not pass. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "benchmark.h"
#include "common/loading.h"
#include "common/program.h"

/* Rows of logits are wide (600 KiB for the published vocabulary). */
#define MAX_PREFILL_ROWS 64
#define MAX_STEPS 16

/* Relative L2 of a row by the type of the weights. What q8 and q4 lose, they lose when the weights are loaded. */
static const double tolerances[] = {
    [QWEN3_DTYPE_F32] = 1e-5, [QWEN3_DTYPE_BF16] = 1e-2, [QWEN3_DTYPE_Q8] = 5e-2, [QWEN3_DTYPE_Q4] = 0.5};
/* More, where keys and values have another type than such weights have by themselves. */
static const double kv_tolerances[] = {[QWEN3_DTYPE_F32] = 0, [QWEN3_DTYPE_BF16] = 1e-2, [QWEN3_DTYPE_Q8] = 3e-2};

/* Runs prompts and steps and collects the logits in out [rows, vocab] on rank 0: first the prompts' rows of every
 * sequence, then each step's. `choose`: greedy tests write their continuation; otherwise it is read. Collective over
 * the session's ranks. */
static qwen3_status run(reference *ref, qwen3_session *session, bool kv_cache, bool choose, float *out,
                        qwen3_error *err)
{
    workload *w = &ref->work;
    size_t rows = 0; /* of each sequence, from the last forward */
    qwen3_status status = workload_fill(w, session, err);
    if (status == QWEN3_OK && w->test->prompt) {
        rows = ref->prompt_rows;
        status = workload_prefill(w, session, rows, err);
    }
    for (size_t step = 0; status == QWEN3_OK; step++) {
        if (rows) {
            status = qwen3_logits(session, out, err);
            if (out)
                out += (size_t)w->test->batch * rows * ref->vocab;
        }
        if (status != QWEN3_OK || step == ref->steps)
            break;
        if (choose && w->test->greedy)
            status = workload_choose(w, session, rows, step, err);
        rows = 1;
        if (status == QWEN3_OK)
            status = workload_decode(w, session, step, kv_cache, err);
    }
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
static qwen3_status compute_references(benchmark *b, qwen3_error *err)
{
    qwen3_model_options model_options = qwen3_model_options_default();
    qwen3_model *model = NULL;

    model_options.strategy = QWEN3_STRATEGY_HEAD_WISE;
    model_options.dtype = QWEN3_DTYPE_F32;
    model_options.isa = QWEN3_ISA_C;
    model_options.threads = b->o.arguments.model.threads;
    model_options.seed = b->o.arguments.model.seed;
    qwen3_status status = load_model(qwen3_comm_self(), b->o.spec, &model_options, &model, err);
    if (status != QWEN3_OK)
        explain(err);
    for (size_t i = 0; i < b->list.shapes && status == QWEN3_OK; i++) {
        reference *ref = &b->references[i];
        qwen3_session_options options = qwen3_session_options_default();
        qwen3_session *session = NULL;
        options.max_sequences = ref->work.test->batch;
        options.max_tokens = test_length(ref->work.test);
        options.algorithm = QWEN3_ATTENTION_ONLINE_SOFTMAX;
        if (!(ref->logits = allocate(ref->rows * ref->vocab, sizeof *ref->logits, "--verify: logits", err)))
            status = err->status;
        if (status == QWEN3_OK)
            status = qwen3_session_open(model, &options, &session, err);
        if (status == QWEN3_OK)
            status = run(ref, session, true, true, ref->logits, err);
        qwen3_session_close(session);
    }
    qwen3_model_close(model);
    return status;
}

static size_t clamp(size_t n, size_t least, size_t most)
{
    return n < least ? least : n > most ? most : n;
}

/* Which rows of logits the reference of a shape has, and its tokens. */
static qwen3_status prepare(reference *ref, const benchmark *b, const benchmark_test *t, qwen3_error *err)
{
    const size_t batch = (size_t)t->batch, prompt = (size_t)t->prompt;
    ref->vocab = (size_t)b->config.vocab_size;
    ref->prompt_rows = prompt ? clamp(MAX_PREFILL_ROWS / batch, 1, prompt) : 0;
    ref->steps = clamp((size_t)t->generate, 0, MAX_STEPS);
    ref->rows = batch * (ref->prompt_rows + ref->steps);
    return workload_make(&ref->work, t, b->o.arguments.model.seed, b->config.vocab_size, err);
}

qwen3_status references_make(benchmark *b, qwen3_error *err)
{
    if (!(b->references = allocate(b->list.shapes, sizeof *b->references, "references", err)))
        b->list.shapes = 0;
    for (size_t i = 0; i < b->list.n && err->status == QWEN3_OK; i++) {
        const benchmark_test *t = &b->list.tests[i];
        if (!b->references[t->shape].rows)
            prepare(&b->references[t->shape], b, t, err);
    }
    if (err->status == QWEN3_OK && qwen3_comm_rank(b->world) == 0)
        compute_references(b, err);
    qwen3_status status = qwen3_comm_agree(b->world, err);
    for (size_t i = 0; i < b->list.shapes && status == QWEN3_OK; i++) {
        const workload *w = &b->references[i].work;
        qwen3_comm_broadcast(b->world, w->history, (size_t)w->test->batch * w->capacity * sizeof *w->history);
    }
    return status;
}

void references_free(benchmark *b)
{
    for (size_t i = 0; b->references && i < b->list.shapes; i++) {
        workload_free(&b->references[i].work);
        free(b->references[i].logits);
    }
    free(b->references);
    b->references = NULL;
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

qwen3_status verify_test(const benchmark *b, const benchmark_test *t, benchmark_result *r, qwen3_error *err)
{
    reference *ref = &b->references[t->shape];
    qwen3_session *session = NULL;
    float *logits = NULL;
    if (qwen3_comm_rank(b->world) == 0)
        logits = allocate(ref->rows * ref->vocab, sizeof *logits, "--verify: logits", err);
    qwen3_status status = qwen3_comm_agree(b->world, err);
    if (status == QWEN3_OK)
        status = session_open(b, t, &session, err);
    if (status == QWEN3_OK)
        status = run(ref, session, t->kv_cache, false, logits, err);
    if (status == QWEN3_OK && logits) {
        const qwen3_plan *plan = qwen3_model_plan(b->model);
        compare(ref, logits, r);
        r->tolerance = tolerances[plan->dtype];
        if (plan->kv_dtype == QWEN3_DTYPE_Q8 || plan->dtype == QWEN3_DTYPE_F32)
            r->tolerance += kv_tolerances[plan->kv_dtype];
        snprintf(r->verified, sizeof r->verified, "%s", r->relative_l2 <= r->tolerance ? "pass" : "fail");
    }
    qwen3_session_close(session);
    free(logits);
    return status;
}
