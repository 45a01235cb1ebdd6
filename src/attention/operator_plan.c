/* operator_plan.c - which heads, rows and keys of an operator call a rank computes, and the memory for it. */
#include "attention/operator.h"
#include "base/memory.h"
#include "kernels/row_limits.h"

/* Keys per tile of keys in place where the caller names no number: memory gives its full rate only to long pieces in
 * order, and few queries have small tiles of scores. */
#define IN_PLACE_KV_BLOCK 2048

/* ---- Who computes what ------------------------------------------------------------------------- */

static bool is_sequence(const operator_call *op)
{
    return op->ranks[0].strategy == QWEN3_STRATEGY_SEQUENCE;
}

/* All ranks have the whole arrays and want the whole output. */
static bool is_replicated(const operator_call *op)
{
    return op->ranks[0].layout == QWEN3_INPUT_REPLICATED && comm_size(op->comm) > 1;
}

/* So few rows that the ranks share the keys instead. */
static bool splits_keys(const operator_call *op)
{
    return is_sequence(op) && is_replicated(op) && op->args->q_len < 2 * (size_t)comm_size(op->comm);
}

/* Each rank has its own part of the sequence. */
static bool is_sharded_sequence(const operator_call *op)
{
    return is_sequence(op) && !is_replicated(op) && comm_size(op->comm) > 1;
}

/* Whole KV heads with their query heads while there are enough of them; otherwise several ranks share one KV head and
 * split its query heads. Some may get nothing. */
static output_part head_part(const operator_call *op, int rank)
{
    const size_t kv_heads = op->args->kv_heads, ranks = (size_t)comm_size(op->comm), r = (size_t)rank;
    output_part part = {.rows = op->args->q_len};
    if (kv_heads == 0)
        return part;
    const size_t per_kv = op->args->heads / kv_heads;
    if (ranks <= kv_heads) {
        part.head0 = kv_heads * r / ranks * per_kv;
        part.heads = kv_heads * (r + 1) / ranks * per_kv - part.head0;
    } else {
        size_t kv = r * kv_heads / ranks;
        size_t first = ceil_div(kv * ranks, kv_heads), sharers = ceil_div((kv + 1) * ranks, kv_heads) - first;
        part.head0 = kv * per_kv + per_kv * (r - first) / sharers;
        part.heads = kv * per_kv + per_kv * (r - first + 1) / sharers - part.head0;
    }
    return part;
}

size_t operator_parts(const operator_call *op, int rank, output_part parts[OPERATOR_PARTS])
{
    const size_t ranks = (size_t)comm_size(op->comm), r = (size_t)rank, rows = op->args->q_len, heads = op->args->heads;
    if (!is_replicated(op)) {
        parts[0] = (output_part){0, heads, 0, rows};
        return 1;
    }
    if (!is_sequence(op)) {
        parts[0] = head_part(op, rank);
        return 1;
    }
    if (splits_keys(op)) {
        const size_t head0 = heads * r / ranks;
        parts[0] = (output_part){head0, heads * (r + 1) / ranks - head0, 0, rows};
        return 1;
    }
    /* Chunks r and 2R-1-r of 2R: with a causal mask all ranks see equally many keys. */
    const size_t chunks = 2 * ranks, chunk[OPERATOR_PARTS] = {r, chunks - 1 - r};
    for (size_t i = 0; i < OPERATOR_PARTS; i++) {
        const size_t row0 = rows * chunk[i] / chunks;
        parts[i] = (output_part){0, heads, row0, rows * (chunk[i] + 1) / chunks - row0};
    }
    return OPERATOR_PARTS;
}

size_t part_elements(const operator_call *op, const output_part *part)
{
    return op->args->batch * part->heads * part->rows * op->args->head_dim;
}

/* The heads that this rank attends: its own where ranks share the heads, otherwise all. */
static void plan_heads(operator_call *op)
{
    const qwen3_attention_args *a = op->args;
    op->shape.kv_heads = a->kv_heads;
    op->shape.heads_per_kv = a->kv_heads ? a->heads / a->kv_heads : 0;
    if (is_sequence(op) || !is_replicated(op))
        return;
    const output_part part = head_part(op, comm_rank(op->comm));
    const size_t per_kv = op->shape.heads_per_kv;
    op->head0 = part.head0;
    op->kv_head0 = per_kv ? part.head0 / per_kv : 0;
    op->shape.heads_per_kv = part.heads < per_kv ? part.heads : per_kv;
    op->shape.kv_heads = op->shape.heads_per_kv ? part.heads / op->shape.heads_per_kv : 0;
}

/* How many keys rank r takes where ranks share them, in whole blocks; from *first on. */
static size_t split_keys(const operator_call *op, int r, size_t *first)
{
    const size_t all = op->args->kv_len, blocks = kv_blocks_for(all), ranks = (size_t)comm_size(op->comm);
    const size_t end = blocks * ((size_t)r + 1) / ranks * KV_BLOCK;
    *first = blocks * (size_t)r / ranks * KV_BLOCK;
    return (end < all ? end : all) - *first;
}

/* The rows that this rank brings as queries and the keys that it attends them to or sends. */
static void plan_work(operator_call *op)
{
    const qwen3_attention_args *a = op->args;
    const int rank = comm_rank(op->comm);
    op->gather = is_replicated(op);
    op->n_queries = operator_parts(op, rank, op->queries);
    op->keys = a->kv_len;
    if (is_sharded_sequence(op))
        for (int r = 0; r < rank; r++)
            op->key_position0 += op->ranks[r].kv_len;
    if (splits_keys(op)) {
        op->keys = split_keys(op, rank, &op->key0);
        op->key_position0 = op->key0;
    }
}

/* ---- The problem ------------------------------------------------------------------------------- */

/* Rank r's part of all queries and keys: where it begins, and how long all are. */
typedef struct sequence_offsets {
    size_t q_before, q_all, kv_all;
} sequence_offsets;

static sequence_offsets offsets_of(const operator_call *op, int rank)
{
    sequence_offsets at = {0};
    for (int r = 0; r < comm_size(op->comm); r++) {
        at.q_before += r < rank ? op->ranks[r].q_len : 0;
        at.q_all += op->ranks[r].q_len;
        at.kv_all += op->ranks[r].kv_len;
    }
    return at;
}

static int32_t *list_positions(int32_t *at, size_t batch, size_t rows, int64_t first)
{
    for (size_t b = 0; b < batch; b++)
        for (size_t r = 0; r < rows; r++)
            *at++ = (int32_t)(first + (int64_t)r);
    return at;
}

/* Own rows and keys; of all ranks, where they meet. The last query is at the position of the last key. */
static void describe_jobs(operator_call *op)
{
    const qwen3_attention_args *a = op->args;
    const size_t batch = a->batch, n_jobs = op->n_queries * batch;
    const int64_t first = (int64_t)a->kv_len - (int64_t)a->q_len;
    int32_t *positions = op->positions;
    if (!is_sharded_sequence(op)) {
        for (size_t i = 0; i < op->n_queries; i++) {
            const output_part *part = &op->queries[i];
            positions = list_positions(positions, batch, part->rows, first + (int64_t)part->row0);
            for (size_t b = 0; b < batch; b++)
                op->rows[i * batch + b] = part->rows;
        }
        for (int r = 0; r < comm_size(op->problem.comm); r++) {
            size_t key0;
            const size_t keys = splits_keys(op) ? split_keys(op, r, &key0) : op->keys;
            for (size_t j = 0; j < n_jobs; j++)
                op->problem_keys[(size_t)r * n_jobs + j] = keys;
        }
        return;
    }
    for (int r = 0; r < comm_size(op->comm); r++) {
        const sequence_offsets at = offsets_of(op, r);
        const int64_t shift = (int64_t)at.kv_all - (int64_t)at.q_all;
        positions = list_positions(positions, batch, op->ranks[r].q_len, (int64_t)at.q_before + shift);
        for (size_t b = 0; b < batch; b++) {
            op->rows[(size_t)r * batch + b] = op->ranks[r].q_len;
            op->problem_keys[(size_t)r * batch + b] = op->ranks[r].kv_len;
        }
    }
}

static void describe_masks(operator_call *op)
{
    const qwen3_attention_args *a = op->args;
    for (size_t i = 0; a->mask && i < op->n_queries; i++)
        for (size_t b = 0; b < a->batch; b++)
            op->masks[i * a->batch + b] = a->mask + b * a->mask_stride_batch + op->head0 * a->mask_stride_head +
                                          op->queries[i].row0 * a->mask_stride_query;
    op->exchange.masks = a->mask ? op->masks : NULL;
    op->exchange.mask_stride_head = a->mask_stride_head;
    op->exchange.mask_stride_row = a->mask_stride_query;
}

static qwen3_status describe_problem(operator_call *op, qwen3_error *err)
{
    const bool meet = splits_keys(op) || is_sharded_sequence(op);
    comm *c = meet ? op->comm : qwen3_comm_self();
    const size_t ranks = (size_t)comm_size(c), n_jobs = op->n_queries * op->args->batch;
    size_t rows = 0;
    for (size_t i = 0; i < op->n_queries; i++)
        rows += op->queries[i].rows;
    if (is_sharded_sequence(op))
        rows = offsets_of(op, 0).q_all;
    memory_plan *m = &op->plan;
    memory_plan_add(m, &op->rows, ranks * n_jobs * sizeof *op->rows, 0, 0);
    memory_plan_add(m, &op->problem_keys, ranks * n_jobs * sizeof *op->problem_keys, 0, 0);
    memory_plan_add(m, &op->head_first, (ranks + 1) * sizeof *op->head_first, 0, 0);
    memory_plan_add(m, &op->positions, rows * op->args->batch * sizeof *op->positions, 0, 0);
    memory_plan_add(m, &op->masks, n_jobs * sizeof *op->masks, 0, 0);
    memory_plan_add(m, &op->bytes, (size_t)comm_size(op->comm) * sizeof *op->bytes, 0, 0);
    qwen3_status status = memory_region_fit(&op->tables, m, "attention jobs", err);
    if (status)
        return status;
    op->problem = (attention_problem){.comm = c,
                                      .shape = &op->shape,
                                      .algorithm = op->algorithm,
                                      .threads = op->threads,
                                      .n_jobs = n_jobs,
                                      .replicated = splits_keys(op),
                                      .rows = op->rows,
                                      .positions = op->positions,
                                      .keys = op->problem_keys,
                                      .head_first = op->head_first};
    for (int r = 0; r < comm_size(op->comm); r++)
        op->problem.queries_stay |= op->ranks[r].has_mask != 0;
    for (size_t r = 0; r <= ranks; r++)
        op->head_first[r] = op->args->heads * r / ranks;
    describe_jobs(op);
    describe_masks(op);
    return QWEN3_OK;
}

/* ---- Memory ------------------------------------------------------------------------------------ */

/* Keys that travel are packed, for the rank that receives them cannot know how often they are read. */
static bool choose_in_place(const operator_call *op, const movement *m)
{
    const attention_problem *p = &op->problem;
    size_t rows = 0;
    for (int r = 0; r < (p->replicated ? 1 : comm_size(p->comm)); r++)
        rows += problem_rows(p, r);
    return !m->sends_keys && rows * op->shape.heads_per_kv <= ATTENTION_IN_PLACE_QUERIES * op->args->batch;
}

/* Own keys, batch after batch; no slot is filled yet. */
static void init_shard(operator_call *op)
{
    kv_shard_init(op->exchange.shard, op->args->batch * kv_blocks_for(op->keys));
    for (size_t b = 0; b < op->args->batch; b++)
        kv_shard_add_run(&op->shape, op->exchange.shard, op->keys);
}

static qwen3_status get_buffers(operator_call *op, qwen3_error *err)
{
    static const exchange_phases phases = {OPERATOR_PLAN,    OPERATOR_PACK, OPERATOR_ATTEND,
                                           OPERATOR_COLLECT, OPERATOR_PLAN, OPERATOR_COLLECT};
    const movement *move = movement_choose(&op->problem);
    memory_plan *m = &op->plan;
    op->in_place = choose_in_place(op, move);
    if (op->in_place && !op->args->kv_block_size)
        op->shape.kv_block_size = IN_PLACE_KV_BLOCK;
    op->problem.brings_shard = !op->in_place;
    if (!op->in_place) {
        const size_t own = kv_shard_bytes(op->args->batch * kv_run_bytes(&op->shape, op->keys));
        const size_t bytes = move->sends_keys ? exchange_shard_bytes(&op->problem) : own;
        memory_plan_add(m, &op->exchange.shard, bytes, OPERATOR_PLAN, OPERATOR_ATTEND);
    }
    if (op->gather) {
        size_t sent = 0, all = 0;
        for (int r = 0; r < comm_size(op->comm); r++) {
            output_part parts[OPERATOR_PARTS];
            for (size_t i = operator_parts(op, r, parts); i-- > 0;) {
                all += part_elements(op, &parts[i]);
                sent += r == comm_rank(op->comm) ? part_elements(op, &parts[i]) : 0;
            }
        }
        memory_plan_add(m, &op->send, sent * sizeof(float), OPERATOR_COLLECT, OPERATOR_GATHER);
        memory_plan_add(m, &op->received, all * sizeof(float), OPERATOR_GATHER, OPERATOR_GATHER);
    }
    qwen3_status status = exchange_begin(&op->exchange, &op->problem, move, phases, m, err);
    if (!status)
        status = memory_region_fit(&op->buffers, m, "attention", err);
    if (!status && !op->in_place)
        init_shard(op);
    return status;
}

qwen3_status operator_plan(operator_call *op, qwen3_error *err)
{
    plan_heads(op);
    plan_work(op);
    qwen3_status status = describe_problem(op, err);
    return status ? status : get_buffers(op, err);
}

void operator_free(operator_call *op)
{
    exchange_close(&op->exchange);
    memory_plan_free(&op->plan);
    memory_region_free(&op->buffers);
    memory_region_free(&op->tables);
}
