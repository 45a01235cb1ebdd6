/* operator_plan.c - which heads, rows and keys of an operator call a rank computes, and the memory for it. */
#include "attention/operator.h"
#include "attention/pass_q.h"
#include "base/memory.h"

/* Up to this many queries of a KV head attend to the caller's keys where they are: packing costs about as much as
 * reading the keys ten times. */
#define IN_PLACE_QUERIES 64
/* Keys per tile of these where the caller names no number: memory gives its full rate only to long pieces in order, and
 * few queries have small tiles of scores. */
#define IN_PLACE_KV_BLOCK 2048

static bool is_sequence(const operator_call *op)
{
    return op->ranks[0].strategy == QWEN3_STRATEGY_SEQUENCE;
}

static bool is_replicated(const operator_call *op)
{
    return op->ranks[0].layout == QWEN3_INPUT_REPLICATED && comm_size(op->comm) > 1;
}

/* Whole KV heads with their groups while there are enough of them; otherwise several ranks share one KV head and
 * split its group. Some may get nothing. */
static output_part head_part(const operator_call *op, int rank)
{
    const size_t kv_heads = op->args->kv_heads, ranks = (size_t)comm_size(op->comm), r = (size_t)rank;
    output_part part = {.rows = op->args->q_len};
    if (kv_heads == 0)
        return part;
    const size_t group = op->args->heads / kv_heads;
    if (ranks <= kv_heads) {
        part.head0 = kv_heads * r / ranks * group;
        part.heads = kv_heads * (r + 1) / ranks * group - part.head0;
    } else {
        size_t kv = r * kv_heads / ranks;
        size_t first = ceil_div(kv * ranks, kv_heads), sharers = ceil_div((kv + 1) * ranks, kv_heads) - first;
        part.head0 = kv * group + group * (r - first) / sharers;
        part.heads = kv * group + group * (r - first + 1) / sharers - part.head0;
    }
    return part;
}

size_t operator_parts(const operator_call *op, int rank, output_part parts[2])
{
    if (!is_sequence(op)) {
        parts[0] = head_part(op, rank);
        return 1;
    }
    /* Chunks r and 2R-1-r of 2R: with a causal mask all ranks see equally many keys. */
    const size_t chunks = 2 * (size_t)comm_size(op->comm), rows = op->args->q_len;
    const size_t chunk[2] = {(size_t)rank, chunks - 1 - (size_t)rank};
    for (size_t i = 0; i < 2; i++) {
        size_t row0 = rows * chunk[i] / chunks;
        parts[i] = (output_part){0, op->args->heads, row0, rows * (chunk[i] + 1) / chunks - row0};
    }
    return 2;
}

size_t part_elements(const operator_call *op, const output_part *part)
{
    return op->args->batch * part->heads * part->rows * op->args->head_dim;
}

static void plan_heads(operator_call *op)
{
    const qwen3_attention_args *a = op->args;
    op->shape.kv_heads = a->kv_heads;
    op->shape.group = a->kv_heads ? a->heads / a->kv_heads : 0;
    if (is_sequence(op) || !is_replicated(op))
        return;
    output_part part = head_part(op, comm_rank(op->comm));
    size_t group = op->shape.group;
    op->head0 = part.head0;
    op->kv_head0 = group ? part.head0 / group : 0;
    op->shape.group = part.heads < group ? part.heads : group;
    op->shape.kv_heads = op->shape.group ? part.heads / op->shape.group : 0;
}

/* The cheaper way by bytes sent per rank: keys and values, or queries there and partials back. A mask stays with
 * its queries, so with one only keys can travel. */
static bool prefer_pass_q(const operator_call *op, size_t q_len, size_t kv_len)
{
    const size_t dim = op->args->head_dim;
    for (int r = 0; r < comm_size(op->comm); r++)
        if (op->ranks[r].has_mask)
            return false;
    return op->args->heads * q_len * (2 * dim + 2) < op->args->kv_heads * kv_len * 2 * dim;
}

/* Rank `first`'s part of the sum of `lengths` starts where those before it end. */
typedef struct sequence_offsets {
    size_t q_before, kv_before, q_all, kv_all;
} sequence_offsets;

static sequence_offsets offsets_of(const operator_call *op, int rank)
{
    sequence_offsets at = {0};
    for (int r = 0; r < comm_size(op->comm); r++) {
        at.q_before += r < rank ? op->ranks[r].q_len : 0;
        at.kv_before += r < rank ? op->ranks[r].kv_len : 0;
        at.q_all += op->ranks[r].q_len;
        at.kv_all += op->ranks[r].kv_len;
    }
    return at;
}

/* Chooses the flow, and what each set and the shard hold. */
static void plan_flow(operator_call *op, query_set sets[], output_part parts[2])
{
    const qwen3_attention_args *a = op->args;
    const size_t ranks = (size_t)comm_size(op->comm), rank = (size_t)comm_rank(op->comm);
    const int64_t first = (int64_t)a->kv_len - (int64_t)a->q_len;
    op->gather = is_replicated(op);
    op->flow = FLOW_LOCAL;
    op->keys = a->kv_len;
    op->n_sets = 1;
    sets[0] = (query_set){.rows = a->q_len, .position0 = first};
    if (op->gather && is_sequence(op) && a->q_len < 2 * ranks) {
        size_t blocks = ceil_div(a->kv_len, KV_BLOCK), end = blocks * (rank + 1) / ranks * KV_BLOCK;
        op->flow = FLOW_SPLIT_KEYS;
        op->gather = false;
        op->key0 = op->key_position0 = blocks * rank / ranks * KV_BLOCK;
        op->keys = (end < a->kv_len ? end : a->kv_len) - op->key0;
    } else if (op->gather) {
        op->n_sets = operator_parts(op, (int)rank, parts);
        for (size_t i = 0; i < op->n_sets; i++)
            sets[i] =
                (query_set){.rows = parts[i].rows, .row0 = parts[i].row0, .position0 = first + (int64_t)parts[i].row0};
    } else if (is_sequence(op) && ranks > 1) {
        sequence_offsets at = offsets_of(op, (int)rank);
        int64_t shift = (int64_t)at.kv_all - (int64_t)at.q_all;
        op->key_position0 = at.kv_before;
        op->flow = prefer_pass_q(op, at.q_all, at.kv_all) ? FLOW_PASS_Q : FLOW_PASS_KV;
        sets[0].position0 = (int64_t)at.q_before + shift;
        for (size_t r = 0; op->flow == FLOW_PASS_Q && r < ranks; r++)
            sets[r] =
                (query_set){.rows = op->ranks[r].q_len, .position0 = (int64_t)offsets_of(op, (int)r).q_before + shift};
        op->own = op->flow == FLOW_PASS_Q ? rank : 0;
        op->n_sets = op->flow == FLOW_PASS_Q ? ranks : 1;
    }
}

/* Keys that travel are packed, for the rank that receives them cannot know how often they are read. */
static bool choose_in_place(const operator_call *op)
{
    size_t rows = 0;
    for (size_t i = 0; i < op->n_sets; i++)
        rows += op->sets[i].rows;
    return op->flow != FLOW_PASS_KV && rows * op->shape.group <= IN_PLACE_QUERIES;
}

/* Zero-filled, freed with the call; never NULL on success. */
static void *get(operator_call *op, size_t bytes, const char *what, qwen3_error *err)
{
    void *data = NULL;
    bytes = round_up(bytes ? bytes : 1, CACHE_LINE);
    if (err->status != QWEN3_OK || memory_alloc(&data, bytes, what, err) != QWEN3_OK)
        return NULL;
    op->buffers[op->n_buffers].data = data;
    op->buffers[op->n_buffers++].bytes = bytes;
    return data;
}

static void get_queries(operator_call *op, qwen3_error *err)
{
    const qwen3_dtype type = attention_gemm(&op->shape)->activation;
    const size_t pair_bytes = attention_q_stride(&op->shape) * dtype_size(type);
    size_t rows = 0, pairs = 0;
    for (size_t i = 0; i < op->n_sets; i++) {
        rows += op->sets[i].rows;
        pairs += set_pairs(op, &op->sets[i]);
    }
    char *q = get(op, pairs * pair_bytes, "attention queries", err);
    float *run = get(op, partial_floats(pairs, op->shape.head_dim) * sizeof(float), "attention partials", err);
    int32_t *positions = get(op, rows * sizeof *positions, "query positions", err);
    if (err->status != QWEN3_OK)
        return;
    /* Sets, and their partials, lie one after the other: PASS_Q sends them as they are. */
    for (size_t i = 0; i < op->n_sets; i++) {
        query_set *set = &op->sets[i];
        size_t n = set_pairs(op, set);
        set->q = q;
        set->run = run;
        set->positions = positions;
        for (size_t r = 0; r < set->rows; r++)
            *positions++ = (int32_t)(set->position0 + (int64_t)r);
        q += n * pair_bytes;
        run += partial_floats(n, op->shape.head_dim);
    }
}

static void get_keys(operator_call *op, qwen3_error *err)
{
    const size_t batch = op->args->batch, ranks = (size_t)comm_size(op->comm);
    size_t own = ceil_div(op->keys, KV_BLOCK), most = own;
    op->blocks = get(op, ranks * batch * sizeof *op->blocks, "block counts", err);
    for (size_t r = 0; op->flow == FLOW_PASS_KV && r < ranks; r++) {
        size_t n = ceil_div(op->ranks[r].kv_len, KV_BLOCK);
        most = n > most ? n : most;
        for (size_t b = 0; op->blocks && b < batch; b++)
            op->blocks[r * batch + b] = n;
    }
    size_t bytes = op->in_place ? 0 : kv_shard_bytes(&op->shape, batch * most);
    op->shards[0] = get(op, bytes, "attention keys and values", err);
    if (op->flow == FLOW_PASS_KV && ranks > 1)
        op->shards[1] = get(op, bytes, "attention keys and values", err);
    op->views = get(op, batch * op->shape.kv_heads * most * sizeof *op->views, "views of keys", err);
    op->jobs = get(op, op->n_sets * batch * sizeof *op->jobs, "attention jobs", err);
    if (err->status != QWEN3_OK)
        return;
    /* For the workspace jobs count by their rows and the most blocks they will see. */
    for (size_t i = 0; i < op->n_sets * batch; i++)
        op->jobs[i] = (attention_job){.rows = op->sets[i / batch].rows, .n_blocks = most};
    attention_workspace *w = &op->workspace;
    w->threads = op->threads;
    w->bytes = attention_workspace_bytes(&op->shape, op->algorithm, op->jobs, op->n_sets * batch, op->threads,
                                         &w->score_bytes);
    w->data = get(op, w->bytes, "attention scores", err);
    if (!op->in_place)
        kv_shard_init(op->shards[0], batch * own);
}

/* Buffers for what is exchanged besides keys and queries. */
static void get_exchange(operator_call *op, qwen3_error *err)
{
    const size_t ranks = (size_t)comm_size(op->comm), dim = op->shape.head_dim;
    const size_t run = partial_floats(set_pairs(op, &op->sets[op->own]), dim);
    op->send_bytes = get(op, ranks * sizeof(size_t), "sizes", err);
    op->receive_bytes = get(op, ranks * sizeof(size_t), "sizes", err);
    op->pairs = get(op, ranks * sizeof(size_t), "sizes", err);
    if (op->flow == FLOW_PASS_Q || op->flow == FLOW_SPLIT_KEYS)
        op->received = get(op, ranks * run * sizeof(float), "received partials", err);
    if (!op->gather)
        return;
    size_t own = 0, all = 0;
    output_part parts[2];
    for (int r = 0; r < (int)ranks; r++)
        for (size_t i = operator_parts(op, r, parts); i-- > 0;) {
            all += part_elements(op, &parts[i]);
            own += r == comm_rank(op->comm) ? part_elements(op, &parts[i]) : 0;
        }
    op->send = get(op, own * sizeof(float), "output on its way", err);
    op->received = get(op, all * sizeof(float), "output on its way", err);
}

qwen3_status operator_plan(operator_call *op, qwen3_error *err)
{
    output_part parts[2];
    const size_t most_sets = (size_t)comm_size(op->comm) + 1;
    plan_heads(op);
    op->sets = get(op, most_sets * sizeof *op->sets, "query sets", err);
    if (!op->sets)
        return err->status;
    plan_flow(op, op->sets, parts);
    op->in_place = choose_in_place(op);
    if (op->in_place && !op->args->kv_block_size)
        op->shape.kv_block_size = IN_PLACE_KV_BLOCK;
    get_queries(op, err);
    get_keys(op, err);
    get_exchange(op, err);
    return err->status;
}

void operator_free(operator_call *op)
{
    while (op->n_buffers > 0) {
        op->n_buffers--;
        memory_free(op->buffers[op->n_buffers].data, op->buffers[op->n_buffers].bytes);
    }
}
