/* kernels.h - the contract between the mathematics of the model and the instruction sets.
 *
 * One `kernels` table per instruction-set level. Plain C (c/) fills every entry and is the specification;
 * a level above starts from a copy of the level below and overrides entries (kernels.c). Each architecture has its
 * own chain of levels above plain C. Tables are constant after the first call of kernels_get.
 *
 * Types. Weights are stored as F32, BF16, in quantised blocks Q8, Q4 (blocks.h), or in the blocks of files
 * (stored_types.h), keys and values as F32, BF16 or bytes that become BF16 ("storage"). Activations that enter a matrix
 * product are F32, BF16 or Q8 ("activation"): with BF16 storage the levels with BF16 instructions multiply BF16 by BF16
 * with f32 accumulation; the levels with dot products of bytes multiply all types of blocks by activations of 8 bits;
 * all others widen storage to f32 and keep f32 activations. Everything else (residual stream, outputs of products,
 * scores, partial results) is f32.
 *
 * BF16 conversion rounds to nearest even; NaN stays NaN.
 */
#ifndef QWEN3_KERNELS_H
#define QWEN3_KERNELS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/processor.h"
#include "kernels/stored_types.h"
#include "qwen3.h"

typedef uint16_t bf16;

#define DTYPE_COUNT 4

/* A qwen3_dtype or one of the stored types. */
typedef int weight_type;
#define STORED_ENUM(name, ...) WEIGHT_##name,
enum { BEFORE_STORED_TYPES = DTYPE_COUNT - 1, EACH_STORED_TYPE(STORED_ENUM) WEIGHT_TYPES };
#undef STORED_ENUM

#define ELEMENT_TYPES 2 /* F32 and BF16, without a scale */
#define ISA_COUNT (QWEN3_ISA_NEON_I8MM + 1)

/* Values along k in one step of prefetching (see gemm_prefetch). */
#define PREFETCH_STEP 32

/* No tile has more. */
#define GEMM_MOST_ROWS 64
#define GEMM_MOST_OUTPUTS 64

/* Rows of an activation matrix start at multiples of this many elements, and the elements between the
 * last column and the next multiple are zero: kernels may read (not write) them. */
#define ACTIVATION_PAD 32

/* Bytes of one value of an element type. */
static inline size_t dtype_size(qwen3_dtype type)
{
    return type == QWEN3_DTYPE_F32 ? 4 : 2;
}

/* Of ACTIVATION_PAD activations of 8 bits (blocks.h). */
#define ACTIVATION_BLOCK_BYTES 40

/* Bytes of the first n activations of a row; n is a multiple of ACTIVATION_PAD where they are Q8. */
static inline size_t activation_bytes(qwen3_dtype type, size_t n)
{
    return type == QWEN3_DTYPE_Q8 ? n / ACTIVATION_PAD * ACTIVATION_BLOCK_BYTES : n * dtype_size(type);
}

static inline float bf16_to_f32(bf16 h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline bf16 f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (bf16)((u >> 16) | 0x40); /* NaN, kept quiet */
    return (bf16)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

/* Weights that are multiplied later and that a tile prefetches. It does not read them. */
typedef struct gemm_prefetch {
    const char *from;
    size_t step_bytes; /* to prefetch, from there on, with every PREFETCH_STEP values */
    int level;         /* of the cache, 1 or 2; 1: the rows of x that follow the tile's own too */
} gemm_prefetch;

/* The product of any number of rows of x with one panel of `cols` <= nr outputs (gemm_kernel.panel). */
typedef struct gemm_panel {
    size_t rows, k_groups, cols;
    const void *x;
    size_t x_stride;
    const void *w;
    float *y;
    size_t y_stride;
    bool accumulate;
    const char *next; /* weights that come next, to be prefetched; NULL = none */
    size_t next_bytes;
} gemm_panel;

/* Matrix product with packed weights: y[r, j] (+)= sum_i x[r, i] W[j, i] over one panel of nr outputs.
 *
 * Packed layout of W[n, k] (all levels; only nr differs): panels of nr outputs; within a panel, groups of
 * kr consecutive i. A group of F32 or BF16 holds the nr outputs, and within those the kr values: element
 * (j, i) is in
 *   panel j / nr, offset ((i / kr) * nr + j % nr) * kr + i % kr.
 * A group of Q8 or Q4 holds one block of each of the nr outputs (blocks.h), for one of a stored type see
 * stored_types.h. Outputs past n and values past k are zero. A panel has ceil(k / kr) groups of nr * group_bytes bytes;
 * a range of i that starts at a multiple of kr is contiguous in it. So one packed copy can be split along n at
 * multiples of nr and along k at multiples of kr.
 */
typedef struct gemm_kernel {
    weight_type storage;
    qwen3_dtype activation;
    int mr;            /* most rows of x that one call takes; at most GEMM_MOST_ROWS */
    int one_pass_rows; /* most rows for which a tile reads its weights once and in order, at most mr */
    int nr;            /* outputs in a panel; divides GEMM_MOST_OUTPUTS */
    int kr;            /* values in a group: 1 for F32, 2 for BF16, 32 or 128 for blocks */
    int group_bytes;   /* of one output: 4 for F32 and BF16, 34 for Q8, 18 for Q4, of stored types see stored.h */
    /* y[rows, nr] f32 with row stride y_stride (elements) gets the product of x[rows, k_groups * kr]
     * (row stride x_stride elements of the activation type; of Q8 a multiple of 32) with the panel at w; 1 <= rows <=
     * mr. accumulate: adds to y, otherwise y is only written (may hold NaN before). k_groups = 0 gives zeros. w and x
     * may be unaligned to vectors; no element outside these ranges is read or written. The sum over i starts from y or
     * 0 and runs upwards in the same steps, of at most ACTIVATION_PAD values, for every `rows`: a row's result does not
     * depend on the other rows, nor on splitting k, at multiples of ACTIVATION_PAD, into calls that accumulate.
     * prefetch: what to prefetch meanwhile; NULL = nothing.
     * NULL for blocks where the level has no products of bytes for them: gemm expands. */
    void (*tile)(int rows, size_t k_groups, const void *x, size_t x_stride, const void *w, float *y, size_t y_stride,
                 bool accumulate, const gemm_prefetch *prefetch);
    /* NULL, or of storage that is widened or rearranged for products of many rows: writes k_groups groups of a panel as
     * a panel of the kernel `expanded`, of the same activation and nr, exactly. Where that is a kernel of F32, its
     * values are scale * value of Q8 and Q4, and what the format of a stored type defines. Where there is a tile too,
     * both give the same bits. */
    void (*expand)(size_t k_groups, const void *w, void *panel);
    const struct gemm_kernel *expanded;
    /* NULL, or what `tile` does for all rows of a product of many: weights that are brought near serve all of them. */
    void (*panel)(const gemm_panel *p);
    /* NULL, or a kernel of the same packing, activation and bits, which products of up to few_rows rows are left to:
     * kernels.few. few_rows is set for all levels in one place (kernels.c). */
    const struct gemm_kernel *few;
    size_t few_rows;
    /* Q8, Q4: kernels.quantise of the level; set for all levels in one place (kernels.c). */
    bool (*quantise)(const float *x, bf16 *scale, int8_t *q);
    /* Of this processor; set for all levels in one place (kernels.c). */
    const prefetch_policy *policy;
} gemm_kernel;

/* A dimension split at multiples of this can be n or k of a matrix: nr and kr are powers of 2. */
static inline int gemm_grain(const gemm_kernel *g)
{
    return g->nr > g->kr ? g->nr : g->kr;
}

typedef struct kernels {
    qwen3_isa isa;
    const char *name;
    const struct kernels *below;    /* the level that this one is built on; NULL for plain C */
    gemm_kernel gemm[WEIGHT_TYPES]; /* by storage type */
    gemm_kernel few[DTYPE_COUNT];   /* what gemm[type].few points to */
    /* Panels of F32 and BF16 times activations of 8 bits, which are widened: for matrices beside quantised ones, and
     * for blocks that are expanded where activations have 8 bits. */
    gemm_kernel mixed[ELEMENT_TYPES];
    /* Panels like those of gemm[BF16], but a signed byte, without a scale, in the place of each value. Gives what
     * gemm[BF16] of the level that it comes from gives of bytes_to_bf16, to the last bit. For few rows, which would not
     * pay for expanding; tile is NULL where the level has none. */
    gemm_kernel bytes;
    /* Q8, Q4, NULL for others: the scale and the q (codes for Q4) of one block (blocks.h) from its 32 finite values.
     * The same bits at every level. Returns false where the scale would not be finite. */
    bool (*quantise[DTYPE_COUNT])(const float *x, bf16 *scale, int8_t *q);

    /* Where a kernel stores as y_type, that is F32 or BF16 or, where the comment says so, Q8: whole blocks, the last
     * one filled up with zeros. */

    /* y[i] = x[i] * w[i] / sqrt(mean(x^2) + eps), stored as y_type, Q8 too. (Zhang & Sennrich 2019) y may be x
     * where y_type is F32. The mean is accumulated in f32 lanes or better; where it overflows, y is NaN. */
    void (*rms_norm)(size_t n, const float *x, const float *w, float eps, void *y, qwen3_dtype y_type);
    /* y = scale * x, normalised as by rms_norm (not where w is NULL) and then rotated: pairs (x[i], x[i + d/2]) by the
     * angles whose cosines and sines [d/2] are given (Su et al. 2021, in the half-split form). Stored as y_type; y may
     * be x where y_type is F32. */
    void (*norm_rope)(size_t d, const float *x, const float *w, float eps, const float *cosines, const float *sines,
                      float scale, void *y, qwen3_dtype y_type);
    /* y[i] = silu(gate[i]) * up[i], silu(g) = g / (1 + exp(-g)), stored as y_type, Q8 too. Relative error <= 7e-7
     * (f32); where exp(gate) is less than FLT_MIN, any magnitude up to about FLT_MIN |gate up|. Where products of BF16
     * take denormal numbers for 0, such BF16 results may be stored as 0. */
    void (*silu_mul)(size_t n, const float *gate, const float *up, void *y, qwen3_dtype y_type);
    /* x += y. */
    void (*add)(size_t n, float *x, const float *y);
    /* y[i] = x[i] * w[i], stored as y_type. y may be x where y_type is F32. */
    void (*multiply)(size_t n, const float *x, const float *w, void *y, qwen3_dtype y_type);
    /* y[i] = a * x[i], stored as y_type, Q8 too. y may be x where y_type is F32. */
    void (*scale)(size_t n, float a, const float *x, void *y, qwen3_dtype y_type);
    /* Largest of s[0..n); -INFINITY for n = 0. Where s has NaN, NaN or any of the other values. */
    float (*max)(size_t n, const float *s);
    /* p[i] = exp(s[i] - m) stored as p_type; returns the f32 sum of the unrounded values. m is finite, s[i] <= m or
     * so (at most m + 88); s[i] = -INFINITY gives exactly 0, as does what would be less than FLT_MIN. Relative
     * error of each value <= 4e-7 (f32). p may be s where p_type is F32. */
    float (*exp_sum)(size_t n, const float *s, float m, void *p, qwen3_dtype p_type);
    /* Products with row-major f32 as it lies in memory, for keys and values that too few queries read to be worth
     * packing. Any numbers of rows, nothing aligned; no element outside the ranges is read or written. A row's result
     * does not depend on the other rows.
     * dot_rows: y[r, j] = sum_i x[r, i] w[j, i] for x[rows, k], w[n, k]
     * weighted_rows: y[r, i] += sum_j x[r, j] w[j, i] for x[rows, n], w[n, k]; the sum runs upwards, and
     *   splitting n into calls does not change it. */
    void (*dot_rows)(size_t rows, size_t n, size_t k, const float *x, size_t x_stride, const float *w, size_t w_stride,
                     float *y, size_t y_stride);
    void (*weighted_rows)(size_t rows, size_t n, size_t k, const float *x, size_t x_stride, const float *w,
                          size_t w_stride, float *y, size_t y_stride);
    /* y[i] = x[i] converted. Bytes are signed, n of them a multiple of 32, and exact in BF16. */
    void (*to_bf16)(size_t n, const float *x, bf16 *y);
    void (*to_f32)(size_t n, const bf16 *x, float *y);
    void (*bytes_to_bf16)(size_t n, const int8_t *x, bf16 *y);

    /* For measuring limits. Reads every byte of p[0..bytes) (64-byte aligned, multiple of 1 KiB) and
     * returns something that depends on it. */
    uint64_t (*read_memory)(const void *p, size_t bytes);
    /* Multiply-adds from registers only, of the kind that gemm[type] is made of and as many as its instruction can do
     * at a time; returns the number of operations done (2 per multiply-add), about 1e6 per iteration of `n`. */
    uint64_t (*multiply_add[DTYPE_COUNT])(size_t n);
} kernels;

/* The table of a level; AUTO = qwen3_isa_best() lowered by the environment variable QWEN3_ISA. NULL where
 * this CPU or build lacks the level, or where QWEN3_ISA decides and is not the name of a level. Thread-safe. */
const kernels *kernels_get(qwen3_isa isa);
/* The same with an error that says why there is none. */
qwen3_status kernels_choose(qwen3_isa isa, const kernels **k, qwen3_error *err);
/* Checks a type of weights that a caller gives, which may be AUTO. */
qwen3_status dtype_check(qwen3_dtype dtype, qwen3_error *err);
/* The highest level that this CPU has; tables of it and of all that it is built on can be had. */
qwen3_isa kernels_highest(void);
/* The best level that two CPUs have in common, given the best of each, of any architecture; none is AUTO. */
qwen3_isa kernels_common(qwen3_isa a, qwen3_isa b);

/* ---- Over whole matrices (gemm.c) -------------------------------------------------------------- */

/* Bytes of a packed matrix, padding included. */
size_t gemm_packed_bytes(const gemm_kernel *g, size_t n, size_t k);

/* Address of output n (multiple of nr) and value k (multiple of kr) in a packed matrix of depth `depth`. */
const void *gemm_at(const gemm_kernel *g, const void *w, size_t depth, size_t n, size_t k);

/* Row-major values [n, k] of type F32 or BF16. stride in elements. */
typedef struct matrix_rows {
    const void *data;
    qwen3_dtype type;
    size_t stride, n, k;
} matrix_rows;

/* Packs the n <= nr rows of one panel. Converts or quantises where their type differs from g->storage; a block depends
 * on its 32 values alone. Returns false where a value packed is NaN or infinite, in the source already or by conversion
 * (the panel is packed all the same). */
bool gemm_pack_panel(const gemm_kernel *g, const matrix_rows *rows, void *panel); /* not of stored types: stored.h */

/* A whole packed matrix of some kernel with the same storage and kr, but perhaps panels of another height. */
typedef struct packed_matrix {
    const void *data;
    size_t nr, k;
} packed_matrix;

/* Rows [row, row + n) x columns [col, col + k) of a packed matrix. col is a multiple of kr. */
typedef struct packed_part {
    packed_matrix matrix;
    size_t row, n, col, k;
} packed_part;

/* Copies part of a packed matrix, as it is, to the outputs from `at` on of a panel of g with from->k columns
 * (repack.c). */
void gemm_repack_rows(const gemm_kernel *g, const packed_part *from, void *panel, size_t at);

/* Activations that enter a product: x[rows, k] of the kernel's activation type. stride in elements. Rows obey
 * ACTIVATION_PAD. */
typedef struct gemm_input {
    const void *x;
    size_t rows, stride;
} gemm_input;

/* Where outputs go: y[rows, n1 - n0], f32, stride in elements. accumulate: added to y; otherwise y may hold anything
 * before. */
typedef struct gemm_output {
    float *y;
    size_t stride;
    bool accumulate;
} gemm_output;

/* Outputs [n0, n1) and inputs [k0, k1) of W[n, k] packed at w. n0 is a multiple of nr, n1 too or equal to n; k0 a
 * multiple of kr, k1 too or equal to k. next: NULL, or the packed panel that this thread multiplies with afterwards,
 * which is prefetched. */
typedef struct gemm_weights {
    const void *w;
    size_t n, k, n0, n1, k0, k1;
    const void *next;
} gemm_weights;

/* y[rows, n1 - n0] (+)= x[rows, k1 - k0] W[n0..n1, k0..k1]^T on the calling thread. Exactly n1 - n0 columns of each row
 * of y are written. A row's result does not depend on the number of rows. */
void gemm(const gemm_kernel *g, const gemm_weights *w, const gemm_input *x, const gemm_output *y);

#endif
