/* bench_libraries.c - the matrix products of oneDNN and LIBXSMM beside ours, on the linear layers of published models.
 *
 *   bench_libraries [0.6B|4B|8B]... [qkv|o|gate+up|down]... [f32|bf16]... [1|512]...
 *
 * Models, layers, types and rows; of each kind all where none is named.
 *
 * Built only where Debian's libdnnl-dev (2.x) and libxsmm-dev are installed; nothing else uses them. Every product runs
 * on one thread and on OMP_NUM_THREADS. All three compute y[m, n] = x[m, k] W[n, k]^T with f32 results, from weights in
 * the form that each of them likes best, packed before. oneDNN chooses that form itself (format "any"). LIBXSMM has
 * small products only: as its users do, weights are split into blocks, and a generated kernel that sums over a chain of
 * blocks is called in a loop; of several heights of x the fastest counts.
 *
 * Limits and contenders take turns and the best of each counts: on a shared machine only ratios mean something. 512
 * rows are held against multiply-adds from registers, one row against reading the weights from memory, for which there
 * are as many copies of them as no cache holds. Results are compared with ours before anything is timed.
 */
#include <libxsmm.h>
#include <math.h>
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "blocks/linear.h"
#include "kernels/kernels.h"
#include "usage.h"

#define TURNS 7
#define TURN_SECONDS 0.03              /* about, of each contender in each turn */
#define COLD_BYTES ((size_t)768 << 20) /* copies of the weights of a product of one row */
#define TOLERANCE 2e-5                 /* relative L2: sums of the same products in another order */
#define MAX_COPIES 512

static const char *const type_names[ELEMENT_TYPES] = {"f32", "bf16"};

/* y[m, n] = x[m, k] W[n, k]^T */
typedef struct product {
    const kernels *kernels;
    qwen3_dtype type; /* of x and W */
    size_t m, n, k;
    int threads;
    size_t copies; /* of the packed weights */
    const void *x, *w;
    const void *our_x; /* x as the activation of our kernels: those that widen BF16 take f32 */
} product;

typedef struct onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    dnnl_memory_t x, y, weights[MAX_COPIES];
    char name[64]; /* of the implementation that was chosen */
} onednn;

/* Kernels for blocks of W[BLOCK, BLOCK] and `rows` rows of x; the second adds to y. */
typedef struct xsmm {
    size_t rows;
    libxsmm_xmmfunction first, next;
} xsmm;

/* One of those that compute a product. */
typedef struct contender {
    const product *p;
    unsigned char *weights; /* [copies][weight_bytes] */
    size_t weight_bytes;
    float *y;
    size_t copy; /* in hand */
    void (*multiply)(struct contender *c);
    onednn dnnl;
    xsmm xsmm;
} contender;

static void stop(const char *what)
{
    fprintf(stderr, "bench_libraries: %s\n", what);
    exit(EXIT_FAILURE);
}

static void *buffer(size_t bytes)
{
    void *memory = NULL;
    qwen3_error err = {0};
    if (memory_alloc(&memory, bytes, "buffer", &err) != QWEN3_OK)
        stop(err.message);
    return memory;
}

static size_t copies_of(const product *p, size_t bytes)
{
    const size_t copies = p->m > 1 ? 1 : (COLD_BYTES + bytes - 1) / bytes;
    return copies < MAX_COPIES ? copies : MAX_COPIES;
}

static void make_weights(contender *c, const product *p, size_t bytes)
{
    c->p = p;
    c->weight_bytes = bytes;
    c->weights = buffer(p->copies * bytes);
    c->y = buffer(p->m * p->n * sizeof(float));
}

static void copy_weights(contender *c)
{
    for (size_t i = 1; i < c->p->copies; i++)
        memcpy(c->weights + i * c->weight_bytes, c->weights, c->weight_bytes);
}

static void *weights_in_hand(const contender *c)
{
    return c->weights + c->copy * c->weight_bytes;
}

/* ---- Ours -------------------------------------------------------------------------------------- */

static void our_team(team *t, void *arg)
{
    const contender *c = arg;
    const product *p = c->p;
    const matrix w = {p->n, p->k, 1, {{weights_in_hand(c), p->n, 0, 0, p->n, p->k}}};
    linear(t, &p->kernels->gemm[p->type], &w, (range){0, (int64_t)p->n}, (range){0, (int64_t)p->k}, p->m, p->our_x,
           p->k, c->y, p->n, false);
}

static void our_multiply(contender *c)
{
    team_run(c->p->threads, our_team, c);
}

static void our_prepare(contender *c, const product *p)
{
    const gemm_kernel *g = &p->kernels->gemm[p->type];
    const size_t nr = (size_t)g->nr, panel_bytes = gemm_packed_bytes(g, nr, p->k);
    make_weights(c, p, gemm_packed_bytes(g, p->n, p->k));
    c->multiply = our_multiply;
    for (size_t panel = 0; panel < p->n / nr; panel++)
        gemm_pack_panel(
            g, &(matrix_rows){(const char *)p->w + panel * nr * p->k * dtype_size(p->type), p->type, p->k, nr, p->k},
            c->weights + panel * panel_bytes);
    copy_weights(c);
}

/* ---- oneDNN ------------------------------------------------------------------------------------ */

static void dnnl_check(dnnl_status_t status, const char *call)
{
    if (status == dnnl_success)
        return;
    fprintf(stderr, "bench_libraries: %s: oneDNN status %d\n", call, (int)status);
    exit(EXIT_FAILURE);
}
#define DNNL(call) dnnl_check(call, #call)

static void dnnl_multiply(contender *c)
{
    const onednn *d = &c->dnnl;
    const dnnl_exec_arg_t arguments[] = {
        {DNNL_ARG_SRC, d->x}, {DNNL_ARG_WEIGHTS, d->weights[c->copy]}, {DNNL_ARG_DST, d->y}};
    DNNL(dnnl_primitive_execute(d->primitive, d->stream, 3, arguments));
    DNNL(dnnl_stream_wait(d->stream));
}

/* From W[n, k] in row-major order to what the primitive wants. */
static void dnnl_pack(const onednn *d, const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to, const void *w)
{
    dnnl_memory_t original;
    dnnl_primitive_desc_t description;
    dnnl_primitive_t reorder;
    void *bytes;
    memcpy(&bytes, &w, sizeof bytes); /* the interface knows no const */
    DNNL(dnnl_memory_create(&original, from, d->engine, bytes));
    DNNL(dnnl_reorder_primitive_desc_create(&description, from, d->engine, to, d->engine, NULL));
    DNNL(dnnl_primitive_create(&reorder, description));
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, original}, {DNNL_ARG_TO, d->weights[0]}};
    DNNL(dnnl_primitive_execute(reorder, d->stream, 2, arguments));
    DNNL(dnnl_stream_wait(d->stream));
    DNNL(dnnl_primitive_destroy(reorder));
    DNNL(dnnl_primitive_desc_destroy(description));
    DNNL(dnnl_memory_destroy(original));
}

static void dnnl_prepare(contender *c, const product *p)
{
    onednn *d = &c->dnnl;
    const dnnl_data_type_t type = p->type == QWEN3_DTYPE_F32 ? dnnl_f32 : dnnl_bf16;
    const dnnl_dim_t m = (dnnl_dim_t)p->m, n = (dnnl_dim_t)p->n, k = (dnnl_dim_t)p->k;
    dnnl_memory_desc_t x, w, any, y;
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_desc_t description;
    omp_set_num_threads(p->threads); /* the form that is chosen depends on it */
    DNNL(dnnl_engine_create(&d->engine, dnnl_cpu, 0));
    DNNL(dnnl_stream_create(&d->stream, d->engine, dnnl_stream_default_flags));
    DNNL(dnnl_memory_desc_init_by_tag(&x, 2, (dnnl_dims_t){m, k}, type, dnnl_ab));
    DNNL(dnnl_memory_desc_init_by_tag(&w, 2, (dnnl_dims_t){k, n}, type, dnnl_ba));
    DNNL(dnnl_memory_desc_init_by_tag(&any, 2, (dnnl_dims_t){k, n}, type, dnnl_format_tag_any));
    DNNL(dnnl_memory_desc_init_by_tag(&y, 2, (dnnl_dims_t){m, n}, dnnl_f32, dnnl_ab));
    DNNL(dnnl_matmul_desc_init(&matmul, &x, &any, NULL, &y));
    DNNL(dnnl_primitive_desc_create(&description, &matmul, NULL, d->engine, NULL));
    DNNL(dnnl_primitive_create(&d->primitive, description));
    const char *name;
    DNNL(dnnl_primitive_desc_query(description, dnnl_query_impl_info_str, 0, (void *)&name));
    snprintf(d->name, sizeof d->name, "%s", name);
    const dnnl_memory_desc_t *packed = dnnl_primitive_desc_query_md(description, dnnl_query_weights_md, 0);
    make_weights(c, p, round_up(dnnl_memory_desc_get_size(packed), CACHE_LINE));
    c->multiply = dnnl_multiply;
    for (size_t i = 0; i < p->copies; i++)
        DNNL(dnnl_memory_create(&d->weights[i], packed, d->engine, c->weights + i * c->weight_bytes));
    void *input;
    memcpy(&input, &p->x, sizeof input);
    DNNL(dnnl_memory_create(&d->x, &x, d->engine, input));
    DNNL(dnnl_memory_create(&d->y, &y, d->engine, c->y));
    dnnl_pack(d, &w, packed, p->w);
    DNNL(dnnl_primitive_desc_destroy(description));
    copy_weights(c);
}

static void dnnl_release(contender *c)
{
    onednn *d = &c->dnnl;
    for (size_t i = 0; i < c->p->copies; i++)
        DNNL(dnnl_memory_destroy(d->weights[i]));
    DNNL(dnnl_memory_destroy(d->x));
    DNNL(dnnl_memory_destroy(d->y));
    DNNL(dnnl_primitive_destroy(d->primitive));
    DNNL(dnnl_stream_destroy(d->stream));
    DNNL(dnnl_engine_destroy(d->engine));
}

/* ---- LIBXSMM ----------------------------------------------------------------------------------- */

/* Outputs and inputs of a block; all sizes here are multiples. */
#define BLOCK ((size_t)64)
/* Of a chain of blocks, so that it stays in the second-level cache while all rows pass by. */
#define CHAIN_BYTES ((size_t)256 * 1024)

/* Blocks [n / BLOCK][k / BLOCK], each column-major as the library wants it: with `pair` 1 [BLOCK of k][BLOCK of n],
 * with pairs of BF16 [BLOCK of k / 2][BLOCK of n][2]. */
static void xsmm_pack(const product *p, unsigned char *dst)
{
    const size_t size = dtype_size(p->type), pair = p->type == QWEN3_DTYPE_F32 ? 1 : 2;
    const unsigned char *src = p->w;
    for (size_t j0 = 0; j0 < p->n; j0 += BLOCK)
        for (size_t i0 = 0; i0 < p->k; i0 += BLOCK)
            for (size_t i = 0; i < BLOCK; i += pair)
                for (size_t j = 0; j < BLOCK; j++, dst += pair * size)
                    memcpy(dst, src + ((j0 + j) * p->k + i0 + i) * size, pair * size);
}

/* The kernel for y[rows, BLOCK] = beta y + sum over a chain of blocks. LIBXSMM is column-major: W is its first factor,
 * x transposed its second. */
static libxsmm_xmmfunction xsmm_kernel(const product *p, size_t rows, float beta)
{
    const libxsmm_blasint block = (libxsmm_blasint)BLOCK, height = (libxsmm_blasint)rows;
    const libxsmm_blasint x_stride = (libxsmm_blasint)p->k, y_stride = (libxsmm_blasint)p->n;
    const libxsmm_blasint row_bytes = (libxsmm_blasint)(BLOCK * dtype_size(p->type)), bytes = row_bytes * block;
    const int flags = p->type == QWEN3_DTYPE_F32 ? LIBXSMM_GEMM_FLAG_NONE : LIBXSMM_GEMM_FLAG_VNNI_A;
    const float alpha = 1;
    libxsmm_xmmfunction kernel = {0};
    if (p->type == QWEN3_DTYPE_F32)
        kernel.smrs = libxsmm_smmdispatch_reducebatch_strd(block, height, block, bytes, row_bytes, NULL, &x_stride,
                                                           &y_stride, &alpha, &beta, &flags, NULL);
    else
        kernel.bsmrs = libxsmm_bsmmdispatch_reducebatch_strd(block, height, block, bytes, row_bytes, NULL, &x_stride,
                                                             &y_stride, &alpha, &beta, &flags, NULL);
    if (!kernel.xmm)
        stop("LIBXSMM generates no kernel on this processor");
    return kernel;
}

static void xsmm_team(team *t, void *arg)
{
    const contender *c = arg;
    const product *p = c->p;
    const size_t size = dtype_size(p->type), rows = c->xsmm.rows, chain = CHAIN_BYTES / (BLOCK * BLOCK * size);
    size_t begin, end;
    team_part(t, p->n, BLOCK, &begin, &end);
    for (size_t j = begin; j < end; j += BLOCK) {
        for (size_t block = 0; block < p->k / BLOCK; block += chain) {
            const size_t left = p->k / BLOCK - block;
            const unsigned long long count = left < chain ? left : chain;
            const libxsmm_xmmfunction kernel = block ? c->xsmm.next : c->xsmm.first;
            const char *w = (const char *)weights_in_hand(c) + (j * p->k + block * BLOCK * BLOCK) * size;
            for (size_t row = 0; row < p->m; row += rows) {
                const char *x = (const char *)p->x + (row * p->k + block * BLOCK) * size;
                float *y = c->y + row * p->n + j;
                if (p->type == QWEN3_DTYPE_F32)
                    kernel.smrs((const float *)(const void *)w, (const float *)(const void *)x, y, &count);
                else
                    kernel.bsmrs((const libxsmm_bfloat16 *)(const void *)w, (const libxsmm_bfloat16 *)(const void *)x,
                                 y, &count);
            }
        }
    }
}

static void xsmm_multiply(contender *c)
{
    team_run(c->p->threads, xsmm_team, c);
}

/* With the height of x that is fastest here. */
static void xsmm_prepare(contender *c, const product *p)
{
    static const size_t heights[] = {8, 16, 32, 64, 128};
    make_weights(c, p, p->n * p->k * dtype_size(p->type));
    c->multiply = xsmm_multiply;
    xsmm_pack(p, c->weights);
    copy_weights(c);
    double best = 1e30;
    xsmm fastest = {0};
    for (size_t h = 0; h < (p->m > 1 ? sizeof heights / sizeof *heights : 1); h++) {
        const size_t rows = p->m > 1 ? heights[h] : 1;
        c->xsmm = (xsmm){rows, xsmm_kernel(p, rows, 0), xsmm_kernel(p, rows, 1)};
        for (int turn = 0; turn < 3; turn++) {
            const double start = omp_get_wtime();
            xsmm_multiply(c);
            const double seconds = omp_get_wtime() - start;
            if (seconds < best)
                fastest = c->xsmm;
            best = fmin(best, seconds);
        }
    }
    c->xsmm = fastest;
}

/* ---- Timing ------------------------------------------------------------------------------------ */

enum { OURS, ONEDNN, XSMM, CONTENDERS };

typedef struct limit {
    const product *p;
    const unsigned char *bytes; /* [n_bytes] */
    size_t n_bytes, repeats;
} limit;

static void run_read(team *t, void *arg)
{
    const limit *l = arg;
    size_t begin, end;
    team_part(t, l->n_bytes, 1024, &begin, &end);
    volatile uint64_t sink = l->p->kernels->read_memory(l->bytes + begin, end - begin);
    (void)sink;
}

static void run_peak(team *t, void *arg)
{
    const limit *l = arg;
    (void)t;
    l->p->kernels->multiply_add[l->p->type](l->repeats);
}

/* Multiply-adds (counted as 2) or bytes per second, once. */
static double limit_rate(const limit *l)
{
    const bool reads = l->p->m == 1;
    const double start = omp_get_wtime();
    team_run(l->p->threads, reads ? run_read : run_peak, (void *)l);
    const double seconds = omp_get_wtime() - start;
    const double one = reads ? 0 : (double)l->p->kernels->multiply_add[l->p->type](1);
    return (reads ? (double)l->n_bytes : one * (double)l->repeats * l->p->threads) / seconds;
}

/* Seconds per product: all copies of the weights in turn, or the only one `calls` times. */
static double product_seconds(contender *c, size_t calls)
{
    const size_t n = c->p->copies > 1 ? c->p->copies : calls;
    const double start = omp_get_wtime();
    for (size_t i = 0; i < n; i++) {
        c->copy = i % c->p->copies;
        c->multiply(c);
    }
    return (omp_get_wtime() - start) / (double)n;
}

static void compare(const contender *ours, const contender *theirs, const char *name)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < ours->p->m * ours->p->n; i++) {
        const double d = (double)theirs->y[i] - (double)ours->y[i];
        difference += d * d;
        norm += (double)ours->y[i] * (double)ours->y[i];
    }
    const double relative_l2 = sqrt(difference / norm);
    if (!(relative_l2 <= TOLERANCE)) {
        fprintf(stderr, "bench_libraries: %s: relative L2 %.2e from ours, expected at most %.0e\n", name, relative_l2,
                TOLERANCE);
        exit(EXIT_FAILURE);
    }
}

/* Limits and contenders in turns; the best of each. */
static void race(const limit *l, contender *all, size_t calls, double *rate, double *seconds)
{
    *rate = 0;
    for (int i = 0; i < CONTENDERS; i++)
        seconds[i] = 1e30;
    for (int turn = 0; turn < TURNS; turn++) {
        *rate = fmax(*rate, limit_rate(l));
        for (int i = 0; i < CONTENDERS; i++)
            seconds[i] = fmin(seconds[i], product_seconds(&all[i], calls));
    }
}

static void print_row(const product *p, const char *layer, double rate, const double *seconds, const contender *all)
{
    const bool reads = p->m == 1;
    const double work = reads ? (double)(p->n * p->k * dtype_size(p->type)) : 2.0 * (double)(p->m * p->n * p->k);
    const double unit = 1e-9;
    printf("| %s | %s | %zu | %zu | %zu | %d | %.1f |", layer, type_names[p->type], p->m, p->n, p->k, p->threads,
           rate * unit);
    for (int i = 0; i < CONTENDERS; i++)
        printf(" %.1f | %.1f |", work / seconds[i] * unit, work / seconds[i] / rate * 100);
    printf(" %.2f | %.2f | %s, height %zu |\n", seconds[OURS] / seconds[ONEDNN], seconds[OURS] / seconds[XSMM],
           all[ONEDNN].dnnl.name, all[XSMM].xsmm.rows);
    fflush(stdout);
}

static void bench_product(product *p, const char *layer)
{
    static contender all[CONTENDERS];
    memset(all, 0, sizeof all);
    p->copies = copies_of(p, p->n * p->k * dtype_size(p->type));
    const size_t widened_bytes = p->m * p->k * sizeof(float);
    float *widened = NULL;
    p->our_x = p->x;
    if (p->kernels->gemm[p->type].activation != p->type) {
        p->our_x = widened = buffer(widened_bytes);
        p->kernels->to_f32(p->m * p->k, p->x, widened);
    }
    our_prepare(&all[OURS], p);
    dnnl_prepare(&all[ONEDNN], p);
    xsmm_prepare(&all[XSMM], p);
    for (int i = 0; i < CONTENDERS; i++)
        all[i].multiply(&all[i]);
    compare(&all[OURS], &all[ONEDNN], "oneDNN");
    compare(&all[OURS], &all[XSMM], "LIBXSMM");
    const double once = product_seconds(&all[OURS], 1);
    const size_t calls = once < TURN_SECONDS ? (size_t)(TURN_SECONDS / once) : 1;
    const limit l = {.p = p,
                     .bytes = all[OURS].weights,
                     .n_bytes = p->copies * all[OURS].weight_bytes / 1024 * 1024,
                     .repeats = (size_t)(2e-6 * (double)(p->m * p->n * p->k) * (double)calls / p->threads)};
    double rate, seconds[CONTENDERS];
    race(&l, all, calls, &rate, seconds);
    print_row(p, layer, rate, seconds, all);
    dnnl_release(&all[ONEDNN]);
    for (int i = 0; i < CONTENDERS; i++) {
        memory_free(all[i].weights, p->copies * all[i].weight_bytes);
        memory_free(all[i].y, p->m * p->n * sizeof(float));
    }
    memory_free(widened, widened_bytes);
}

/* ---- The program ------------------------------------------------------------------------------- */

typedef struct layer {
    const char *model, *name;
    size_t n, k;
} layer;

/* Outputs of q, k and v, and of gate and up, together, as they are computed. */
static const layer layers[] = {
    {"0.6B", "qkv", 4096, 1024},    {"0.6B", "o", 1024, 2048},      {"0.6B", "gate+up", 6144, 1024},
    {"0.6B", "down", 1024, 3072},   {"4B", "qkv", 6144, 2560},      {"4B", "o", 2560, 4096},
    {"4B", "gate+up", 19456, 2560}, {"4B", "down", 2560, 9728},     {"8B", "qkv", 6144, 4096},
    {"8B", "o", 4096, 4096},        {"8B", "gate+up", 24576, 4096}, {"8B", "down", 4096, 12288},
};

/* Numbers of both signs, from a linear congruential generator, in the type. */
static void fill(qwen3_dtype type, void *values, size_t n, uint32_t state)
{
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        const float x = (float)(int32_t)state * 0x1p-31f;
        if (type == QWEN3_DTYPE_F32)
            ((float *)values)[i] = x;
        else
            ((bf16 *)values)[i] = f32_to_bf16(x);
    }
}

static bool is_one_of(const char *argument, const char *const *kind, size_t n_kind)
{
    for (size_t i = 0; i < n_kind; i++)
        if (strcmp(argument, kind[i]) == 0)
            return true;
    return false;
}

/* Whether `name` is among the arguments, or no argument is of its kind. */
static bool chosen(int argc, char **argv, const char *name, const char *const *kind, size_t n_kind)
{
    bool any = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], name) == 0)
            return true;
        any |= is_one_of(argv[i], kind, n_kind);
    }
    return !any;
}

static const char usage[] =
    "Usage: bench_libraries [0.6B|4B|8B]... [qkv|o|gate+up|down]... [f32|bf16]... [1|512]...\n\n"
    "The matrix products of oneDNN and LIBXSMM beside ours: models, layers, types and rows, of each kind all where "
    "none\n"
    "is named. OMP_NUM_THREADS: threads.\n";

int main(int argc, char **argv)
{
    int status;
    if (usage_ends(argc, argv, usage, &status))
        return status;
    static const char *const models[] = {"0.6B", "4B", "8B"}, *const rows[] = {"1", "512"};
    static const char *const names[] = {"qkv", "o", "gate+up", "down"};
    const int threads = omp_get_max_threads();
    const kernels *k = kernels_get(QWEN3_ISA_AUTO);
    for (int i = 1; i < argc; i++)
        if (!is_one_of(argv[i], models, 3) && !is_one_of(argv[i], names, 4) && !is_one_of(argv[i], type_names, 2) &&
            !is_one_of(argv[i], rows, 2))
            stop("expected 0.6B, 4B, 8B, qkv, o, gate+up, down, f32, bf16, 1 or 512");
    libxsmm_init();
    printf("%s; oneDNN %d.%d.%d; LIBXSMM %s, %s. GFLOP/s of 512 rows, GB/s of 1 row; best of %d turns\n\n", k->name,
           dnnl_version()->major, dnnl_version()->minor, dnnl_version()->patch, LIBXSMM_VERSION,
           libxsmm_get_target_arch(), TURNS);
    printf("| layer | type | m | n | k | threads | limit | ours | %% | oneDNN | %% | LIBXSMM | %% | oneDNN / ours | "
           "LIBXSMM / ours | chosen |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|\n");
    for (size_t l = 0; l < sizeof layers / sizeof *layers; l++) {
        for (int type = 0; type < ELEMENT_TYPES; type++) {
            if (!chosen(argc, argv, layers[l].model, models, 3) || !chosen(argc, argv, layers[l].name, names, 4) ||
                !chosen(argc, argv, type_names[type], type_names, 2))
                continue;
            const size_t w_bytes = layers[l].n * layers[l].k * dtype_size((qwen3_dtype)type);
            const size_t x_bytes = 512 * layers[l].k * dtype_size((qwen3_dtype)type);
            void *w = buffer(w_bytes), *x = buffer(x_bytes);
            fill((qwen3_dtype)type, w, layers[l].n * layers[l].k, 1);
            fill((qwen3_dtype)type, x, 512 * layers[l].k, 2);
            char name[32];
            snprintf(name, sizeof name, "%s %s", layers[l].model, layers[l].name);
            for (size_t m = 0; m < 2; m++) {
                for (int t = 1; t <= threads; t += threads > 1 ? threads - 1 : 1) {
                    product p = {k, (qwen3_dtype)type, m ? 512 : 1, layers[l].n, layers[l].k, t, 0, x, w, NULL};
                    if (chosen(argc, argv, rows[m], rows, 2))
                        bench_product(&p, name);
                }
            }
            memory_free(w, w_bytes);
            memory_free(x, x_bytes);
        }
    }
    return EXIT_SUCCESS;
}
