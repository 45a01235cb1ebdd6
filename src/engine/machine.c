/* machine.c - measures what predictions go by: the engine's own products, attention and collectives on small examples.
 *
 * All ranks measure at once, because that is how they compute, and the slowest one counts. Weights lie in a buffer that
 * is larger than caches and is read on and on, so that they always come from memory, as in a model.
 */
#include "engine/machine.h"

#include <stdlib.h>

#include "attention/algorithms.h"
#include "attention/kv_shard.h"
#include "base/clock.h"
#include "base/memory.h"
#include "blocks/linear.h"
#include "comm/topology.h"

#define NODE_BYTES ((size_t)512 << 20)
#define LEAST_BYTES ((size_t)16 << 20) /* of a rank */
#define FILL 0x3c                      /* as F32, BF16 and scales about 0.01 */
#define ROUNDS 3                       /* over all that is measured: what disturbs one of them does not disturb all */
#define PASSES 2
#define PASS_SECONDS 0.005 /* about */
/* The matrix of a product: outputs, inputs. */
#define PRODUCT_N 2048
#define PRODUCT_K 1024
#define MOST_ROWS 512
/* Attention: many queries at the end of some keys, and one query against a stretch of the cache. */
#define HEAD_DIM 128
#define MANY_QUERIES 512
#define MANY_BLOCKS 8
#define MANY_KV_HEADS 4
#define FEW_KV_HEADS 8
#define FEW_BLOCKS 16
#define MOST_KV_HEADS (MANY_KV_HEADS > FEW_KV_HEADS ? MANY_KV_HEADS : FEW_KV_HEADS)
#define MOST_BLOCKS (MANY_BLOCKS > FEW_BLOCKS ? MANY_BLOCKS : FEW_BLOCKS)
#define HEADS_PER_KV 2
/* A row between products: hidden size, heads, intermediate size. */
#define ROWS 256
#define ROW_HIDDEN 1024
#define ROW_HEADS 24
#define ROW_GATED 3072
#define ROW_VALUES (2 * ROW_HIDDEN + ROW_HEADS * HEAD_DIM + ROW_GATED)
#define BARRIERS 500
#define SMALL_FLOATS 1024
#define LARGE_FLOATS ((size_t)1 << 18)
#define SMALL_REPEATS 30
#define LARGE_REPEATS 2
#define ATTEMPTS 3 /* at a mean of so many repeats; the best counts */

const int machine_rows[QWEN3_MACHINE_ROWS] = {1, 4, 16, 32, 64, 128, 512};

typedef struct probe {
    comm *world, *node, *leaders; /* leaders: one rank of each node; the others are in one of their own */
    qwen3_machine *machine;
    const kernels *k;
    unsigned char *buffer; /* of weights, keys and values */
    size_t bytes, at;      /* at: the next one to be read */
    float *x;              /* [MOST_ROWS][PRODUCT_K] of any activation type; queries */
    float *y;              /* [MOST_ROWS][PRODUCT_N]; partials; sums */
    size_t repeats;        /* of the pass at hand */
    /* Products. */
    const gemm_kernel *gemm;
    size_t rows, matrix_bytes;
    /* Attention. */
    attention_shape shape;
    const attention_algorithm *algorithm;
    attention_job job;
    attention_workspace workspace;
    int32_t positions[MANY_QUERIES];
    kv_slots slots[MOST_BLOCKS];
    kv_block views[MOST_KV_HEADS * MOST_BLOCKS];
} probe;

/* Seconds of the slowest rank in the best of some passes, the same on all ranks. The best is what other programs
 * on the machine disturb least, and differs least between runs. Collective. */
static double seconds_of(probe *p, void (*pass)(team *t, void *arg))
{
    double best = 0;
    for (int i = 0; i < PASSES; i++) {
        qwen3_comm_barrier(p->world);
        const double start = seconds_now();
        team_run(p->machine->threads, pass, p);
        double taken = seconds_now() - start;
        qwen3_comm_max(p->world, &taken, 1);
        best = i == 0 || taken < best ? taken : best;
    }
    return best;
}

/* Where the next `bytes` of the buffer are that were not read for the longest time. */
static unsigned char *next_bytes(probe *p, size_t bytes)
{
    if (p->at + bytes > p->bytes)
        p->at = 0;
    unsigned char *next = p->buffer + p->at;
    p->at += round_up(bytes, CACHE_LINE);
    return next;
}

/* ---- Passes ------------------------------------------------------------------------------------ */

/* Each thread touches first what it reads later. */
static void fill_pass(team *t, void *arg)
{
    probe *p = arg;
    size_t begin, end;
    team_part(t, p->bytes, CACHE_LINE, &begin, &end);
    memset(p->buffer + begin, FILL, end - begin);
}

/* Many rows in the items of products that are used where they are computed (linear.h). */
static void tiled_product(team *t, const probe *p, const matrix *w)
{
    const size_t nr = (size_t)p->gemm->nr;
    linear_items items = linear_items_begin(t, (size_t)p->gemm->mr, p->rows, PRODUCT_N / nr, TILED_ROWS);
    for (linear_item item; linear_items_next(t, &items, &item);) {
        const size_t n = item.part * nr;
        const void *next = items.more ? matrix_at(w, items.following.part * nr, 0) : NULL;
        const char *x = (const char *)p->x + activation_bytes(p->gemm->activation, item.row * PRODUCT_K);
        matrix_product(&(matrix_part){w, n, n + nr, 0, PRODUCT_K, next}, &(gemm_input){x, item.m, PRODUCT_K},
                       &(gemm_output){p->y + item.row * PRODUCT_N + n, PRODUCT_N, false});
    }
}

/* As in a layer, of whose weights a third or so goes to products that are stored whole. */
static void product_pass(team *t, void *arg)
{
    probe *p = arg;
    const unsigned char *first = p->buffer + p->at;
    const size_t whole = (p->bytes - p->at) / p->matrix_bytes;
    for (size_t i = 0; i < p->repeats; i++) {
        const unsigned char *data = i < whole ? first + i * p->matrix_bytes : p->buffer + (i - whole) * p->matrix_bytes;
        const matrix w = {PRODUCT_N, PRODUCT_K, 1, {{p->gemm, data, PRODUCT_N, 0, 0, PRODUCT_N, PRODUCT_K}}};
        const matrix_part part = matrix_whole(&w);
        if (p->rows > LINEAR_FEW_ROWS && i % 3 < 2)
            tiled_product(t, p, &w);
        else
            linear(t, &part, &(gemm_input){p->x, p->rows, PRODUCT_K}, &(gemm_output){p->y, PRODUCT_N, false});
        team_barrier(t);
    }
    if (t->tid == 0)
        p->at = p->repeats < whole ? p->at + p->repeats * p->matrix_bytes : (p->repeats - whole) * p->matrix_bytes;
}

/* The job as often as it is repeated, with other keys each time. */
static void attention_pass(team *t, void *arg)
{
    probe *p = arg;
    const size_t page = kv_page_bytes(&p->shape, KV_BLOCK), n = p->job.n_blocks;
    for (size_t i = 0; i < p->repeats; i++) {
        if (t->tid == 0) {
            const unsigned char *pages = next_bytes(p, n * page);
            for (size_t b = 0; b < n; b++)
                kv_page_view(&p->shape, &p->slots[b], pages + b * page, p->views + b, n);
            attention_plan(t, &p->shape, p->algorithm, &p->job, 1, &p->workspace);
        }
        team_barrier(t);
        attention_run(t, &p->workspace);
    }
}

/* What a layer does to a row between its products. */
static void row_pass(team *t, void *arg)
{
    probe *p = arg;
    const kernels *k = p->k;
    size_t begin, end;
    team_part(t, ROWS, 1, &begin, &end);
    for (size_t i = 0; i < p->repeats; i++) {
        for (size_t r = begin; r < end; r++) {
            float *y = p->y + r * PRODUCT_N;
            const float *x = p->x + r * PRODUCT_K, *angles = x;
            for (int block = 0; block < 2; block++)
                k->rms_norm(ROW_HIDDEN, x, x, 1e-6f, y, p->gemm->activation);
            for (size_t head = 0; head < ROW_HEADS; head++)
                k->norm_rope(HEAD_DIM, x, x, 1e-6f, angles, angles + HEAD_DIM / 2, 1.0f, y, QWEN3_DTYPE_BF16);
            for (size_t j = 0; j < ROW_GATED; j += PRODUCT_K)
                k->silu_mul(PRODUCT_K, x, x, y, p->gemm->activation);
        }
    }
}

static void barrier_pass(team *t, void *arg)
{
    (void)arg;
    for (int i = 0; i < BARRIERS; i++)
        team_barrier(t);
}

/* ---- Rates ------------------------------------------------------------------------------------- */

/* Keeps the best of several rounds. */
static void keep_rate(double *rate, double measured)
{
    *rate = fmax(*rate, measured);
}

/* Repeats of a pass that takes about PASS_SECONDS at `seconds` each, the same on all ranks. */
static size_t repeats_for(double seconds, size_t most)
{
    const double n = PASS_SECONDS / seconds;
    return n < 1 ? 1 : n > (double)most ? most : (size_t)n;
}

static void set_activations(probe *p, qwen3_dtype type)
{
    for (size_t i = 0; i < MOST_ROWS * PRODUCT_K; i++)
        p->y[i] = (float)(i % 13) / 8.0f - 0.75f;
    p->k->scale(MOST_ROWS * PRODUCT_K, 1.0f, p->y, p->x, type);
}

/* Weights per second of the node. */
static void measure_products(probe *p, qwen3_dtype dtype)
{
    const double values = (double)PRODUCT_N * PRODUCT_K * p->machine->ranks_per_node;
    p->gemm = &p->k->gemm[dtype];
    p->matrix_bytes = round_up(gemm_packed_bytes(p->gemm, PRODUCT_N, PRODUCT_K), CACHE_LINE);
    set_activations(p, p->gemm->activation);
    const size_t most = p->bytes / p->matrix_bytes;
    double each = PASS_SECONDS / 16; /* of a matrix, at first a guess */
    for (int i = 0; i < QWEN3_MACHINE_ROWS; i++) {
        p->rows = (size_t)machine_rows[i];
        p->repeats = repeats_for(each, most);
        p->repeats = p->repeats > 3 || most < 3 ? p->repeats : 3;
        each = seconds_of(p, product_pass) / (double)p->repeats;
        keep_rate(&p->machine->product_values[dtype][i], values / each);
    }
}

/* Seconds of a job of the last `queries` positions of some blocks of keys. */
static double time_attention(probe *p, qwen3_attention_algorithm algorithm, size_t queries, qwen3_error *err)
{
    const size_t n = p->job.n_blocks, heads = p->shape.kv_heads * HEADS_PER_KV;
    const partial_run parts = partial_at(p->y, queries * heads, HEAD_DIM);
    p->algorithm = attention_algorithm_get(algorithm);
    for (size_t i = 0; i < queries; i++)
        p->positions[i] = (int32_t)(n * KV_BLOCK - queries + i);
    for (size_t b = 0; b < n; b++) {
        kv_slots_clear(&p->slots[b]);
        for (size_t i = 0; i < KV_BLOCK; i++)
            kv_slots_add(&p->slots[b], (int32_t)(b * KV_BLOCK + i));
    }
    p->job = (attention_job){.rows = queries,
                             .q_positions = p->positions,
                             .q = p->x,
                             .o = parts.o,
                             .m = parts.m,
                             .l = parts.l,
                             .n_blocks = n,
                             .blocks = p->views};
    partial_clear(queries * heads, HEAD_DIM, parts);
    p->workspace = (attention_workspace){.threads = p->machine->threads};
    p->workspace.bytes =
        attention_workspace_bytes(&p->shape, p->algorithm, &p->job, 1, p->machine->threads, &p->workspace.score_bytes);
    memory_alloc(&p->workspace.data, p->workspace.bytes, "workspace to measure attention", err);
    if (qwen3_comm_agree(p->world, err))
        return 0;
    p->repeats = 1;
    p->repeats = repeats_for(seconds_of(p, attention_pass), p->bytes / (n * kv_page_bytes(&p->shape, KV_BLOCK)));
    const double seconds = seconds_of(p, attention_pass) / (double)p->repeats;
    memory_free(p->workspace.data, p->workspace.bytes);
    return seconds;
}

static void measure_attention(probe *p, qwen3_dtype kv_type, qwen3_error *err)
{
    static const qwen3_attention_algorithm algorithms[] = {QWEN3_ATTENTION_STANDARD, QWEN3_ATTENTION_ONLINE_SOFTMAX};
    const double ranks = p->machine->ranks_per_node;
    p->shape = (attention_shape){.kernels = p->k,
                                 .kv_type = kv_type,
                                 .head_dim = HEAD_DIM,
                                 .kv_heads = MANY_KV_HEADS,
                                 .heads_per_kv = HEADS_PER_KV,
                                 .causal = true,
                                 .q_block_size = ATTENTION_Q_BLOCK,
                                 .kv_block_size = ATTENTION_KV_BLOCK};
    set_activations(p, attention_gemm(&p->shape)->activation);
    const double visible = MANY_QUERIES * (MANY_BLOCKS * KV_BLOCK - (MANY_QUERIES - 1) / 2.0);
    for (int a = 0; a < 2 && !err->status; a++) {
        p->job.n_blocks = MANY_BLOCKS;
        const double seconds = time_attention(p, algorithms[a], MANY_QUERIES, err);
        keep_rate(&p->machine->attention_flops[kv_type][a],
                  ranks * 4 * HEAD_DIM * MANY_KV_HEADS * HEADS_PER_KV * visible / seconds);
    }
    if (err->status)
        return;
    p->shape.kv_heads = FEW_KV_HEADS;
    p->job.n_blocks = FEW_BLOCKS;
    const double bytes = (double)(FEW_BLOCKS * kv_page_bytes(&p->shape, KV_BLOCK));
    const double seconds = time_attention(p, QWEN3_ATTENTION_ONLINE_SOFTMAX, 1, err);
    if (!err->status)
        keep_rate(&p->machine->attention_bytes[kv_type], ranks * bytes / seconds);
}

static void measure_rows(probe *p)
{
    qwen3_machine *m = p->machine;
    set_activations(p, QWEN3_DTYPE_F32);
    p->repeats = 1;
    p->repeats = repeats_for(seconds_of(p, row_pass), SIZE_MAX);
    keep_rate(&m->row_values,
              m->ranks_per_node * (double)(ROWS * ROW_VALUES) * (double)p->repeats / seconds_of(p, row_pass));
    const double barrier = seconds_of(p, barrier_pass) / BARRIERS;
    m->barrier = m->barrier > 0 ? fmin(m->barrier, barrier) : barrier;
}

/* ---- Links ------------------------------------------------------------------------------------- */

static double time_sums(probe *p, comm *c, size_t floats, int repeats)
{
    comm_allreduce(c, p->y, floats, QWEN3_COMM_CONTROL);
    const double start = seconds_now();
    for (int i = 0; i < repeats; i++)
        comm_allreduce(c, p->y, floats, QWEN3_COMM_CONTROL);
    return (seconds_now() - start) / repeats;
}

static double time_hops(probe *p, comm *c, int repeats)
{
    const size_t bytes = SMALL_FLOATS * sizeof(float);
    const double start = seconds_now();
    for (int i = 0; i < repeats; i++) {
        comm_ring_start(c, 0, p->x, bytes, p->y, bytes, QWEN3_COMM_CONTROL);
        comm_wait(c, 0);
    }
    return (seconds_now() - start) / repeats;
}

/* Latency, message and seconds per byte among the ranks of c, all zero for one rank. Collective over c. */
static void time_link(probe *p, comm *c, double times[3])
{
    const int ranks = comm_size(c);
    times[0] = times[1] = times[2] = 0;
    if (ranks == 1)
        return;
    memset(p->y, 0, LARGE_FLOATS * sizeof *p->y);
    const double bytes = 2.0 * (ranks - 1) / ranks * (double)(LARGE_FLOATS - SMALL_FLOATS) * sizeof(float);
    double small = INFINITY, large = INFINITY, hop = INFINITY;
    for (int i = 0; i < ATTEMPTS; i++) {
        small = fmin(small, time_sums(p, c, SMALL_FLOATS, SMALL_REPEATS));
        large = fmin(large, time_sums(p, c, LARGE_FLOATS, LARGE_REPEATS));
        hop = fmin(hop, time_hops(p, c, SMALL_REPEATS));
    }
    times[0] = small / machine_doublings(ranks);
    times[1] = hop;
    times[2] = fmax(large - small, 1e-9) / bytes;
}

static void set_link(qwen3_link *link, const double times[3])
{
    if (times[0] > 0)
        *link = (qwen3_link){times[0], times[1], 1 / times[2]};
}

/* Ranks of a node at the same time as those of others, then one rank of each node. Collective. */
static void measure_links(probe *p)
{
    double times[6] = {0};
    qwen3_comm_barrier(p->world);
    time_link(p, p->node, times);
    qwen3_comm_barrier(p->world);
    if (comm_rank(p->node) == 0)
        time_link(p, p->leaders, times + 3);
    qwen3_comm_max(p->world, times, 6);
    set_link(&p->machine->inside, times);
    set_link(&p->machine->across, times + 3);
}

/* ---- All together ------------------------------------------------------------------------------ */

static void close_probe(probe *p)
{
    if (!p)
        return;
    memory_free(p->buffer, p->bytes);
    free(p->x);
    free(p->y);
    comm_free(p->leaders);
    comm_free(p->node);
    free(p);
}

static float *allocate_rows(size_t columns)
{
    return aligned_alloc(CACHE_LINE, MOST_ROWS * columns * sizeof(float));
}

/* Collective; the ranks agree on the outcome. */
static qwen3_status open_probe(probe *p, int threads, qwen3_isa isa, qwen3_error *err)
{
    qwen3_machine *m = p->machine;
    qwen3_rank_info info;
    if (!team_check_threads(threads, err))
        kernels_choose(isa, &p->k, err);
    if (qwen3_comm_agree(p->world, err) || qwen3_comm_topology(p->world, &info, err) ||
        comm_split_node(p->world, &p->node, err) ||
        comm_split(p->world, comm_rank(p->node) > 0, comm_rank(p->world), &p->leaders, err))
        return err->status;
    m->nodes = info.nodes;
    m->ranks_per_node = (comm_size(p->world) + info.nodes - 1) / info.nodes;
    m->threads = threads ? threads : info.default_threads;
    m->isa = p->k->isa;
    p->bytes = memory_total() / 4 < NODE_BYTES ? memory_total() / 4 : NODE_BYTES;
    p->bytes = round_up(p->bytes / (size_t)m->ranks_per_node, CACHE_LINE);
    p->bytes = p->bytes > LEAST_BYTES ? p->bytes : LEAST_BYTES;
    p->x = allocate_rows(PRODUCT_K);
    p->y = allocate_rows(PRODUCT_N);
    void *buffer = NULL;
    if (!p->x || !p->y)
        fail(err, QWEN3_ERR_MEMORY, "no memory to measure the machine");
    else if (!team_check_stacks(m->threads, err))
        memory_alloc(&buffer, p->bytes, "weights to measure the machine with", err);
    p->buffer = buffer;
    return qwen3_comm_agree(p->world, err);
}

/* One round. *err is agreed on. */
static void measure_rates(probe *p, qwen3_dtype dtype, qwen3_error *err)
{
    for (int type = 0; type < QWEN3_WEIGHT_TYPES; type++)
        if (dtype == QWEN3_DTYPE_AUTO || (int)dtype == type)
            measure_products(p, (qwen3_dtype)type);
    for (int type = 0; type < QWEN3_KV_TYPES && !err->status; type++)
        if (dtype == QWEN3_DTYPE_AUTO || (int)machine_kv_type(dtype) == type)
            measure_attention(p, (qwen3_dtype)type, err);
    p->gemm = &p->k->gemm[dtype == QWEN3_DTYPE_AUTO ? QWEN3_DTYPE_BF16 : dtype];
    measure_rows(p);
}

static qwen3_status measure(probe *p, qwen3_dtype dtype, qwen3_error *err)
{
    team_run(p->machine->threads, fill_pass, p);
    for (int round = 0; round < ROUNDS && !err->status; round++)
        measure_rates(p, dtype, err);
    if (!err->status)
        measure_links(p);
    return err->status;
}

qwen3_status qwen3_machine_measure(qwen3_comm *c, int threads, qwen3_isa isa, qwen3_dtype dtype, qwen3_machine *machine,
                                   qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    const qwen3_machine assumed = qwen3_machine_default();
    if (!missing(machine, "machine", err))
        *machine = (qwen3_machine){.inside = assumed.inside, .across = assumed.across};
    probe *p = calloc(1, sizeof *p);
    if (p)
        dtype_check(dtype, err);
    else
        fail(err, QWEN3_ERR_MEMORY, "no memory to measure the machine");
    qwen3_status status = qwen3_comm_agree(c, err);
    if (!status) {
        p->world = c;
        p->machine = machine;
        status = open_probe(p, threads, isa, err);
    }
    if (!status)
        status = measure(p, dtype, err);
    close_probe(p);
    return status;
}
