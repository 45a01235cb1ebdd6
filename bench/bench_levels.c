/* bench_levels.c - measures what the table of processor families says (kernels/processor.c) and proposes its line for
 * this processor.
 *
 * Ratios are medians of pairs over the same memory. What gains less than GAIN is not proposed.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"

#define PAIRS 31
#define GAIN 0.02
#define DEPTH 1024

typedef struct comparison {
    const kernels *k[2];  /* of multiply-adds */
    const gemm_kernel *g; /* of products, with: */
    prefetch_policy policy[2];
    const level_buffers *b;
    size_t rows, outputs;
    int threads, side; /* side: which of two is timed */
} comparison;

static void run_multiply_adds(team *t, void *arg)
{
    const comparison *c = arg;
    (void)t;
    c->k[c->side]->multiply_add[QWEN3_DTYPE_BF16](1000);
}

static void run_product(team *t, void *arg)
{
    const comparison *c = arg;
    gemm_kernel g = *c->g;
    g.policy = &c->policy[c->side];
    size_t begin, end;
    team_part(t, c->outputs, 64, &begin, &end);
    gemm(&g, &(gemm_weights){c->b->matrix, c->outputs, DEPTH, begin, end, 0, DEPTH, NULL},
         &(gemm_input){c->b->x, c->rows, DEPTH}, &(gemm_output){c->b->y + begin, c->outputs, false});
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Time of side 1 over that of side 0. */
static double ratio_of(comparison *c, void (*run)(team *t, void *arg))
{
    double ratios[PAIRS];
    for (int pair = -1; pair < PAIRS; pair++) { /* the first one warms up */
        double seconds[2];
        for (int turn = 0; turn < 2; turn++) {
            c->side = (pair & 1) ^ turn;
            seconds[c->side] = seconds_of(c->threads, run, c);
        }
        if (pair >= 0)
            ratios[pair] = seconds[1] / seconds[0];
    }
    qsort(ratios, PAIRS, sizeof *ratios, compare_doubles);
    return ratios[PAIRS / 2];
}

/* Time of products of `rows` rows with policy[1] over that with policy[0]. */
static double product_ratio(comparison *c, const kernels *k, qwen3_dtype type, size_t rows, const char *what)
{
    c->g = &k->gemm[type];
    c->rows = rows;
    const size_t fits = c->b->matrix_bytes / DEPTH * (size_t)c->g->kr / (size_t)c->g->group_bytes;
    const size_t most = c->b->y_floats / rows;
    c->outputs = (fits < most ? fits : most) / 64 * 64;
    const double ratio = ratio_of(c, run_product);
    printf("  %-12s %-4s %2zu rows  %s: %.3f of the time\n", k->name, qwen3_dtype_name(type), rows, what, ratio);
    return ratio;
}

static bool propose_fast_bf16(comparison *c)
{
    c->k[1] = kernels_get(QWEN3_ISA_AVX512_BF16);
    if (!c->k[1]) {
        printf("  VDPBF16PS: not on this processor\n");
        return false;
    }
    c->k[0] = c->k[1]->below;
    const double operations =
        (double)c->k[1]->multiply_add[QWEN3_DTYPE_BF16](1) / (double)c->k[0]->multiply_add[QWEN3_DTYPE_BF16](1);
    const double ratio = ratio_of(c, run_multiply_adds) / operations;
    printf("  VDPBF16PS instead of f32 multiply-adds: %.3f of the time\n", ratio);
    return ratio < 1 - GAIN;
}

void bench_levels(const level_buffers *b, int threads)
{
    char vendor[13];
    unsigned family;
    processor_identify(vendor, &family);
    const processor_family *now = processor_family_of(vendor, family);
    printf("processor: vendor \"%s\", family %u, in the table as %s\n", vendor, family, now->name);
    comparison c = {.b = b, .threads = threads};
    const bool fast_bf16 = propose_fast_bf16(&c);
    const kernels *best = kernels_get(QWEN3_ISA_AUTO);
    /* Tiles of AMX do not prefetch. */
    const kernels *vectors = best->isa == QWEN3_ISA_AMX ? kernels_get(QWEN3_ISA_AVX512_VNNI) : best;
    c.policy[0] = (prefetch_policy){.elements = false, .piece_level = 1};
    c.policy[1] = (prefetch_policy){.elements = true, .piece_level = 1};
    const double elements = product_ratio(&c, vectors, QWEN3_DTYPE_BF16, 1, "elements prefetched") *
                            product_ratio(&c, vectors, QWEN3_DTYPE_BF16, 4, "elements prefetched") *
                            product_ratio(&c, vectors, QWEN3_DTYPE_BF16, 8, "elements prefetched");
    c.policy[0].elements = c.policy[1].elements = elements < pow(1 - GAIN, 3);
    c.policy[1].piece_level = 2;
    const double level = product_ratio(&c, vectors, QWEN3_DTYPE_BF16, 8, "pieces into level 2") *
                         product_ratio(&c, vectors, QWEN3_DTYPE_Q4, 8, "pieces into level 2");
    printf("proposed: {\"%s\", \"%s\", %u, {.elements = %s, .piece_level = %d}, .fast_bf16 = %s, AMX_MEASURED},\n",
           now->name, vendor, family, c.policy[1].elements ? "true" : "false", level < pow(1 - GAIN, 2) ? 2 : 1,
           fast_bf16 ? "true" : "false");
    printf("in use:   {\"%s\", \"%s\", %u, {.elements = %s, .piece_level = %d}, .fast_bf16 = %s, AMX_MEASURED},\n",
           now->name, now->vendor, now->first, now->prefetch.elements ? "true" : "false", now->prefetch.piece_level,
           now->fast_bf16 ? "true" : "false");
}
