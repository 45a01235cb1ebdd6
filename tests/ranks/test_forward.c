/* test_forward.c - the model under every strategy, algorithm, weight type and step mode, on the ranks at
 * hand, against one rank of plain C kernels: in f32 (which tests/e2e compares with tools/reference.py) for f32 and
 * bf16, in the type itself for q8 and q4, whose distance from f32 is checked, too.
 *
 * Small checkpoints of odd shapes are written by rank 0: grouped heads 5:1, one KV head, sizes that nothing
 * divides, head_dim 32, 64, 128, tied and not, experts of which some are chosen, and all of a few. Each is driven
 * through prefill, chunked prefill, mixtures of prefill and decode of several sequences, and decode.
 */
#include <math.h>
#include <string.h>

#include "check.h"
#include "checkpoint.h"
#include "comm/comm_backend.h"
#include "kernels/kernels.h"

/* ---- Checkpoints ------------------------------------------------------------------------------- */

static const shape shapes[] = {
    {40, 101, 2, 5, 1, 32, 331, true, 0, 0, 0},   /* grouped 5:1, one KV head */
    {64, 160, 2, 6, 3, 64, 257, false, 0, 0, 0},  /* 3 KV heads */
    {96, 333, 2, 8, 8, 128, 1000, true, 0, 0, 0}, /* no grouping */
    {33, 70, 3, 14, 7, 32, 97, false, 0, 0, 0},   /* more heads than panels */
    {70, 101, 3, 6, 3, 32, 331, false, 11, 3, 85}, {64, 160, 2, 8, 2, 64, 257, true, 3, 3, 203},
};

enum { SHAPES = sizeof shapes / sizeof *shapes };

/* ---- A scenario: batches that follow each other in one session ---------------------------------- */

enum { SEQUENCES = 3, MAX_STEPS = 8, MAX_ROWS = 2600 };

typedef struct scenario {
    int steps;
    size_t rows[MAX_STEPS]; /* tokens of each step */
    int32_t tokens[MAX_STEPS][MAX_ROWS], sequences[MAX_STEPS][MAX_ROWS];
    uint8_t wanted[MAX_STEPS][MAX_ROWS];
    size_t total_wanted;
} scenario;

static void add_tokens(scenario *s, int at_step, int sequence, int n, int vocab, uint64_t *random)
{
    for (int i = 0; i < n; i++) {
        size_t at = s->rows[at_step]++;
        s->tokens[at_step][at] = (int32_t)(check_random(random) % (uint64_t)vocab);
        s->sequences[at_step][at] = sequence;
        s->wanted[at_step][at] = i == n - 1 || check_random(random) % (n < 200 ? 4 : 50) == 0;
        s->total_wanted += s->wanted[at_step][at];
    }
}

/* Prefill of three lengths at once (one longer than a KV page, one shorter than any number of ranks), more of
 * them (queries few, cache long), a mixture with decode, then decode steps. */
static void make_scenario(scenario *s, int vocab, uint64_t *random)
{
    *s = (scenario){.steps = 6};
    add_tokens(s, 0, 0, 70 + (int)(check_random(random) % 30), vocab, random);
    add_tokens(s, 0, 1, 1 + (int)(check_random(random) % 3), vocab, random);
    add_tokens(s, 0, 2, 19, vocab, random);
    add_tokens(s, 1, 2, 40, vocab, random);
    add_tokens(s, 2, 0, 1, vocab, random);
    add_tokens(s, 2, 1, 33, vocab, random);
    add_tokens(s, 3, 0, 9, vocab, random);
    add_tokens(s, 3, 2, 8, vocab, random);
    for (int i = 0; i < SEQUENCES; i++)
        add_tokens(s, 4, i, 1, vocab, random);
    add_tokens(s, 5, 1, 1, vocab, random);
}

/* Prompts whose two parts each fill pages of every rank, so that part 0 brings keys for part 1: one that goes on, one
 * that begins, and one token, which only part 1 has; then decode steps. */
static void make_long_scenario(scenario *s, int ranks, int vocab, uint64_t *random)
{
    *s = (scenario){.steps = 3};
    add_tokens(s, 0, 0, 20 + (int)(check_random(random) % 300), vocab, random);
    add_tokens(s, 0, 2, 5, vocab, random);
    add_tokens(s, 1, 1, 260 * ranks + (int)(check_random(random) % 99), vocab, random);
    add_tokens(s, 1, 2, 1, vocab, random);
    add_tokens(s, 1, 0, 300 * ranks + (int)(check_random(random) % 99), vocab, random);
    for (int i = 0; i < SEQUENCES; i++)
        add_tokens(s, 2, i, 1, vocab, random);
}

/* Runs a scenario; rank 0 of `group` gets the wanted logits one after the other. */
static bool run_scenario(qwen3_comm *group, const char *spec, const qwen3_model_options *options,
                         const qwen3_session_options *session_options, const scenario *s, size_t vocab, float *logits)
{
    qwen3_error err = {0};
    qwen3_model *model = NULL;
    qwen3_session *session = NULL;
    qwen3_status status = qwen3_model_open(group, spec, options, &model, &err);
    if (!status)
        status = qwen3_session_open(model, session_options, &session, &err);
    for (int i = 0; i < s->steps && !status; i++) {
        qwen3_batch batch = {
            .n_tokens = s->rows[i], .tokens = s->tokens[i], .sequences = s->sequences[i], .logits = s->wanted[i]};
        status = qwen3_forward(session, &batch, &err);
        if (!status)
            status = qwen3_logits(session, logits, &err);
        if (!status && logits)
            logits += qwen3_logits_rows(session) * vocab;
    }
    check(!status, "%s: %s", qwen3_status_name(status), err.message);
    qwen3_session_info info;
    qwen3_session_get_info(session, &info);
    const bool experts = !status && qwen3_model_config(model)->num_experts > 0;
    check(experts ? info.expert_load >= 1 || qwen3_comm_size(group) > 1 : info.expert_load == 0, "load %g of experts",
          info.expert_load);
    qwen3_session_close(session);
    qwen3_model_close(model);
    return !status;
}

/* Relative L2 of the worst of the rows [rows, n]; infinite where a row is not finite, or is to be zero. */
static double worst_row(const float *a, const float *b, size_t rows, size_t n)
{
    double worst = 0;
    for (size_t row = 0; row < rows; row++, a += n, b += n) {
        double difference = 0, norm = 0;
        for (size_t i = 0; i < n; i++) {
            difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
            norm += (double)b[i] * b[i];
        }
        double error = sqrt(difference / norm);
        worst = isfinite(error) ? fmax(worst, error) : INFINITY;
        if (isinf(worst))
            break;
    }
    return worst;
}

/* ---- Configurations ----------------------------------------------------------------------------- */

typedef struct variant {
    qwen3_model_options model;
    qwen3_session_options session;
    int layers;
    bool messages; /* as between nodes */
    char name[240];
} variant;

/* Root mean square of what rounding to a type changes, relative to what is rounded. */
static double rounding(qwen3_dtype type)
{
    switch (type) {
    case QWEN3_DTYPE_BF16: /* evenly distributed within half a step of 2^-8 */
        return 0x1p-9 / sqrt(3);
    case QWEN3_DTYPE_Q8: /* the same, of a step of largest / 127; the largest of 32 values is about 2.1 of their root
                            mean square, that of a head of 128 about 2.6 */
        return 2.4 / 127 / sqrt(12);
    default: /* of a sum of 400 products, one after the other */
        return 0x1p-24 * sqrt(400.0 / 6);
    }
}

/* Bound of the relative L2 of the worst row. What is rounded: in each layer the inputs of the four products, keys and
 * values, where activations are BF16 also queries and probabilities; at the end the input of the head. The error of
 * each is independent, and in the residual stream weighs about as much as any other: together they are as long as one
 * times the square root of their number. The worst of a hundred rows, and softmax and SwiGLU where they are steep, may
 * have four times that; half of it is what is seen. */
static double tolerance(const variant *v)
{
    const kernels *k = kernels_get(v->model.isa);
    const bool small = v->model.isa == QWEN3_ISA_AUTO; /* all but the weights in f32 */
    const qwen3_dtype act = small || !k ? QWEN3_DTYPE_F32 : k->gemm[v->model.dtype].activation;
    const qwen3_dtype own = small || v->model.dtype == QWEN3_DTYPE_F32 ? QWEN3_DTYPE_F32 : QWEN3_DTYPE_BF16;
    const qwen3_dtype kv = v->model.kv_dtype == QWEN3_DTYPE_AUTO ? own : v->model.kv_dtype;
    const int inputs = (act == QWEN3_DTYPE_BF16 ? 6 : 4) * v->layers + 1, cached = 2 * v->layers;
    /* Contributions of ranks to the two sums of a layer, and the sums; contributions may be larger than their sum. */
    const int sums = v->messages && v->model.grid_heads > 1 ? 4 * 2 * v->layers : 0;
    const qwen3_dtype wire = v->session.wire == QWEN3_DTYPE_AUTO ? QWEN3_DTYPE_F32 : v->session.wire;
    return 4 * sqrt(inputs * pow(rounding(act), 2) + cached * pow(rounding(kv), 2) + sums * pow(rounding(wire), 2));
}

/* Whether experts are chosen: then what is rounded on the way decides between experts that are nearly equal, and a row
 * gets another one. Such models are only computed in f32 (weights may be rounded, which is the same for all). */
static bool chooses(const shape *s)
{
    return s->chosen < s->experts;
}

/* The ranks of a test. */
typedef struct rank_sets {
    comm *world, *messages; /* messages: as if each were a node of its own */
} rank_sets;

static void check_variant(const rank_sets *ranks, const char *spec, const scenario *s, size_t vocab,
                          const float *expected, variant *v, float *logits)
{
    bool root = qwen3_comm_rank(ranks->world) == 0;
    v->session.max_sequences = SEQUENCES;
    snprintf(v->name, sizeof v->name,
             "%s grid %dx%d %s %s%s %s, %d threads, split from %lld rows, overlapped from %lld%s%s",
             qwen3_strategy_name(v->model.strategy), v->model.grid_sequence, v->model.grid_heads,
             qwen3_algorithm_name(v->session.algorithm), qwen3_dtype_name(v->model.dtype),
             v->model.kv_dtype == QWEN3_DTYPE_Q8 ? ", keys and values in q8," : "", qwen3_isa_name(v->model.isa),
             v->model.threads, (long long)v->session.token_split_min, (long long)v->session.overlap_min_rows,
             v->messages ? ", by messages" : "",
             v->session.wire == QWEN3_DTYPE_AUTO   ? ""
             : v->session.wire == QWEN3_DTYPE_BF16 ? ", bf16 on the wire"
                                                   : ", q8 on the wire");
    if (!run_scenario(v->messages ? ranks->messages : ranks->world, spec, &v->model, &v->session, s, vocab, logits) ||
        !root)
        return;
    double error = worst_row(logits, expected, s->total_wanted, vocab), most = tolerance(v);
    check(error <= most, "%s: relative L2 %.3g in the worst row, expected <= %.3g", v->name, error, most);
    check(v->model.kv_dtype != QWEN3_DTYPE_Q8 || error >= 1e-3, "%s: relative L2 %.3g, expected what 8 bits cost",
          v->name, error);
}

/* Logits of one rank of plain C in every type of `expected`, where these differ, on rank 0. */
static void make_expected(const char *dir, const shape *model, const scenario *s, float *const expected[DTYPE_COUNT])
{
    /* 22 matrices are rounded, by 5e-3 and 9e-2 (steps of largest / 127 and largest / 7), alike for all rows: twice
     * what these make together. Half of 5e-3 is what rounding costs at least. */
    static const struct {
        double least, most;
    } bounds[DTYPE_COUNT] = {[QWEN3_DTYPE_Q8] = {2.5e-3, 5e-2}, [QWEN3_DTYPE_Q4] = {4.5e-2, 0.8}};
    /* Lowered by the environment and not by the option, the level leaves keys and values in f32. */
    const size_t vocab = (size_t)model->vocab;
    char level[32];
    snprintf(level, sizeof level, "%s", getenv("QWEN3_ISA") ? getenv("QWEN3_ISA") : "auto");
    setenv("QWEN3_ISA", "c", 1);
    for (int type = 0; type < DTYPE_COUNT; type++) {
        if (type == QWEN3_DTYPE_BF16) /* what the checkpoint has */
            continue;
        qwen3_model_options plain = qwen3_model_options_default();
        qwen3_session_options session = qwen3_session_options_default();
        plain.dtype = (qwen3_dtype)type;
        plain.threads = 1;
        session.max_sequences = SEQUENCES;
        session.algorithm = QWEN3_ATTENTION_STANDARD;
        run_scenario(qwen3_comm_self(), dir, &plain, &session, s, vocab, expected[type]);
        if (type == QWEN3_DTYPE_F32 || chooses(model)) /* f32: what the others are compared with */
            continue;
        double error = worst_row(expected[type], expected[QWEN3_DTYPE_F32], s->total_wanted, vocab);
        check(error >= bounds[type].least && error <= bounds[type].most,
              "%s: relative L2 %.3g from f32 in the worst row, expected %.3g to %.3g", qwen3_dtype_name(plain.dtype),
              error, bounds[type].least, bounds[type].most);
    }
    setenv("QWEN3_ISA", level, 1);
}

/* Steps in two parts by messages, on all grids. */
static void check_parts(const rank_sets *sets, const char *dir, const shape *model, uint64_t *random)
{
    const int ranks = qwen3_comm_size(sets->world);
    const bool root = qwen3_comm_rank(sets->world) == 0;
    scenario *s = malloc(sizeof *s);
    make_long_scenario(s, ranks, model->vocab, random);
    const size_t floats = s->total_wanted * (size_t)model->vocab;
    float *expected = root ? malloc(2 * floats * sizeof *expected) : NULL, *logits = root ? expected + floats : NULL;
    variant v = {.model = qwen3_model_options_default(),
                 .session = qwen3_session_options_default(),
                 .layers = model->layers,
                 .messages = true};
    v.model.dtype = QWEN3_DTYPE_F32;
    v.model.threads = 1;
    v.session.max_sequences = SEQUENCES;
    if (root)
        run_scenario(qwen3_comm_self(), dir, &v.model, &v.session, s, (size_t)model->vocab, expected);
    v.session.overlap_min_rows = 2;
    for (int h = 1; h <= ranks; h++) {
        if (ranks % h)
            continue;
        v.model.strategy = QWEN3_STRATEGY_AUTO;
        v.model.grid_sequence = ranks / h;
        v.model.grid_heads = h;
        v.model.threads = 1 + (int)(check_random(random) % 2);
        v.session.algorithm = check_random(random) % 2 ? QWEN3_ATTENTION_STANDARD : QWEN3_ATTENTION_ONLINE_SOFTMAX;
        for (int wire = 0; wire < 3; wire++) {
            v.session.wire = (qwen3_dtype[]){QWEN3_DTYPE_AUTO, QWEN3_DTYPE_BF16, QWEN3_DTYPE_Q8}[wire];
            if (wire && (h == 1 || chooses(model))) /* h 1: no sums */
                continue;
            check_variant(sets, dir, s, (size_t)model->vocab, expected, &v, logits);
            const double error = root ? worst_row(logits, expected, s->total_wanted, (size_t)model->vocab) : 1;
            check(!wire || error >= rounding(v.session.wire), "%s: relative L2 %.3g, expected what rounding costs",
                  v.name, error);
        }
    }
    free(expected);
    free(s);
}

/* All pairs over the factorisations of the ranks into a grid. */
static void check_shape(const rank_sets *sets, int index, uint64_t *random)
{
    comm *world = sets->world;
    const shape *model = &shapes[index];
    bool root = qwen3_comm_rank(world) == 0;
    int ranks = qwen3_comm_size(world);
    char dir[CHECKPOINT_NAME];
    make_checkpoint(world, model, check_random(random), dir);
    scenario *s = malloc(sizeof *s);
    make_scenario(s, model->vocab, random);
    size_t floats = s->total_wanted * (size_t)model->vocab;
    float *all = root ? malloc((DTYPE_COUNT + 1) * floats * sizeof(float)) : NULL, *logits = all;
    float *expected[DTYPE_COUNT] = {0};
    if (root) {
        for (size_t type = 0; type < DTYPE_COUNT; type++)
            expected[type] = all + (1 + (type == QWEN3_DTYPE_BF16 ? (size_t)QWEN3_DTYPE_F32 : type)) * floats;
        make_expected(dir, model, s, expected);
    }
    /* A level with activations of 8 bits, where there is one. */
    const qwen3_isa bytes = kernels_get(QWEN3_ISA_AVX512_VNNI) ? QWEN3_ISA_AVX512_VNNI
                            : kernels_get(QWEN3_ISA_NEON_DOT)  ? QWEN3_ISA_NEON_DOT
                                                               : qwen3_isa_best();
    for (int h = 1; h <= ranks; h++) {
        if (ranks % h)
            continue;
        for (int bits = 0; bits < 4; bits++) {
            /* Many ranks on few cores are slow: half of the pairs for each shape, all of them over the shapes. */
            if (ranks > 4 && (bits ^ (bits >> 1) ^ index) & 1)
                continue;
            variant v = {.model = qwen3_model_options_default(),
                         .session = qwen3_session_options_default(),
                         .layers = model->layers};
            v.model.strategy = h == ranks ? QWEN3_STRATEGY_HEAD_WISE
                               : h == 1   ? QWEN3_STRATEGY_SEQUENCE
                                          : QWEN3_STRATEGY_HYBRID;
            v.model.grid_sequence = ranks / h;
            v.model.grid_heads = h;
            v.model.threads = 1 + (int)(check_random(random) % 2);
            /* Every type meets every grid and algorithm over the shapes. */
            v.model.dtype = (qwen3_dtype)(2 * (bits & 1) + (((index >> 1) + h + (bits >> 1)) & 1));
            /* AUTO keeps all but the weights of small models in f32: ask for what large ones get, too. */
            v.model.isa = (qwen3_isa[]){qwen3_isa_best(), bytes, QWEN3_ISA_C, QWEN3_ISA_AUTO}[check_random(random) % 4];
            if (chooses(model))
                v.model.isa = QWEN3_ISA_AUTO;
            v.model.share_weights = check_random(random) % 4 != 0;
            v.session.algorithm = bits & 2 ? QWEN3_ATTENTION_STANDARD : QWEN3_ATTENTION_ONLINE_SOFTMAX;
            v.session.token_split_min = (int64_t[]){0, 1, 1000}[check_random(random) % 3];
            /* By messages, steps are computed in two parts where rows are enough. */
            v.messages = check_random(random) % 2;
            v.session.overlap_min_rows = (int64_t[]){0, 2, 12}[check_random(random) % 3];
            v.session.q_block_size = (int[]){0, 1, 7}[check_random(random) % 3];
            v.session.kv_block_size = (int[]){0, 64, 100}[check_random(random) % 3];
            check_variant(sets, dir, s, (size_t)model->vocab, expected[v.model.dtype], &v, logits);
            if ((bits ^ index) & 1 || chooses(model)) /* every grid and algorithm, half of the types for each shape */
                continue;
            v.model.kv_dtype = QWEN3_DTYPE_Q8;
            check_variant(sets, dir, s, (size_t)model->vocab, expected[v.model.dtype], &v, logits);
        }
    }
    if (ranks > 1 && ranks <= 4)
        check_parts(sets, dir, model, random);
    if (root)
        remove_checkpoint(dir);
    free(all);
    free(s);
}

int main(int argc, char **argv)
{
    uint64_t random;
    qwen3_comm *world = check_begin(argc, argv, 20261122, &random);
    rank_sets sets = {.world = world};
    check(comm_split(world, 0, qwen3_comm_rank(world), &sets.messages, NULL) == QWEN3_OK, "comm_split failed");
    comm_use_messages(sets.messages);
    for (int i = 0; i < SHAPES; i++)
        check_shape(&sets, i, &random);
    comm_free(sets.messages);
    return check_end(world);
}
