/* bench_kernels.c - how near the kernels of each level come to the limits of the machine.
 *
 *   bench_kernels [attention] [LEVEL]...      all levels of this CPU where none is named; OMP_NUM_THREADS = threads
 *                                             attention: only the part of bench_attention.c
 *   bench_kernels reading                     only that of bench_reading.c
 *   bench_kernels levels                      only that of bench_levels.c: a line for the table of processors
 *
 * Limits are measured next to what is held against them, in turns, and the best of each counts: on a shared
 * machine only ratios mean something. Products of many rows are held against multiply-adds from registers,
 * of few rows and packing against reading the same bytes of memory. Shapes are those of the 0.6B model.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "bench.h"
#include "usage.h"

#define MATRIX_BYTES ((size_t)151936 * 1024 * 2) /* the output head in BF16: larger than caches */
#define MAX_ROWS 512
#define MAX_DEPTH 3072
#define MAX_OUTPUTS 6144
#define VECTOR 4096

static const char *const type_names[DTYPE_COUNT] = {"f32", "bf16", "q8", "q4"};

typedef struct bench {
    const kernels *k;
    const gemm_kernel *g;
    int threads;
    size_t rows, outputs, depth;
    unsigned char *matrix; /* [MATRIX_BYTES] */
    unsigned char *other;  /* [MATRIX_BYTES], what packing writes */
    unsigned char *x;      /* [MAX_ROWS, MAX_DEPTH] f32 */
    float *y;              /* [MAX_ROWS, MAX_OUTPUTS] or, of one row, the whole output head */
    size_t repeats;
} bench;

static size_t matrix_bytes(const bench *b)
{
    return gemm_packed_bytes(b->g, b->outputs, b->depth);
}

/* ---- What threads do --------------------------------------------------------------------------- */

static void run_read(team *t, void *arg)
{
    const bench *b = arg;
    read_part(t, b->k, b->matrix, MATRIX_BYTES);
}

static void run_peak(team *t, void *arg)
{
    (void)t;
    const bench *b = arg;
    b->k->multiply_add[b->g->storage](b->repeats);
}

static void run_gemm(team *t, void *arg)
{
    const bench *b = arg;
    size_t begin, end;
    team_part(t, b->outputs, 64, &begin, &end);
    const size_t stride = MAX_DEPTH;
    gemm(b->g, &(gemm_weights){b->matrix, b->outputs, b->depth, begin, end, 0, b->depth, NULL},
         &(gemm_input){b->x, b->rows, stride}, &(gemm_output){b->y + begin, b->outputs, false});
}

/* From `other`, row-major BF16, to `matrix`. */
static void run_pack(team *t, void *arg)
{
    const bench *b = arg;
    const size_t nr = (size_t)b->g->nr, panel = gemm_packed_bytes(b->g, nr, b->depth);
    size_t begin, end;
    team_part(t, b->outputs / nr, 1, &begin, &end);
    for (size_t p = begin; p < end; p++)
        gemm_pack_panel(
            b->g, &(matrix_rows){b->other + p * nr * b->depth * sizeof(bf16), QWEN3_DTYPE_BF16, b->depth, nr, b->depth},
            b->matrix + p * panel);
}

static double time_reading(void *arg)
{
    return seconds_of(((bench *)arg)->threads, run_read, arg);
}

static double time_multiply_adds(void *arg)
{
    return seconds_of(((bench *)arg)->threads, run_peak, arg);
}

static double time_gemm(void *arg)
{
    return seconds_of(((bench *)arg)->threads, run_gemm, arg);
}

static double time_packing(void *arg)
{
    return seconds_of(((bench *)arg)->threads, run_pack, arg);
}

/* ---- Tables ------------------------------------------------------------------------------------ */

static void bench_limits(bench *b, int threads)
{
    double seconds[2][DTYPE_COUNT], read[2];
    const int team_sizes[2] = {1, threads}, measured = threads == 1 ? 1 : 2;
    double operations[DTYPE_COUNT];
    for (int i = 0; i < measured; i++) {
        read[i] = 1e30;
        for (int type = 0; type < DTYPE_COUNT; type++) {
            b->g = &b->k->gemm[type];
            b->repeats = 500;
            operations[type] = (double)b->k->multiply_add[type](1) * (double)b->repeats;
            seconds[i][type] = 1e30;
            for (int turn = 0; turn < TURNS; turn++)
                seconds[i][type] = fmin(seconds[i][type], seconds_of(team_sizes[i], run_peak, b));
        }
        for (int turn = 0; turn < TURNS; turn++)
            read[i] = fmin(read[i], seconds_of(team_sizes[i], run_read, b));
    }
    for (int i = 0; i < measured; i++)
        printf("  limits, %2d thread%s: %7.1f GFLOP/s f32  %7.1f GFLOP/s bf16  %7.1f GOP/s q8  %6.1f GB/s read\n",
               team_sizes[i], team_sizes[i] == 1 ? " " : "s", team_sizes[i] * operations[0] / seconds[i][0] * 1e-9,
               team_sizes[i] * operations[1] / seconds[i][1] * 1e-9,
               team_sizes[i] * operations[2] / seconds[i][2] * 1e-9, (double)MATRIX_BYTES / read[i] * 1e-9);
}

static void bench_prefill(bench *b, qwen3_dtype type)
{
    static const size_t shapes[][2] = {{1024, 4096}, {2048, 1024}, {1024, 6144}, {3072, 1024}};
    b->g = &b->k->gemm[type];
    b->rows = MAX_ROWS;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        b->depth = shapes[s][0];
        b->outputs = shapes[s][1];
        const double operations = 2.0 * (double)b->rows * (double)b->outputs * (double)b->depth;
        b->repeats = (size_t)(operations * 1e-6 / b->threads);
        double limit, time;
        race(time_multiply_adds, time_gemm, b, &limit, &time);
        const double peak = (double)b->k->multiply_add[type](1) * (double)b->repeats * b->threads / limit;
        printf("  %-5s %d thr  m %4zu  n %6zu  k %4zu  %9.3f ms %8.1f GFLOP/s  %5.1f %% of multiply-adds\n",
               type_names[type], b->threads, b->rows, b->outputs, b->depth, time * 1e3, operations / time * 1e-9,
               operations / time / peak * 100);
    }
}

/* Outputs of a matrix of the type that fills MATRIX_BYTES, but at most `most`. */
static size_t outputs_of(const gemm_kernel *g, size_t depth, size_t most)
{
    const size_t outputs = MATRIX_BYTES / depth * (size_t)g->kr / (size_t)g->group_bytes / 64 * 64;
    return outputs < most ? outputs : most;
}

static void bench_decode(bench *b, qwen3_dtype type)
{
    static const size_t rows[] = {1, 2, 4, 8};
    b->g = &b->k->gemm[type];
    b->depth = 1024;
    b->outputs = outputs_of(b->g, b->depth, MAX_ROWS * MAX_OUTPUTS / 8);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        b->rows = rows[r];
        double limit, time;
        race(time_reading, time_gemm, b, &limit, &time);
        const double bytes = (double)matrix_bytes(b);
        printf("  %-5s %d thr  m %4zu  n %6zu  k %4zu  %9.3f ms %8.1f GB/s     %5.1f %% of reading\n", type_names[type],
               b->threads, b->rows, b->outputs, b->depth, time * 1e3, bytes / time * 1e-9,
               bytes / time / ((double)MATRIX_BYTES / limit) * 100);
    }
}

static void bench_packing(bench *b, qwen3_dtype type)
{
    b->g = &b->k->gemm[type];
    b->depth = 1024;
    b->outputs = outputs_of(b->g, b->depth, type < ELEMENT_TYPES ? MATRIX_BYTES / b->depth / 2 : 64 * 64);
    double limit, time;
    race(time_reading, time_packing, b, &limit, &time);
    const double bytes = (double)b->outputs * (double)b->depth * sizeof(bf16);
    printf("  pack bf16 as %-5s %d thr  %8.2f GB/s of source, %5.1f %% of reading\n", type_names[type], b->threads,
           bytes / time * 1e-9, bytes / time / ((double)MATRIX_BYTES / limit) * 100);
}

typedef struct vector_case {
    const char *name;
    void (*run)(const kernels *k, float *x, const float *y, bf16 *z);
} vector_case;

static void run_rms_norm(const kernels *k, float *x, const float *y, bf16 *z)
{
    k->rms_norm(VECTOR, x, y, 1e-6f, z, QWEN3_DTYPE_BF16);
}

static void run_silu_mul(const kernels *k, float *x, const float *y, bf16 *z)
{
    k->silu_mul(VECTOR, x, y, z, QWEN3_DTYPE_BF16);
}

static void run_exp_sum(const kernels *k, float *x, const float *y, bf16 *z)
{
    (void)y;
    k->exp_sum(VECTOR, x, 1.0f, z, QWEN3_DTYPE_BF16);
}

static void run_norm_rope(const kernels *k, float *x, const float *y, bf16 *z)
{
    k->norm_rope(VECTOR, x, y, 1e-6f, y, y + VECTOR / 2, 1.0f, z, QWEN3_DTYPE_BF16);
}

static void run_add(const kernels *k, float *x, const float *y, bf16 *z)
{
    (void)z;
    k->add(VECTOR, x, y);
}

static void run_max(const kernels *k, float *x, const float *y, bf16 *z)
{
    (void)z;
    (void)y;
    volatile float sink = k->max(VECTOR, x);
    (void)sink;
}

static void bench_vectors(const kernels *k, float *x, float *y, bf16 *z)
{
    static const vector_case cases[] = {{"rms_norm", run_rms_norm}, {"silu_mul", run_silu_mul},
                                        {"exp_sum", run_exp_sum},   {"norm_rope", run_norm_rope},
                                        {"add", run_add},           {"max", run_max}};
    printf("  ns per 16 elements of %d:", VECTOR);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        for (size_t i = 0; i < VECTOR; i++) {
            x[i] = (float)(i % 17) / 16.0f;
            y[i] = (float)(i % 13) / 1e6f;
        }
        double best = 1e30;
        for (int turn = 0; turn < TURNS; turn++) {
            const int calls = 200;
            const double start = omp_get_wtime();
            for (int i = 0; i < calls; i++)
                cases[c].run(k, x, y, z);
            best = fmin(best, (omp_get_wtime() - start) / calls);
        }
        printf("  %s %.2f", cases[c].name, best * 1e9 * 16 / VECTOR);
    }
    printf("\n");
}

/* ---- The program ------------------------------------------------------------------------------- */

/* Ordinary numbers, read as BF16 and as f32. Untouched pages would all be one. */
static void fill(bench *b)
{
    const bf16 one = f32_to_bf16(1.0f), small = f32_to_bf16(0.01f);
    for (size_t i = 0; i < MATRIX_BYTES / sizeof one; i++)
        memcpy(b->matrix + i * sizeof one, i % 3 ? &small : &one, sizeof one);
    for (size_t i = 0; i < (size_t)MAX_ROWS * MAX_DEPTH * 2; i++)
        memcpy(b->x + i * sizeof one, i % 7 ? &small : &one, sizeof one);
}

static bool bench_level(bench *b, int threads, bool attention)
{
    printf("%s\n", b->k->name);
    if (attention)
        return bench_attention(b->k, threads);
    fill(b);
    bench_limits(b, threads);
    for (int type = 0; type < DTYPE_COUNT; type++) {
        fill(b);
        for (int t = 1; t <= threads; t += threads > 1 ? threads - 1 : 1) {
            b->threads = t;
            bench_prefill(b, (qwen3_dtype)type);
            bench_decode(b, (qwen3_dtype)type);
            bench_packing(b, (qwen3_dtype)type);
        }
    }
    bench_vectors(b->k, (float *)b->x, b->y, (bf16 *)b->other);
    return bench_attention(b->k, threads);
}

static const char usage[] = "Usage: bench_kernels [attention] [LEVEL]...\n"
                            "       bench_kernels reading|levels\n\n"
                            "How near the kernels of each instruction-set level come to the limits of this machine. "
                            "All levels of this CPU where\n"
                            "none is named; OMP_NUM_THREADS: threads.\n\n"
                            "  attention   only attention\n"
                            "  reading     only how fast a core reads memory while it multiplies\n"
                            "  levels      only what the table of processors says, with a line for this one\n";

int main(int argc, char **argv)
{
    const int threads = omp_get_max_threads();
    const size_t x_bytes = (size_t)MAX_ROWS * MAX_DEPTH * sizeof(float);
    const size_t y_bytes = (size_t)MAX_ROWS * MAX_OUTPUTS * sizeof(float);
    void *matrix = NULL, *other = NULL, *x = NULL, *y = NULL;
    qwen3_error err = {0};
    int status;
    if (usage_ends(argc, argv, usage, &status))
        return status;
    status = EXIT_FAILURE;
    if (memory_alloc(&matrix, MATRIX_BYTES, "the matrix", &err) || memory_alloc(&x, x_bytes, "the input", &err) ||
        memory_alloc(&other, MATRIX_BYTES, "the source of packing", &err) ||
        memory_alloc(&y, y_bytes, "the output", &err)) {
        fprintf(stderr, "bench_kernels: %s\n", err.message);
        goto done;
    }
    memset(other, 0x3f, MATRIX_BYTES);
    bench b = {.matrix = matrix, .other = other, .x = x, .y = y};
    if (argc == 2 && strcmp(argv[1], "reading") == 0) {
        fill(&b);
        bench_reading(matrix, MATRIX_BYTES, threads);
        status = EXIT_SUCCESS;
        goto done;
    }
    if (argc == 2 && strcmp(argv[1], "levels") == 0) {
        fill(&b);
        bench_levels(&(level_buffers){matrix, MATRIX_BYTES, x, y, y_bytes / sizeof(float)}, threads);
        status = EXIT_SUCCESS;
        goto done;
    }
    const bool attention = argc > 1 && strcmp(argv[1], "attention") == 0;
    const int first = attention ? 2 : 1;
    for (qwen3_isa isa = QWEN3_ISA_C; argc == first && isa <= kernels_highest(); isa++) {
        b.k = kernels_get(isa);
        if (b.k && !bench_level(&b, threads, attention))
            goto done;
    }
    for (int i = first; i < argc; i++) {
        qwen3_isa isa;
        b.k = qwen3_isa_parse(argv[i], &isa) ? kernels_get(isa) : NULL;
        if (!b.k) {
            fprintf(stderr, "bench_kernels: level \"%s\": unknown, or not of this CPU\n", argv[i]);
            goto done;
        }
        if (!bench_level(&b, threads, attention))
            goto done;
    }
    status = EXIT_SUCCESS;
done:
    memory_free(matrix, MATRIX_BYTES);
    memory_free(other, MATRIX_BYTES);
    memory_free(x, x_bytes);
    memory_free(y, y_bytes);
    return status;
}
