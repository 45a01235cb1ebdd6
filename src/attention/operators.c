/* operators.c - the public attention operators: arguments are checked here, on each rank and between the ranks,
 * before anything else is communicated. */
#include <omp.h>

#include "attention/operator.h"
#include "base/memory.h"

enum { MAX_BLOCK = 1 << 20 };

qwen3_attention_args qwen3_attention_args_default(void)
{
    return (qwen3_attention_args){.batch = 1, .layout = QWEN3_INPUT_REPLICATED, .isa = QWEN3_ISA_AUTO};
}

/* Bytes of an f32 array, or SIZE_MAX where they do not fit. */
static size_t array_bytes(size_t a, size_t b, size_t c, size_t d)
{
    size_t n = sizeof(float);
    if (__builtin_mul_overflow(n, a, &n) || __builtin_mul_overflow(n, b, &n) || __builtin_mul_overflow(n, c, &n) ||
        __builtin_mul_overflow(n, d, &n))
        return SIZE_MAX;
    return n;
}

static qwen3_status check_arrays(const qwen3_attention_args *a, qwen3_error *err)
{
    size_t q_bytes = array_bytes(a->batch, a->heads, a->q_len, a->head_dim);
    size_t kv_bytes = array_bytes(a->batch, a->kv_heads, a->kv_len, a->head_dim);
    if (q_bytes > PTRDIFF_MAX || kv_bytes > PTRDIFF_MAX || a->q_len > INT32_MAX || a->kv_len > INT32_MAX)
        return fail(err, QWEN3_ERR_ARGUMENT,
                    "attention shape: batch %zu, heads %zu and %zu, lengths %zu and %zu, head_dim %zu are too large",
                    a->batch, a->heads, a->kv_heads, a->q_len, a->kv_len, a->head_dim);
    if (q_bytes > 0 && (!a->q || !a->out))
        return fail(err, QWEN3_ERR_ARGUMENT, "attention %s: got NULL for %zu queries of %zu heads", a->q ? "out" : "q",
                    a->q_len, a->heads);
    if (kv_bytes > 0 && (!a->k || !a->v))
        return fail(err, QWEN3_ERR_ARGUMENT, "attention %s: got NULL for %zu keys of %zu heads", a->k ? "v" : "k",
                    a->kv_len, a->kv_heads);
    return QWEN3_OK;
}

/* What one rank can see by itself. */
static qwen3_status check_arguments(const qwen3_attention_args *a, qwen3_error *err)
{
    if (missing(a, "args", err))
        return err->status;
    if (a->head_dim == 0)
        return fail(err, QWEN3_ERR_ARGUMENT, "attention head_dim: got 0, expected at least 1");
    if (a->kv_heads == 0 ? a->heads != 0 : a->heads == 0 || a->heads % a->kv_heads != 0)
        return fail(err, QWEN3_ERR_ARGUMENT, "attention heads: got %zu, expected a multiple of the %zu KV heads",
                    a->heads, a->kv_heads);
    if (a->layout != QWEN3_INPUT_REPLICATED && a->layout != QWEN3_INPUT_SHARDED)
        return fail(err, QWEN3_ERR_ARGUMENT, "attention layout: got %d, expected REPLICATED or SHARDED",
                    (int)a->layout);
    if (!isfinite(a->scale))
        return fail(err, QWEN3_ERR_ARGUMENT, "attention scale: got %g, expected a finite number", (double)a->scale);
    if (team_check_threads(a->threads, err))
        return err->status;
    if (a->q_block_size < 0 || a->q_block_size > MAX_BLOCK || a->kv_block_size < 0 || a->kv_block_size > MAX_BLOCK)
        return fail(err, QWEN3_ERR_ARGUMENT, "attention q_block_size, kv_block_size: got %d, %d, expected 0 to %d",
                    a->q_block_size, a->kv_block_size, MAX_BLOCK);
    const kernels *k;
    return kernels_choose(a->isa, &k, err) ? err->status : check_arrays(a, err);
}

/* Names the first argument in which two ranks differ and must not; NULL where there is none. */
static const char *differing(const operator_arguments *a, const operator_arguments *b)
{
    bool sequence = a->strategy == QWEN3_STRATEGY_SEQUENCE, sharded = a->layout == QWEN3_INPUT_SHARDED;
    bool same_heads = sequence || !sharded, same_lengths = !sequence || !sharded;
    if (a->strategy != b->strategy || a->algorithm != b->algorithm)
        return "operator";
    if (a->layout != b->layout)
        return "layout";
    if (a->causal != b->causal)
        return "causal";
    if (a->batch != b->batch)
        return "batch";
    if (a->head_dim != b->head_dim)
        return "head_dim";
    if (a->scale != b->scale)
        return "scale";
    if (same_heads && (a->heads != b->heads || a->kv_heads != b->kv_heads))
        return "heads or kv_heads";
    if (same_lengths && (a->q_len != b->q_len || a->kv_len != b->kv_len))
        return "q_len or kv_len";
    if (a->global_seq_len != b->global_seq_len)
        return "global_seq_len";
    return NULL;
}

/* What only all ranks together can see. All of them come to the same result. */
static qwen3_status check_ranks(const operator_arguments *ranks, int size, qwen3_error *err)
{
    uint64_t q_len = 0, kv_len = 0;
    for (int r = 0; r < size; r++) {
        const char *what = differing(&ranks[0], &ranks[r]);
        if (what)
            return fail(err, QWEN3_ERR_ARGUMENT, "attention %s: rank %d passes another value than rank 0", what, r);
        q_len += ranks[r].q_len;
        kv_len += ranks[r].kv_len;
    }
    if (ranks[0].strategy != QWEN3_STRATEGY_SEQUENCE || ranks[0].layout != QWEN3_INPUT_SHARDED)
        return QWEN3_OK;
    if (ranks[0].global_seq_len != 0 && ranks[0].global_seq_len != kv_len)
        return fail(err, QWEN3_ERR_ARGUMENT, "attention global_seq_len: got %llu, but the shards have %llu keys",
                    (unsigned long long)ranks[0].global_seq_len, (unsigned long long)kv_len);
    if (q_len > INT32_MAX || kv_len > INT32_MAX)
        return fail(err, QWEN3_ERR_ARGUMENT, "attention shards: %llu queries and %llu keys, expected at most %d",
                    (unsigned long long)q_len, (unsigned long long)kv_len, INT32_MAX);
    return QWEN3_OK;
}

static operator_arguments arguments_of(const operator_call *op, qwen3_parallel_strategy strategy)
{
    const qwen3_attention_args *a = op->args;
    return (operator_arguments){.strategy = strategy,
                                .algorithm = op->algorithm->id,
                                .layout = a->layout,
                                .causal = a->causal,
                                .batch = a->batch,
                                .head_dim = a->head_dim,
                                .heads = a->heads,
                                .kv_heads = a->kv_heads,
                                .q_len = a->q_len,
                                .kv_len = a->kv_len,
                                .global_seq_len = a->global_seq_len,
                                .has_mask = a->mask != NULL && a->q_len > 0,
                                .isa = kernels_get(a->isa)->isa,
                                .scale = a->scale};
}

/* Blocks that travel are packed for one instruction set: the best that all ranks have. */
static void set_shape(operator_call *op)
{
    const qwen3_attention_args *a = op->args;
    qwen3_isa isa = (qwen3_isa)op->ranks[0].isa;
    for (int r = 1; r < comm_size(op->comm); r++)
        isa = kernels_common(isa, (qwen3_isa)op->ranks[r].isa);
    op->threads = a->threads ? a->threads : omp_get_max_threads();
    op->scale = a->scale != 0.0f ? a->scale : 1.0f / sqrtf((float)a->head_dim);
    op->shape = (attention_shape){
        .kernels = kernels_get(isa),
        .kv_type = QWEN3_DTYPE_F32,
        .head_dim = a->head_dim,
        .causal = a->causal,
        .q_block_size = a->q_block_size ? a->q_block_size : ATTENTION_Q_BLOCK,
        .kv_block_size = (int)round_up(a->kv_block_size ? (size_t)a->kv_block_size : ATTENTION_KV_BLOCK, KV_BLOCK)};
}

static qwen3_status attend(const qwen3_attention_args *args, comm *c, qwen3_parallel_strategy strategy,
                           qwen3_attention_algorithm algorithm, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(c, "comm", err))
        return err->status;
    operator_call op = {.args = args, .comm = c, .algorithm = attention_algorithm_get(algorithm)};
    const size_t size = (size_t)comm_size(c);
    void *ranks = NULL, *bytes = NULL;
    if (check_arguments(args, err) == QWEN3_OK &&
        memory_alloc(&ranks, size * sizeof *op.ranks, "attention arguments", err) == QWEN3_OK)
        memory_alloc(&bytes, size * sizeof(size_t), "attention arguments", err);
    if (qwen3_comm_agree(c, err) != QWEN3_OK)
        goto out;
    op.ranks = ranks;
    for (size_t r = 0; r < size; r++)
        ((size_t *)bytes)[r] = sizeof *op.ranks;
    operator_arguments own = arguments_of(&op, strategy);
    comm_allgather(c, &own, ranks, bytes, QWEN3_COMM_CONTROL);
    if (check_ranks(op.ranks, (int)size, err) != QWEN3_OK)
        goto out;
    set_shape(&op);
    operator_plan(&op, err);
    if (qwen3_comm_agree(c, err) == QWEN3_OK)
        operator_run(&op);
out:
    operator_free(&op);
    memory_free(ranks, size * sizeof *op.ranks);
    memory_free(bytes, size * sizeof(size_t));
    return err->status;
}

/* The four pairs. */
#define OPERATOR(name, strategy, algorithm)                                                                            \
    qwen3_status qwen3_attention_##name(const qwen3_attention_args *args, qwen3_comm *c, qwen3_error *err)             \
    {                                                                                                                  \
        return attend(args, c, strategy, algorithm, err);                                                              \
    }

OPERATOR(headwise_standard, QWEN3_STRATEGY_HEAD_WISE, QWEN3_ATTENTION_STANDARD)
OPERATOR(headwise_online_softmax, QWEN3_STRATEGY_HEAD_WISE, QWEN3_ATTENTION_ONLINE_SOFTMAX)
OPERATOR(sequence_standard, QWEN3_STRATEGY_SEQUENCE, QWEN3_ATTENTION_STANDARD)
OPERATOR(sequence_online_softmax, QWEN3_STRATEGY_SEQUENCE, QWEN3_ATTENTION_ONLINE_SOFTMAX)
