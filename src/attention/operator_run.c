/* operator_run.c - an operator call on all threads of a rank: pack queries and, where these are many, keys, bring them
 * together, return the output to the caller's layout. */
#include "attention/operator.h"
#include "attention/pass_kv.h"
#include "attention/pass_q.h"
#include "base/memory.h"

/* Scales and packs this rank's queries of a set. Items are (batch, local query head). */
static void pack_queries(const team *t, const operator_call *op, const query_set *set)
{
    const qwen3_attention_args *a = op->args;
    const attention_shape *s = &op->shape;
    const qwen3_dtype type = attention_gemm(s)->activation;
    const size_t heads = s->kv_heads * s->group, stride = attention_q_stride(s) * dtype_size(type);
    size_t begin, end;
    team_part(t, a->batch * heads, 1, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        size_t b = i / heads, h = i % heads;
        const float *from = a->q + ((b * a->heads + op->head0 + h) * a->q_len + set->row0) * a->head_dim;
        size_t to = (b * s->kv_heads + h / s->group) * set->rows * s->group + h % s->group;
        for (size_t r = 0; r < set->rows; r++)
            s->kernels->scale(a->head_dim, op->scale, from + r * a->head_dim,
                              (char *)set->q + (to + r * s->group) * stride, type);
    }
}

/* Keys [key0, key0 + keys) of all batches into the shard, batch after batch. */
static void fill_slots(operator_call *op)
{
    const size_t blocks = ceil_div(op->keys, KV_BLOCK);
    for (size_t b = 0; b < op->args->batch; b++)
        for (size_t j = 0; j < op->keys; j++)
            kv_slots_add(kv_shard_slots(op->shards[0], b * blocks + j / KV_BLOCK), (int32_t)(op->key_position0 + j));
}

static void pack_keys(const team *t, const operator_call *op)
{
    const qwen3_attention_args *a = op->args;
    const attention_shape *s = &op->shape;
    const size_t blocks = ceil_div(op->keys, KV_BLOCK);
    size_t begin, end;
    team_part(t, a->batch * blocks, 1, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        size_t first = i % blocks * KV_BLOCK, n = op->keys - first < KV_BLOCK ? op->keys - first : KV_BLOCK;
        void *page = kv_shard_page(s, op->shards[0], i);
        for (size_t h = 0; h < s->kv_heads; h++) {
            size_t from = ((i / blocks * a->kv_heads + op->kv_head0 + h) * a->kv_len + op->key0 + first) * a->head_dim;
            kv_block_store(s, kv_page_k(s, page, h), kv_page_v(s, page, h), 0, n, a->k + from, a->v + from);
        }
    }
}

/* Views of the packed keys of a batch, or of the caller's arrays: [kv_heads][blocks]. */
static void view_keys(const operator_call *op, size_t batch, kv_block *views)
{
    const qwen3_attention_args *a = op->args;
    const size_t blocks = ceil_div(op->keys, KV_BLOCK);
    if (!op->in_place) {
        kv_shard_view(&op->shape, op->shards[0], batch * blocks, blocks, views, blocks);
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

/* One job per set and batch; the jobs of all sets see the same keys. */
static void make_jobs(operator_call *op)
{
    const qwen3_attention_args *a = op->args;
    const attention_shape *s = &op->shape;
    const qwen3_dtype type = attention_gemm(s)->activation;
    const size_t blocks = ceil_div(op->keys, KV_BLOCK), stride = attention_q_stride(s) * dtype_size(type);
    for (size_t b = 0; b < a->batch; b++)
        view_keys(op, b, op->views + b * s->kv_heads * blocks);
    for (size_t i = 0; i < op->n_sets * a->batch; i++) {
        const query_set *set = &op->sets[i / a->batch];
        const size_t b = i % a->batch, n = set_pairs(op, set), first = n / a->batch * b;
        partial_run run = partial_at(set->run, n, s->head_dim);
        partial_clear(n / a->batch, s->head_dim, run.o + first * s->head_dim, run.m + first, run.l + first);
        op->jobs[i] = (attention_job){.rows = set->rows,
                                      .q_positions = set->positions,
                                      .q = (char *)set->q + first * stride,
                                      .o = run.o + first * s->head_dim,
                                      .m = run.m + first,
                                      .l = run.l + first,
                                      .n_blocks = blocks,
                                      .blocks = op->views + b * s->kv_heads * blocks,
                                      .mask_stride_head = a->mask_stride_head,
                                      .mask_stride_row = a->mask_stride_query};
        if (a->mask)
            op->jobs[i].mask =
                a->mask + b * a->mask_stride_batch + op->head0 * a->mask_stride_head + set->row0 * a->mask_stride_query;
    }
}

/* Every rank's queries to every rank. */
static void gather_queries(operator_call *op)
{
    const attention_shape *s = &op->shape;
    const size_t stride = attention_q_stride(s) * dtype_size(attention_gemm(s)->activation);
    for (size_t r = 0; r < op->n_sets; r++) {
        op->pairs[r] = set_pairs(op, &op->sets[r]);
        op->send_bytes[r] = op->pairs[r] * stride;
    }
    comm_allgather(op->comm, op->sets[op->own].q, op->sets[0].q, op->send_bytes, QWEN3_COMM_QUERY);
}

/* Partials of the same queries over each rank's keys: all ranks merge all of them in rank order. */
static void merge_all(team *t, operator_call *op)
{
    const size_t n = set_pairs(op, &op->sets[0]), dim = op->shape.head_dim, run = partial_floats(n, dim);
    size_t begin, end;
    if (t->tid == 0) {
        for (int r = 0; r < comm_size(op->comm); r++)
            op->send_bytes[r] = run * sizeof(float);
        comm_allgather(op->comm, op->sets[0].run, op->received, op->send_bytes, QWEN3_COMM_PARTIAL);
    }
    team_barrier(t);
    team_part(t, n, 1, &begin, &end);
    partial_run into = partial_at(op->received, n, dim);
    for (int r = 1; r < comm_size(op->comm); r++) {
        partial_run from = partial_at(op->received + (size_t)r * run, n, dim);
        partial_merge(op->shape.kernels, end - begin, dim, into.o + begin * dim, into.m + begin, into.l + begin,
                      from.o + begin * dim, from.m + begin, from.l + begin);
    }
    team_barrier(t);
}

/* Divides by l and writes the rows of a set to dst [batch, dst_heads, dst_rows, head_dim], from head head0 and row
 * row0 on. */
static void finish_set(const team *t, const operator_call *op, const query_set *set, float *run_data, float *dst,
                       size_t dst_heads, size_t dst_rows, size_t head0, size_t row0)
{
    const attention_shape *s = &op->shape;
    const size_t n = set_pairs(op, set), dim = s->head_dim;
    partial_run run = partial_at(run_data, n, dim);
    size_t begin, end;
    team_part(t, n, 1, &begin, &end);
    partial_finish(s->kernels, end - begin, dim, run.o + begin * dim, run.l + begin);
    for (size_t i = begin; i < end; i++) {
        size_t g = i % s->group, r = i / s->group % set->rows, kv = i / s->group / set->rows;
        size_t head = kv % s->kv_heads * s->group + g, b = kv / s->kv_heads;
        memcpy(dst + ((b * dst_heads + head0 + head) * dst_rows + row0 + r) * dim, run.o + i * dim, dim * sizeof *dst);
    }
}

/* The parts of all ranks to all ranks, and from [batch, heads, rows] of a part to their place in the whole. */
static void gather_output(team *t, operator_call *op)
{
    const qwen3_attention_args *a = op->args;
    output_part parts[2];
    if (t->tid == 0) {
        for (int r = 0; r < comm_size(op->comm); r++) {
            op->send_bytes[r] = 0;
            for (size_t i = operator_parts(op, r, parts); i-- > 0;)
                op->send_bytes[r] += part_elements(op, &parts[i]) * sizeof(float);
        }
        comm_allgather(op->comm, op->send, op->received, op->send_bytes, QWEN3_COMM_PARTIAL);
    }
    team_barrier(t);
    const float *from = op->received;
    for (int r = 0; r < comm_size(op->comm); r++) {
        size_t n = operator_parts(op, r, parts);
        for (size_t i = 0; i < n; from += part_elements(op, &parts[i++])) {
            size_t begin, end, row = parts[i].rows * a->head_dim;
            team_part(t, a->batch * parts[i].heads, 1, &begin, &end);
            for (size_t j = begin; j < end; j++) {
                size_t head = j / parts[i].heads * a->heads + parts[i].head0 + j % parts[i].heads;
                memcpy(a->out + (head * a->q_len + parts[i].row0) * a->head_dim, from + j * row, row * sizeof *from);
            }
        }
    }
}

static void return_output(team *t, operator_call *op)
{
    const qwen3_attention_args *a = op->args;
    const query_set *own = &op->sets[op->own];
    if (!op->gather) {
        finish_set(t, op, own, op->received ? op->received : own->run, a->out, a->heads, a->q_len, op->head0, 0);
        return;
    }
    float *dst = op->send;
    for (size_t i = 0; i < op->n_sets; i++) {
        const query_set *set = &op->sets[i];
        finish_set(t, op, set, set->run, dst, op->shape.kv_heads * op->shape.group, set->rows, 0, 0);
        dst += set_pairs(op, set) * a->head_dim;
    }
    team_barrier(t);
    gather_output(t, op);
}

static void run_body(team *t, void *arg)
{
    operator_call *op = arg;
    const size_t n_jobs = op->n_sets * op->args->batch;
    const size_t own_sets = op->flow == FLOW_PASS_Q ? 1 : op->n_sets;
    for (size_t i = 0; i < own_sets; i++)
        pack_queries(t, op, &op->sets[op->own + i]);
    if (!op->in_place)
        pack_keys(t, op);
    team_barrier(t);
    if (t->tid == 0) {
        if (op->flow == FLOW_PASS_Q)
            gather_queries(op);
        if (op->flow != FLOW_PASS_KV)
            attention_plan(t, &op->shape, op->algorithm, op->jobs, n_jobs, &op->workspace);
    }
    team_barrier(t);
    if (op->flow == FLOW_PASS_KV) {
        pass_kv p = {
            op->comm, &op->shape, op->algorithm, &op->workspace, op->blocks, n_jobs, {op->shards[0], op->shards[1]},
            op->views};
        pass_kv_run(t, &p, op->jobs);
    } else {
        attention_run(t, &op->workspace);
    }
    if (op->flow == FLOW_SPLIT_KEYS)
        merge_all(t, op);
    if (op->flow == FLOW_PASS_Q)
        pass_q_return(t, op->comm, op->shape.kernels, op->shape.head_dim, op->sets[0].run, op->pairs, op->received,
                      op->send_bytes, op->receive_bytes);
    return_output(t, op);
}

void operator_run(operator_call *op)
{
    if (!op->in_place)
        fill_slots(op);
    make_jobs(op);
    team_run(op->threads, run_body, op);
}
