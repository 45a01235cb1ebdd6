/* bench_attention.c - attention against its limits: few queries against reading K and V, many against multiply-adds.
 * Shapes are those of the 0.6B model (16 heads, 8 KV heads, head_dim 128), but for the operators that of their callers.
 */
#include <stdio.h>
#include <stdlib.h>

#include "attention/algorithms.h"
#include "attention/kv_shard.h"
#include "base/memory.h"
#include "bench.h"

#define HEAD_DIM ((size_t)128)
#define KV_HEADS ((size_t)8)
#define GROUP ((size_t)2)
#define OPERATOR_KEYS ((size_t)65536)
#define DECODE_KEYS ((size_t)2048)
#define DECODE_LAYERS 28
#define KV_BYTES (2 * KV_HEADS * OPERATOR_KEYS * HEAD_DIM * sizeof(float))

typedef struct bench {
    const kernels *k;
    int threads;
    const attention_algorithm *algorithm;
    unsigned char *kv; /* [KV_BYTES] keys and values of all cases */
    size_t read_bytes; /* read by the case at hand */
    size_t repeats;    /* of the multiply-adds that are the limit of the case at hand */
    attention_shape shape;
    attention_job *jobs; /* [DECODE_LAYERS] */
    size_t n_layers;
    attention_workspace workspace;
    qwen3_attention_args args;
} bench;

static void run_read(team *t, void *arg)
{
    const bench *b = arg;
    read_part(t, b->k, b->kv, b->read_bytes);
}

static double time_reading(void *arg)
{
    const bench *b = arg;
    return seconds_of(b->threads, run_read, arg);
}

static void multiply_add(team *t, void *arg)
{
    (void)t;
    const bench *b = arg;
    b->k->multiply_add[b->shape.kv_type](b->repeats);
}

static double time_multiply_adds(void *arg)
{
    const bench *b = arg;
    return seconds_of(b->threads, multiply_add, arg);
}

static const char *algorithm_label(const bench *b)
{
    return b->algorithm->id == QWEN3_ATTENTION_STANDARD ? "standard" : "online  ";
}

/* ---- Operators: row-major f32 of the caller ------------------------------------------------------ */

static double time_operator(void *arg)
{
    const bench *b = arg;
    const double start = omp_get_wtime();
    if (b->algorithm->id == QWEN3_ATTENTION_STANDARD)
        qwen3_attention_headwise_standard(&b->args, qwen3_comm_self(), NULL);
    else
        qwen3_attention_headwise_online_softmax(&b->args, qwen3_comm_self(), NULL);
    return omp_get_wtime() - start;
}

static void bench_operator(bench *b, size_t kv_heads)
{
    float q[KV_HEADS * HEAD_DIM], out[KV_HEADS * HEAD_DIM];
    for (size_t i = 0; i < KV_HEADS * HEAD_DIM; i++)
        q[i] = (float)(i % 13) / 8.0f - 0.75f;
    b->read_bytes = 2 * kv_heads * OPERATOR_KEYS * HEAD_DIM * sizeof(float);
    b->args = qwen3_attention_args_default();
    b->args.heads = b->args.kv_heads = kv_heads;
    b->args.q_len = 1;
    b->args.kv_len = OPERATOR_KEYS;
    b->args.head_dim = HEAD_DIM;
    b->args.q = q;
    b->args.k = (const float *)b->kv;
    b->args.v = (const float *)(b->kv + b->read_bytes / 2);
    b->args.out = out;
    b->args.threads = b->threads;
    b->args.isa = b->k->isa;
    double limit, time;
    race(time_reading, time_operator, b, &limit, &time);
    printf("  attention operator  %s f32  %d thr  1 query   %5zu keys  %zu KV heads  %9.3f ms %7.1f GB/s     %5.1f %% "
           "of reading\n",
           algorithm_label(b), b->threads, OPERATOR_KEYS, kv_heads, time * 1e3, (double)b->read_bytes / time * 1e-9,
           limit / time * 100);
}

/* ---- Blocks of a KV cache ------------------------------------------------------------------------ */

static void attend_layers(team *t, void *arg)
{
    bench *b = arg;
    for (size_t layer = 0; layer < b->n_layers; layer++) {
        if (t->tid == 0)
            attention_plan(t, &b->shape, b->algorithm, &b->jobs[layer], 1, &b->workspace);
        team_barrier(t);
        attention_run(t, &b->workspace);
    }
}

static double time_layers(void *arg)
{
    bench *b = arg;
    for (size_t layer = 0; layer < b->n_layers; layer++) {
        const attention_job *job = &b->jobs[layer];
        partial_clear(b->shape.kv_heads * job->rows * b->shape.heads_per_kv, b->shape.head_dim,
                      (partial_run){job->o, job->m, job->l});
    }
    return seconds_of(b->threads, attend_layers, b);
}

/* All layers have the same queries; the last `rows` of `keys` positions. Pages lie in the memory of b->kv. */
static bool make_layers(bench *b, size_t layers, size_t rows, size_t keys)
{
    const attention_shape *s = &b->shape;
    const size_t n = s->kv_heads * rows * s->heads_per_kv, blocks = keys / KV_BLOCK, page = kv_page_bytes(s, KV_BLOCK);
    const size_t q_bytes = n * attention_q_stride(s) * dtype_size(attention_gemm(s)->activation);
    kv_slots *slots = calloc(blocks, sizeof *slots);
    int32_t *positions = malloc(rows * sizeof *positions);
    float *o = malloc(n * HEAD_DIM * sizeof *o), *m = malloc(2 * n * sizeof *m);
    unsigned char *q = aligned_alloc(CACHE_LINE, round_up(q_bytes, CACHE_LINE));
    if (!slots || !positions || !o || !m || !q)
        return false; /* the program ends */
    for (size_t i = 0; i < blocks; i++) {
        kv_slots_clear(&slots[i]);
        for (size_t j = 0; j < KV_BLOCK; j++)
            kv_slots_add(&slots[i], (int32_t)(i * KV_BLOCK + j));
    }
    for (size_t i = 0; i < rows; i++)
        positions[i] = (int32_t)(keys - rows + i);
    memcpy(q, b->kv, q_bytes);
    b->n_layers = layers;
    for (size_t layer = 0; layer < layers; layer++) {
        kv_block *views = malloc(s->kv_heads * blocks * sizeof *views);
        if (!views)
            return false;
        for (size_t i = 0; i < blocks; i++)
            kv_page_view(s, &slots[i], b->kv + (layer * blocks + i) * page, views + i, blocks);
        b->jobs[layer] = (attention_job){.rows = rows,
                                         .q_positions = positions,
                                         .q = q,
                                         .o = o,
                                         .m = m,
                                         .l = m + n,
                                         .n_blocks = blocks,
                                         .blocks = views};
    }
    b->read_bytes = layers * blocks * page;
    b->workspace.threads = b->threads;
    b->workspace.bytes = attention_workspace_bytes(s, b->algorithm, b->jobs, 1, b->threads, &b->workspace.score_bytes);
    qwen3_error err;
    return memory_alloc(&b->workspace.data, b->workspace.bytes, "workspace", &err) == QWEN3_OK;
}

static void free_layers(bench *b)
{
    for (size_t layer = 0; layer < b->n_layers; layer++)
        free((void *)b->jobs[layer].blocks);
    free((void *)b->jobs[0].q_positions);
    free((void *)b->jobs[0].q);
    free(b->jobs[0].o);
    free(b->jobs[0].m);
    memory_free(b->workspace.data, b->workspace.bytes);
}

static bool bench_decode(bench *b)
{
    b->shape.kv_heads = KV_HEADS;
    if (!make_layers(b, DECODE_LAYERS, 1, DECODE_KEYS))
        return false;
    double limit, time;
    race(time_reading, time_layers, b, &limit, &time);
    printf(
        "  attention decode    %s %-4s %d thr  1 token   %5zu keys  %d layers    %9.3f ms %7.1f GB/s     %5.1f %% of "
        "reading\n",
        algorithm_label(b), qwen3_dtype_name(b->shape.kv_type), b->threads, DECODE_KEYS, DECODE_LAYERS, time * 1e3,
        (double)b->read_bytes / time * 1e-9, limit / time * 100);
    free_layers(b);
    return true;
}

/* Two KV heads suffice to fill the threads, and the score matrices of STANDARD fit. */
static bool bench_prefill(bench *b, size_t tokens)
{
    b->shape.kv_heads = 2;
    if (!make_layers(b, 1, tokens, tokens))
        return false;
    const double heads = (double)(b->shape.kv_heads * b->shape.heads_per_kv);
    const double operations = 2.0 * heads * (double)HEAD_DIM * (double)tokens * (double)(tokens + 1);
    b->repeats = (size_t)(operations * 1e-6 / b->threads);
    double limit, time;
    race(time_multiply_adds, time_layers, b, &limit, &time);
    const double peak = (double)b->k->multiply_add[b->shape.kv_type](1) * (double)b->repeats * b->threads / limit;
    printf(
        "  attention prefill   %s %-4s %d thr  %5zu tokens                        %9.3f ms %7.1f GFLOP/s  %5.1f %% of "
        "multiply-adds\n",
        algorithm_label(b), qwen3_dtype_name(b->shape.kv_type), b->threads, tokens, time * 1e3,
        operations / time * 1e-9, operations / time / peak * 100);
    free_layers(b);
    return true;
}

/* Small ordinary numbers, as f32 and as BF16, and as blocks finite ones. */
static void fill(unsigned char *kv)
{
    uint32_t state = 1;
    for (size_t i = 0; i < KV_BYTES; i += sizeof(bf16)) {
        state = state * 1664525u + 1013904223u;
        const bf16 x = f32_to_bf16((float)(int32_t)state * 0x1p-32f);
        memcpy(kv + i, &x, sizeof x);
    }
}

static bool bench_cases(bench *b, int threads)
{
    for (int t = 1; t <= threads; t += threads > 1 ? threads - 1 : 1) {
        b->threads = t;
        for (int id = QWEN3_ATTENTION_STANDARD; id <= QWEN3_ATTENTION_ONLINE_SOFTMAX; id++) {
            b->algorithm = attention_algorithm_get((qwen3_attention_algorithm)id);
            bench_operator(b, 1);
            bench_operator(b, KV_HEADS);
            b->shape.kv_type = QWEN3_DTYPE_Q8;
            if (!bench_decode(b))
                return false;
            b->shape.kv_type = QWEN3_DTYPE_BF16;
            if (!bench_decode(b) || !bench_prefill(b, 2048) || !bench_prefill(b, 8192))
                return false;
        }
    }
    return true;
}

bool bench_attention(const kernels *k, int threads)
{
    attention_job jobs[DECODE_LAYERS];
    void *kv = NULL;
    qwen3_error err = {0};
    bool ok = memory_alloc(&kv, KV_BYTES, "keys and values", &err) == QWEN3_OK;
    if (ok) {
        fill(kv);
        bench b = {.k = k, .kv = kv, .jobs = jobs};
        b.shape = (attention_shape){.kernels = k,
                                    .head_dim = HEAD_DIM,
                                    .heads_per_kv = GROUP,
                                    .causal = true,
                                    .q_block_size = ATTENTION_Q_BLOCK,
                                    .kv_block_size = ATTENTION_KV_BLOCK};
        ok = bench_cases(&b, threads);
    }
    if (!ok)
        fprintf(stderr, "bench_kernels: attention: no memory %s\n", err.message);
    memory_free(kv, KV_BYTES);
    return ok;
}
