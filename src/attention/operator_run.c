/* operator_run.c - an operator call on all threads of a rank: pack queries and, where these are many, keys, let them
 * meet, return the output to the caller's layout. */
#include "attention/operator.h"
#include "base/memory.h"

/* Pairs before batch b of queries[i] in q and in the result of own jobs. */
static size_t first_pair(const operator_call *op, size_t i, size_t b)
{
    size_t rows = b * op->queries[i].rows;
    for (size_t before = 0; before < i; before++)
        rows += op->args->batch * op->queries[before].rows;
    return rows * problem_heads(&op->problem);
}

/* Scales and packs queries[i]. Items are (batch, local query head). */
static void pack_queries(const team *t, const operator_call *op, size_t i)
{
    const qwen3_attention_args *a = op->args;
    const attention_shape *s = &op->shape;
    const output_part *part = &op->queries[i];
    const qwen3_dtype type = attention_gemm(s)->activation;
    const size_t heads = problem_heads(&op->problem), stride = attention_q_stride(s), size = dtype_size(type);
    size_t begin, end;
    team_part(t, a->batch * heads, 1, &begin, &end);
    for (size_t u = begin; u < end; u++) {
        const size_t b = u / heads, h = u % heads;
        const float *from = a->q + ((b * a->heads + op->head0 + h) * a->q_len + part->row0) * a->head_dim;
        const size_t to =
            first_pair(op, i, b) + h / s->heads_per_kv * part->rows * s->heads_per_kv + h % s->heads_per_kv;
        for (size_t r = 0; r < part->rows; r++) {
            char *y = (char *)op->exchange.q + (to + r * s->heads_per_kv) * stride * size;
            s->kernels->scale(a->head_dim, op->scale, from + r * a->head_dim, y, type);
            memset(y + a->head_dim * size, 0, (stride - a->head_dim) * size);
        }
    }
}

/* Slots of keys [key0, key0 + keys) of all batches, batch after batch. */
static void fill_slots(operator_call *op)
{
    const size_t blocks = kv_blocks_for(op->keys);
    for (size_t b = 0; b < op->args->batch; b++)
        for (size_t j = 0; j < op->keys; j++)
            kv_slots_add(kv_shard_slots(op->exchange.shard, b * blocks + j / KV_BLOCK),
                         (int32_t)(op->key_position0 + j));
}

static void pack_keys(const team *t, const operator_call *op)
{
    const qwen3_attention_args *a = op->args;
    const attention_shape *s = &op->shape;
    const size_t blocks = kv_blocks_for(op->keys);
    size_t begin, end;
    team_part(t, a->batch * blocks, 1, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        size_t first = i % blocks * KV_BLOCK, n = op->keys - first < KV_BLOCK ? op->keys - first : KV_BLOCK;
        for (size_t h = 0; h < s->kv_heads; h++) {
            size_t from = ((i / blocks * a->kv_heads + op->kv_head0 + h) * a->kv_len + op->key0 + first) * a->head_dim;
            kv_block_store(s, kv_shard_place(s, op->exchange.shard, i, h), 0, n, a->k + from, a->v + from);
        }
    }
}

/* Views of the packed keys of a batch, or of the caller's arrays: [kv_heads][blocks]. */
static void view_keys(const operator_call *op, size_t batch, kv_block *views)
{
    const qwen3_attention_args *a = op->args;
    const size_t blocks = kv_blocks_for(op->keys);
    if (!op->in_place) {
        kv_shard_view(&op->shape, op->exchange.shard, batch * blocks, blocks, views, blocks);
        return;
    }
    for (size_t h = 0; h < op->shape.kv_heads; h++) {
        size_t from = ((batch * a->kv_heads + op->kv_head0 + h) * a->kv_len + op->key0) * a->head_dim;
        for (size_t first = 0; first < op->keys; first += KV_BLOCK, from += KV_BLOCK * a->head_dim) {
            const size_t n = op->keys - first < KV_BLOCK ? op->keys - first : KV_BLOCK;
            *views++ = (kv_block){.k = a->k + from,
                                  .v = a->v + from,
                                  .row_stride = a->head_dim,
                                  .count = (int32_t)n,
                                  .min_position = (int32_t)(op->key_position0 + first),
                                  .max_position = (int32_t)(op->key_position0 + first + n - 1)};
        }
    }
}

/* All rows of a batch see the same keys. */
static void view_jobs(operator_call *op)
{
    const size_t batch = op->args->batch, views = op->shape.kv_heads * kv_blocks_for(op->keys);
    for (size_t j = 0; j < op->problem.n_jobs; j++)
        view_keys(op, j % batch, op->exchange.views + j * views);
}

/* Where the result of a row and head of `part`, batch b, is. Replicated jobs give [row, own head]. */
static size_t result_pair(const operator_call *op, size_t i, size_t b, size_t row, size_t head)
{
    const output_part *part = &op->queries[i];
    const size_t per_kv = op->shape.heads_per_kv;
    if (op->problem.replicated)
        return (b * part->rows + row) * part->heads + head;
    return first_pair(op, i, b) + (head / per_kv * part->rows + row) * per_kv + head % per_kv;
}

/* The result of queries[i], divided by l, to rows of head_dim at dst + batch, head and row times their strides. */
static void write_part(const team *t, const operator_call *op, size_t i, float *dst, size_t dst_heads, size_t dst_rows)
{
    const output_part *part = &op->queries[i];
    const size_t dim = op->shape.head_dim;
    size_t begin, end;
    team_part(t, op->args->batch * part->heads * part->rows, 1, &begin, &end);
    for (size_t u = begin; u < end; u++) {
        const size_t row = u % part->rows, head = u / part->rows % part->heads, b = u / part->rows / part->heads;
        partial_output(op->shape.kernels, dim, op->exchange.result, result_pair(op, i, b, row, head),
                       dst + ((b * dst_heads + head) * dst_rows + row) * dim, QWEN3_DTYPE_F32);
    }
}

/* The parts of all ranks to all ranks, and from [batch, heads, rows] of a part to their place in the whole. */
static void gather_output(team *t, operator_call *op)
{
    const qwen3_attention_args *a = op->args;
    output_part parts[OPERATOR_PARTS];
    if (t->tid == 0) {
        for (int r = 0; r < comm_size(op->comm); r++) {
            op->bytes[r] = 0;
            for (size_t i = operator_parts(op, r, parts); i-- > 0;)
                op->bytes[r] += part_elements(op, &parts[i]) * sizeof(float);
        }
        comm_allgather(op->comm, op->send, op->received, op->bytes, QWEN3_COMM_PARTIAL);
    }
    team_barrier(t);
    const float *from = op->received;
    for (int r = 0; r < comm_size(op->comm); r++) {
        size_t n = operator_parts(op, r, parts);
        for (size_t i = 0; i < n; from += part_elements(op, &parts[i++])) {
            size_t begin, end, row = parts[i].rows * a->head_dim;
            team_part(t, a->batch * parts[i].heads, 1, &begin, &end);
            for (size_t j = begin; j < end && row > 0; j++) { /* without rows there are no arrays */
                size_t head = j / parts[i].heads * a->heads + parts[i].head0 + j % parts[i].heads;
                memcpy(a->out + (head * a->q_len + parts[i].row0) * a->head_dim, from + j * row, row * sizeof *from);
            }
        }
    }
}

static void return_output(team *t, operator_call *op)
{
    const qwen3_attention_args *a = op->args;
    if (!op->gather) {
        write_part(t, op, 0, a->out, a->heads, a->q_len);
        return;
    }
    float *dst = op->send;
    for (size_t i = 0; i < op->n_queries; i++) {
        write_part(t, op, i, dst, op->queries[i].heads, op->queries[i].rows);
        dst += part_elements(op, &op->queries[i]);
    }
    team_barrier(t);
    gather_output(t, op);
}

static void run_body(team *t, void *arg)
{
    operator_call *op = arg;
    if (t->tid == 0)
        exchange_plan(t, &op->exchange);
    if (!op->in_place)
        pack_keys(t, op);
    team_barrier(t);
    exchange_start(t, &op->exchange);
    for (size_t i = 0; i < op->n_queries; i++)
        pack_queries(t, op, i);
    exchange_clear(t, &op->exchange);
    team_barrier(t);
    exchange_run(t, &op->exchange);
    return_output(t, op);
}

void operator_run(operator_call *op)
{
    if (!op->in_place)
        fill_slots(op);
    view_jobs(op);
    team_run(op->threads, run_body, op);
}
