/* test_gemm.c - packing, tiles, blocks and products of every level that this CPU has, and of AMX emulated, against
 * float64, on data chosen to hurt.
 *
 * Arrays lie before or behind an inaccessible page, so that an access outside of them ends the program.
 * Bounds are those of the arithmetic. The seed is printed; QWEN3_TEST_SEED sets it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernels/blocks.h"
#include "support/cases.h"
#include "support/levels.h"

/* ---- Matrix products --------------------------------------------------------------------------- */

static float load_as(qwen3_dtype type, const void *p, size_t i)
{
    if (type == QWEN3_DTYPE_BF16) {
        bf16 h;
        memcpy(&h, (const unsigned char *)p + i * sizeof h, sizeof h);
        return bf16_to_f32(h);
    }
    float x;
    memcpy(&x, (const unsigned char *)p + i * sizeof x, sizeof x);
    return x;
}

static void store_as(qwen3_dtype type, void *p, size_t i, float x)
{
    const bf16 h = f32_to_bf16(x);
    memcpy((unsigned char *)p + i * dtype_size(type), type == QWEN3_DTYPE_BF16 ? (const void *)&h : (const void *)&x,
           dtype_size(type));
}

/* Runs of the largest value of either sign: blocks of them have the largest sums that there can be. */
static float random_ends(void)
{
    static float value = 1.0f;
    if (random_below(500) == 0)
        value = -value;
    return value;
}

/* The place of each of eight i in a block of activations. */
static const size_t activation_place[8] = {0, 2, 4, 6, 1, 3, 5, 7};

/* Value i of activations. */
static float load_activation(qwen3_dtype type, const unsigned char *x, size_t i)
{
    if (type != QWEN3_DTYPE_Q8)
        return load_as(type, x, i);
    const unsigned char *block = x + i / 32 * 40;
    return load_as(QWEN3_DTYPE_F32, block, 0) * (float)(int8_t)block[8 + i % 32 / 8 * 8 + activation_place[i % 8]];
}

/* n of them from the first of x on. */
static void draw_activations(qwen3_dtype type, unsigned char *x, size_t n, random_float draw)
{
    for (size_t i = 0; i < n && type != QWEN3_DTYPE_Q8; i++)
        store_as(type, x, i, draw());
    for (size_t i = 0; i < n && type == QWEN3_DTYPE_Q8; i += 32) {
        float block[32] = {0};
        for (size_t j = 0; j < 32 && i + j < n; j++)
            block[j] = draw();
        activation_store_block(block, x + i / 32 * 40);
    }
}

static void test_activation_blocks(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int round = 0; round < 2000; round++) {
        const float size = (float)ldexp(1, (int)random_below(200) - 90);
        float x[32], largest = 0;
        unsigned char block[40];
        for (size_t i = 0; i < 32; i++) {
            x[i] = round % 7 ? size * random_plain() : random_below(20) ? 0.0f : size;
            largest = fmaxf(largest, fabsf(x[i]));
        }
        activation_store_block(x, block);
        int32_t sum = 0, start;
        for (size_t i = 0; i < 32; i++) {
            const float got = load_activation(QWEN3_DTYPE_Q8, block, i);
            check_close("activation block", "all", 32, i, got, x[i], 0.50001 * (double)largest / 127 + 0x1p-100);
            assert_int_equal(activation_offset(i), 8 + i / 8 * 8 + activation_place[i % 8]);
            assert_int_not_equal((int8_t)block[8 + i], -128);
            sum += (int8_t)block[8 + i];
        }
        memcpy(&start, block + 4, sizeof start);
        assert_int_equal(start, -128 * sum);
        x[random_below(32)] = bad[round % 3];
        activation_store_block(x, block);
        assert_false(isfinite(load_as(QWEN3_DTYPE_F32, block, 0)));
    }
}

/* y0 + sum_i x_i w_i and a bound on the error of computing it in f32 in any order: each term takes part in
 * at most k + 1 roundings of its product and of sums, or, where terms are added in pairs, in k / 2 + 1 of up to
 * 2 u (BFDOT rounds to odd). BF16 instructions may take denormals for 0. */
typedef struct dot {
    double value, bound;
} dot;

static dot dot_begin(float y0)
{
    return (dot){(double)y0, fabs((double)y0)};
}

static void dot_add(dot *d, float x, float w, double *flushed)
{
    const double product = (double)x * (double)w;
    d->value += product;
    d->bound += fabs(product);
    if (fpclassify(x) == FP_SUBNORMAL || fpclassify(w) == FP_SUBNORMAL)
        *flushed += fabs(product);
    *flushed += (double)FLT_MIN;
}

static double dot_bound(const dot *d, size_t k, double flushed)
{
    return 1.001 * (double)(k + 2) * U * d->bound + flushed;
}

/* The place of element (j, i) of W[n, k] of F32 or BF16, as kernels.h says. */
static size_t packed_index(const gemm_kernel *g, size_t k, size_t j, size_t i)
{
    const size_t nr = (size_t)g->nr, kr = (size_t)g->kr;
    const size_t panel = (k + kr - 1) / kr * kr * nr;
    return j / nr * panel + ((i / kr) * nr + j % nr) * kr + i % kr;
}

static const unsigned char *packed_group(const gemm_kernel *g, const void *w, size_t k, size_t j, size_t i)
{
    const size_t nr = (size_t)g->nr, kr = (size_t)g->kr, groups = (k + kr - 1) / kr;
    return (const unsigned char *)w + (j / nr * groups + i / kr) * nr * (size_t)g->group_bytes;
}

/* The scale of the block of (j, i), as blocks.h says. */
static float packed_scale(const gemm_kernel *g, const void *w, size_t k, size_t j, size_t i)
{
    return load_as(QWEN3_DTYPE_BF16, packed_group(g, w, k, j, i), j % (size_t)g->nr);
}

/* Element (j, i) of a packed W[n, k]. */
static float packed_value(const gemm_kernel *g, const void *w, size_t k, size_t j, size_t i)
{
    if (g->storage < ELEMENT_TYPES)
        return load_as(g->storage, w, packed_index(g, k, j, i));
    const size_t nr = (size_t)g->nr, place = i % 32;
    const unsigned char *q = packed_group(g, w, k, j, i) + 2 * nr;
    const float scale = packed_scale(g, w, k, j, i);
    if (g->storage == QWEN3_DTYPE_Q8)
        return scale * (float)(int8_t)q[(place / 2 * nr + j % nr) * 2 + place % 2];
    /* Four bytes of an output hold 0 and 2, 4 and 6, 1 and 3, 5 and 7. */
    static const unsigned char byte[8] = {0, 2, 0, 2, 1, 3, 1, 3}, high[8] = {0, 0, 1, 1, 0, 0, 1, 1};
    const unsigned char codes = q[(place / 8 * nr + j % nr) * 4 + byte[place % 8]];
    return scale * (float)q4_values[high[place % 8] ? codes >> 4 : codes & 15];
}

/* Fills a packed panel: of blocks the scales are drawn and the q are random bits, or the ends of their range. */
static void fill_panel(const gemm_kernel *g, size_t k_groups, unsigned char *w, random_float draw)
{
    const size_t nr = (size_t)g->nr, group_bytes = nr * (size_t)g->group_bytes;
    const size_t drawn = g->storage < ELEMENT_TYPES ? group_bytes / dtype_size(g->storage) : nr;
    static const unsigned char q8_ends[] = {0x7f, 0x81}, q4_ends[] = {0xff, 0x00}; /* positive, negative */
    const unsigned char *ends = g->storage == QWEN3_DTYPE_Q4 ? q4_ends : q8_ends;
    for (size_t group = 0; group < k_groups; group++, w += group_bytes) {
        for (size_t i = 0; i < group_bytes; i++)
            w[i] = draw == random_ends ? ends[random_ends() < 0.0f] : (unsigned char)random_bits();
        for (size_t i = 0; i < drawn; i++)
            store_as(g->storage < ELEMENT_TYPES ? g->storage : QWEN3_DTYPE_BF16, w, i, draw());
    }
}

static void check_tile(const kernels *k, const gemm_kernel *g, size_t k_groups, bool accumulate, bool at_start,
                       random_float draw)
{
    const size_t nr = (size_t)g->nr, depth = k_groups * (size_t)g->kr, gap = random_below(5);
    const size_t mr = (size_t)g->mr, y_stride = nr + gap;
    const size_t x_stride = depth + random_below(3) * (g->activation == QWEN3_DTYPE_Q8 ? BLOCK : 1);
    fenced fx, fw;
    unsigned char *x = fence(&fx, activation_bytes(g->activation, (mr - 1) * x_stride + depth), at_start);
    void *w = fence(&fw, k_groups * nr * (size_t)g->group_bytes, at_start);
    draw_activations(g->activation, x, (mr - 1) * x_stride + depth, draw);
    fill_panel(g, k_groups, w, draw);
    float *start = malloc(mr * nr * sizeof(float)), *first = malloc(mr * nr * sizeof(float));
    fill_nasty(start, mr * nr);
    size_t seen = mr;
    for (size_t rows = 1; rows <= mr; rows += rows < 8 || rows == mr ? 1 : 1 + random_below(mr - rows)) {
        const size_t skip = mr - rows; /* other rows beside the last one each time */
        fenced fy;
        float *y = fence(&fy, ((rows - 1) * y_stride + nr) * sizeof(float), at_start);
        for (size_t r = 0; r < rows; r++)
            for (size_t j = 0; j < nr; j++)
                y[r * y_stride + j] = accumulate ? start[(r + skip) * nr + j] : NAN;
        g->tile((int)rows, k_groups, x + activation_bytes(g->activation, skip * x_stride), x_stride, w, y, y_stride,
                accumulate, NULL);
        assert_false(test_level_holds_tiles());
        for (size_t r = 0; r < rows; r++) {
            for (size_t j = 0; j < nr; j++) {
                float *got = &y[r * y_stride + j], *before = &first[(r + skip) * nr + j];
                if (r + skip < seen) { /* this row has not been seen before */
                    double flushed = 0;
                    dot d = dot_begin(accumulate ? start[(r + skip) * nr + j] : 0.0f);
                    for (size_t i = 0; i < depth; i++)
                        dot_add(&d, load_activation(g->activation, x, (r + skip) * x_stride + i),
                                packed_value(g, w, depth, j, i), &flushed);
                    check_close("tile", k->name, depth, j, *got, d.value, dot_bound(&d, depth, flushed));
                    *before = *got;
                } else {
                    assert_memory_equal(got, before, sizeof *got);
                }
            }
            for (size_t j = nr; j < y_stride && r + 1 < rows; j++) {
                unsigned char gap_bytes[sizeof(float)];
                memset(gap_bytes, FILLER, sizeof gap_bytes);
                assert_memory_equal(&y[r * y_stride + j], gap_bytes, sizeof gap_bytes);
            }
        }
        seen = skip;
        unfence(&fy);
    }
    free(start);
    free(first);
    unfence(&fx);
    unfence(&fw);
}

static void test_tile(void **state)
{
    (void)state;
    static const size_t depths[] = {0, 1, 2, 3, 7, 16, 33, 130};
    static const int kr[DTYPE_COUNT] = {1, 2, 32, 32}, group_bytes[DTYPE_COUNT] = {4, 4, 34, 18};
    static const random_float draws[] = {random_plain, random_nasty, random_ends};
    FOR_EACH_LEVEL(k)
    {
        for (int type = 0; type < DTYPE_COUNT; type++) {
            const gemm_kernel *g = &k->gemm[type];
            assert_int_equal(g->storage, type);
            assert_true(g->mr <= GEMM_MOST_ROWS);
            assert_int_equal(GEMM_MOST_OUTPUTS % g->nr, 0);
            assert_int_equal(g->kr, kr[type]);
            assert_int_equal(g->group_bytes, group_bytes[type]);
            for (size_t i = 0; g->tile && i < COUNT(depths) * 12; i++)
                check_tile(k, g, depths[i / 12] / (type < ELEMENT_TYPES ? 1 : 8), i & 1, i & 2, draws[i / 4 % 3]);
        }
    }
}

/* The same bits as the tile of BF16 with the bytes expanded. */
static void check_bytes(const kernels *k, int rows, size_t k_groups, bool accumulate, bool at_start)
{
    const gemm_kernel *g = &k->bytes, *expanded = &k->gemm[QWEN3_DTYPE_BF16];
    const size_t nr = (size_t)g->nr, depth = k_groups * (size_t)g->kr, n = nr * depth;
    float y[GEMM_MOST_ROWS * GEMM_MOST_OUTPUTS], expected[GEMM_MOST_ROWS * GEMM_MOST_OUTPUTS];
    fenced fx, fw, fp;
    unsigned char *x = fence(&fx, (size_t)rows * depth * dtype_size(g->activation), at_start);
    int8_t *w = fence(&fw, n, at_start);
    bf16 *panel = fence(&fp, n * sizeof *panel, at_start);
    draw_activations(g->activation, x, (size_t)rows * depth, random_plain);
    for (size_t i = 0; i < n; i++) {
        w[i] = (int8_t)(random_below(4) ? (int)random_below(255) - 127 : 127 - 254 * (int)random_below(2));
        panel[i] = f32_to_bf16((float)w[i]);
    }
    for (size_t i = 0; i < (size_t)rows * nr; i++)
        y[i] = expected[i] = random_plain();
    g->tile(rows, k_groups, x, depth, w, y, nr, accumulate, NULL);
    expanded->tile(rows, k_groups, x, depth, panel, expected, nr, accumulate, NULL);
    assert_memory_equal(y, expected, (size_t)rows * nr * sizeof *y);
    unfence(&fx);
    unfence(&fw);
    unfence(&fp);
}

static void test_bytes_tile(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(k)
    {
        const gemm_kernel *g = &k->bytes;
        if (!g->tile || (k->below && k->below->bytes.tile == g->tile))
            continue; /* none, or that of the level below */
        assert_int_equal(g->activation, k->gemm[QWEN3_DTYPE_BF16].activation);
        assert_int_equal(g->mr, k->gemm[QWEN3_DTYPE_BF16].mr);
        assert_int_equal(g->nr, k->gemm[QWEN3_DTYPE_BF16].nr);
        assert_int_equal(g->kr, 2);
        assert_int_equal(g->group_bytes, 2);
        for (int rows = 1; rows <= g->mr; rows++)
            for (size_t k_groups = 0; k_groups < 40; k_groups += 1 + random_below(8))
                check_bytes(k, rows, k_groups, random_below(2), random_below(2));
    }
}

/* What few rows are left to gives the same bits, for sums that it starts or goes on with, and alone or beside others.
 */
static void check_few(const kernels *k, const gemm_kernel *g, size_t rows, size_t k_groups, bool accumulate,
                      random_float draw)
{
    const gemm_kernel *few = g->few;
    const size_t nr = (size_t)g->nr, depth = k_groups * (size_t)g->kr, gap = random_below(5);
    const size_t x_stride = depth + random_below(3) * (g->activation == QWEN3_DTYPE_Q8 ? BLOCK : 1);
    const bool at_start = random_below(2);
    fenced fx, fw, fy;
    unsigned char *x = fence(&fx, activation_bytes(g->activation, (rows - 1) * x_stride + depth), at_start);
    unsigned char *w = fence(&fw, k_groups * nr * (size_t)g->group_bytes, at_start);
    float *y = fence(&fy, ((rows - 1) * (nr + gap) + nr) * sizeof *y, at_start);
    float expected[GEMM_MOST_ROWS * GEMM_MOST_OUTPUTS];
    draw_activations(g->activation, x, (rows - 1) * x_stride + depth, draw);
    fill_panel(g, k_groups, w, draw);
    fill_nasty(expected, rows * nr);
    for (size_t r = 0; r < rows; r++)
        memcpy(y + r * (nr + gap), expected + r * nr, nr * sizeof *y);
    g->tile((int)rows, k_groups, x, x_stride, w, expected, nr, accumulate, NULL);
    gemm_prefetch prefetch = {(const char *)w, 128, 1 + (int)random_below(2)};
    few->tile((int)rows, k_groups, x, x_stride, w, y, nr + gap, accumulate, random_below(2) ? &prefetch : NULL);
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < nr; j++) {
            const float got = y[r * (nr + gap) + j], want = expected[r * nr + j];
            if (memcmp(&got, &want, sizeof got) != 0 && !(isnan(got) && isnan(want)))
                fail_msg("%s %s: few rows: row %zu, output %zu of depth %zu: got %a, expected %a", k->name,
                         qwen3_dtype_name(g->storage), r, j, depth, (double)got, (double)want);
        }
    unfence(&fx);
    unfence(&fw);
    unfence(&fy);
}

static void test_few_rows(void **state)
{
    (void)state;
    static const random_float draws[] = {random_plain, random_nasty, random_ends};
    FOR_EACH_LEVEL(k)
    {
        for (int type = 0; type < DTYPE_COUNT; type++) {
            const gemm_kernel *g = &k->gemm[type], *few = g->few;
            if (!few)
                continue;
            assert_true(few->storage == g->storage && few->activation == g->activation && few->nr == g->nr &&
                        few->kr == g->kr && few->group_bytes == g->group_bytes && g->few_rows <= 24);
            for (size_t rows = 1; rows <= (size_t)few->mr; rows++)
                for (size_t i = 0; i < 24; i++)
                    check_few(k, g, rows, random_below(type < ELEMENT_TYPES ? 70 : 6), i & 1, draws[i / 2 % 3]);
        }
    }
}

/* Infinities and NaN reach exactly the outputs that they enter. */
static void test_tile_not_finite(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(k)
    {
        for (int type = 0; type < ELEMENT_TYPES; type++) {
            const gemm_kernel *g = &k->gemm[type];
            const size_t nr = (size_t)g->nr, depth = 8;
            float x[8], y[64];
            unsigned char w[64 * 8 * sizeof(float)];
            unsigned char xs[8 * sizeof(float)];
            for (size_t i = 0; i < depth; i++) {
                x[i] = 1.0f;
                store_as(g->activation, xs, i, x[i]);
            }
            for (size_t i = 0; i < nr * depth; i++)
                store_as(g->storage, w, i, 1.0f);
            store_as(g->storage, w, packed_index(g, depth, 3, 5), NAN);
            store_as(g->storage, w, packed_index(g, depth, 4, 2), INFINITY);
            g->tile(1, depth / (size_t)g->kr, xs, depth, w, y, nr, false, NULL);
            for (size_t j = 0; j < nr; j++) {
                if (j == 3)
                    assert_true(isnan(y[j]));
                else
                    assert_true(y[j] == (j == 4 ? INFINITY : 8.0f));
            }
        }
    }
}

/* A row-major matrix and its packed copy. */
typedef struct matrix {
    size_t n, k, stride;
    qwen3_dtype type;
    fenced src, packed;
} matrix;

/* Packs panel p. */
static bool matrix_pack(const matrix *m, const gemm_kernel *g, size_t p)
{
    const size_t nr = (size_t)g->nr, left = m->n - p * nr;
    const unsigned char *data = m->src.data + p * nr * m->stride * dtype_size(m->type);
    return gemm_pack_panel(g, &(matrix_rows){data, m->type, m->stride, left < nr ? left : nr, m->k},
                           m->packed.data + p * gemm_packed_bytes(g, nr, m->k));
}

static bool matrix_make(matrix *m, const gemm_kernel *g, size_t n, size_t k, qwen3_dtype type, bool at_start,
                        random_float draw)
{
    *m = (matrix){.n = n, .k = k, .stride = k + random_below(4), .type = type};
    unsigned char *src = fence(&m->src, ((n - 1) * m->stride + k) * dtype_size(type), at_start);
    for (size_t i = 0; i < m->src.bytes / dtype_size(type); i++)
        store_as(type, src, i, draw());
    fence(&m->packed, gemm_packed_bytes(g, n, k), at_start);
    bool finite = true;
    for (size_t p = 0; p * (size_t)g->nr < n; p++)
        finite &= matrix_pack(m, g, p);
    return finite;
}

static void matrix_free(matrix *m)
{
    unfence(&m->src);
    unfence(&m->packed);
}

/* The value that the packed copy must hold; of blocks, what it does hold (test_pack_blocks says how good that is). */
static float matrix_at(const matrix *m, const gemm_kernel *g, size_t j, size_t i)
{
    if (g->storage >= ELEMENT_TYPES)
        return packed_value(g, m->packed.data, m->k, j, i);
    const float x = load_as(m->type, m->src.data, j * m->stride + i);
    return g->storage == QWEN3_DTYPE_BF16 ? bf16_to_f32(f32_to_bf16(x)) : x;
}

static void test_pack(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(k)
    {
        for (int round = 0; round < 40; round++) {
            const gemm_kernel *g = &k->gemm[round % 2];
            const size_t nr = (size_t)g->nr, kr = (size_t)g->kr;
            matrix m;
            assert_true(matrix_make(&m, g, 1 + random_below(150), 1 + random_below(300), (qwen3_dtype)(round / 2 % 2),
                                    round & 4, random_nasty));
            const size_t rows = (m.n + nr - 1) / nr * nr, cols = (m.k + kr - 1) / kr * kr;
            assert_int_equal(gemm_packed_bytes(g, m.n, m.k), rows * cols * dtype_size(g->storage));
            for (size_t j = 0; j < rows; j++) {
                for (size_t i = 0; i < cols; i++) {
                    const float expected = j < m.n && i < m.k ? matrix_at(&m, g, j, i) : 0.0f;
                    const float got = load_as(g->storage, m.packed.data, packed_index(g, m.k, j, i));
                    assert_memory_equal(&got, &expected, sizeof got);
                }
            }
            /* One bad value anywhere is seen, in its panel only. */
            static const float bad[] = {NAN, INFINITY, -INFINITY};
            const size_t at = random_below(m.n), panel = at / nr;
            store_as(m.type, m.src.data, at * m.stride + random_below(m.k), bad[random_below(COUNT(bad))]);
            for (size_t p = 0; p * nr < m.n; p++)
                assert_int_equal(matrix_pack(&m, g, p), p != panel);
            matrix_free(&m);
        }
    }
}

/* Blocks of normally distributed values, one in eight of any size, zero or alone in its block. */
static void fill_weights(const matrix *m)
{
    for (size_t i = 0; i < m->src.bytes / dtype_size(m->type); i++) {
        double sum = 0;
        for (int u = 0; u < 12; u++)
            sum += random_unit();
        store_as(m->type, m->src.data, i, (float)(0.03 * (sum - 6)));
    }
    for (size_t j = 0; j < m->n; j += 8) {
        const float factor = (float[]){0.0f, 1e-38f, 1e30f, -1e-20f}[j / 8 % 4];
        for (size_t i = 0; i < m->k; i++) {
            const float x = load_as(m->type, m->src.data, j * m->stride + i);
            store_as(m->type, m->src.data, j * m->stride + i, i % 64 < 32 ? factor * x : i % 64 == 40 ? x : 0.0f);
        }
    }
}

/* Sums over one block: squares of the values, of what the packed copy makes of them, and of what rounding to
 * multiples of the largest value / 7 would. */
static void block_errors(const matrix *m, const gemm_kernel *g, size_t j, size_t i0, double error[3])
{
    const size_t end = i0 + 32 < m->k ? i0 + 32 : m->k;
    double largest = 0;
    error[0] = error[1] = error[2] = 0;
    for (size_t i = i0; i < end; i++)
        largest = fmax(largest, fabs((double)load_as(m->type, m->src.data, j * m->stride + i)));
    for (size_t i = i0; i < end; i++) {
        const double x = (double)load_as(m->type, m->src.data, j * m->stride + i);
        const double got = x - (double)packed_value(g, m->packed.data, m->k, j, i);
        const double plain = largest > 0 ? x - rint(x / largest * 7) * largest / 7 : 0;
        error[0] += x * x;
        error[1] += got * got;
        error[2] += plain * plain;
        /* Q8: half a step, and what the rounded scale leaves over. */
        if (g->storage == QWEN3_DTYPE_Q8 && largest >= 0x1p-100)
            check_close("q8", "pack", m->k, i, got, 0, largest / 127 * 0.51);
    }
}

static void test_pack_blocks(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(k)
    {
        for (int round = 0; round < 8; round++) {
            const gemm_kernel *g = &k->gemm[round & 1 ? QWEN3_DTYPE_Q8 : QWEN3_DTYPE_Q4];
            const size_t nr = (size_t)g->nr, group_bytes = nr * (size_t)g->group_bytes;
            matrix m;
            matrix_make(&m, g, 60 + random_below(90), 200 + random_below(300), (qwen3_dtype)(round / 2 % 2), round & 4,
                        random_plain);
            fill_weights(&m);
            const size_t panel = gemm_packed_bytes(g, nr, m.k), size = dtype_size(m.type);
            assert_int_equal(panel, (m.k + 31) / 32 * group_bytes);
            for (size_t p = 0; p * nr < m.n; p++)
                assert_true(matrix_pack(&m, g, p));
            double all[3] = {0};
            for (size_t j = 0; j < m.n; j++) {
                for (size_t i = 0; i < m.k; i += 32) {
                    double error[3];
                    block_errors(&m, g, j, i, error);
                    /* A block of one value, and of none. */
                    if (j % 8 == 0 && error[1] > 1e-3 * error[0] && i % 64 == 32)
                        fail_msg("%s: lone value: relative error %g", k->name, sqrt(error[1] / error[0]));
                    for (size_t e = 0; j % 8 && e < 3; e++)
                        all[e] += error[e];
                }
            }
            const double relative = sqrt(all[1] / all[0]), plain = sqrt(all[2] / all[0]);
            const bool good =
                g->storage == QWEN3_DTYPE_Q8 ? relative <= 6e-3 : relative <= 0.078 && relative <= 0.8 * plain;
            if (!good)
                fail_msg("%s: relative error %g, plain rounding to 4 bits %g", k->name, relative, plain);
            for (size_t j = m.n; j < (m.n + nr - 1) / nr * nr; j++)
                for (size_t i = 0; i < m.k; i++)
                    assert_true(packed_value(g, m.packed.data, m.k, j, i) == 0.0f);
            /* Columns from a multiple of 32 on, packed alone, are the same blocks. */
            const size_t skipped = 32 * (1 + random_below(5));
            fenced f;
            unsigned char *part = fence(&f, gemm_packed_bytes(g, nr, m.k - skipped), round & 1);
            gemm_pack_panel(
                g, &(matrix_rows){m.src.data + skipped * size, m.type, m.stride, m.n < nr ? m.n : nr, m.k - skipped},
                part);
            assert_memory_equal(part, m.packed.data + skipped / 32 * group_bytes, f.bytes);
            /* One bad value is seen, in its panel only. */
            static const float bad[] = {NAN, INFINITY, -INFINITY};
            const size_t at = random_below(m.n);
            store_as(m.type, m.src.data, at * m.stride + random_below(m.k), bad[random_below(COUNT(bad))]);
            for (size_t p = 0; p * nr < m.n; p++)
                assert_int_equal(matrix_pack(&m, g, p), p != at / nr);
            unfence(&f);
            matrix_free(&m);
        }
    }
}

/* Rows of a matrix with panels of one height, in a panel of another: each value as it was, the other outputs untouched.
 */
static void check_repack(const gemm_kernel *from, const gemm_kernel *to)
{
    const size_t kr = (size_t)from->kr, n = 1 + random_below(100), groups = 1 + random_below(6);
    const size_t first_group = random_below(groups), from_k = first_group * kr;
    const size_t depth = groups * kr - random_below(kr), k = depth - from_k;
    const size_t nr = (size_t)to->nr, at = random_below(nr);
    size_t rows = 1 + random_below(nr - at);
    const size_t from_row = random_below(n);
    rows = rows < n - from_row ? rows : n - from_row;
    fenced fs, fp;
    unsigned char *src = fence(&fs, gemm_packed_bytes(from, n, depth), random_below(2));
    const size_t src_panel = gemm_packed_bytes(from, (size_t)from->nr, depth);
    for (size_t offset = 0; offset < fs.bytes; offset += src_panel)
        fill_panel(from, groups, src + offset, random_plain);
    unsigned char *panel = fence(&fp, gemm_packed_bytes(to, nr, k), random_below(2)), *before = malloc(fp.bytes);
    fill_panel(to, groups - first_group, panel, random_plain);
    memcpy(before, panel, fp.bytes);
    const packed_part part = {{src, (size_t)from->nr, depth}, from_row, rows, from_k, k};
    gemm_repack_rows(to, &part, panel, at);
    for (size_t j = 0; j < nr; j++) {
        const bool copied = at <= j && j < at + rows;
        for (size_t i = 0; i < k; i++) {
            const float expected = copied ? packed_value(from, src, depth, from_row + j - at, from_k + i)
                                          : packed_value(to, before, k, j, i);
            const float got = packed_value(to, panel, k, j, i);
            if (memcmp(&got, &expected, sizeof got) != 0)
                fail_msg("%s, panels of %d from %d: output %zu (%s), value %zu: got %g, expected %g",
                         qwen3_dtype_name(to->storage), to->nr, from->nr, j, copied ? "copied" : "another's", i,
                         (double)got, (double)expected);
        }
    }
    free(before);
    unfence(&fs);
    unfence(&fp);
}

static void test_repack(void **state)
{
    (void)state;
    static const int heights[] = {1, 8, 16, 32, 64};
    for (int type = 0; type < DTYPE_COUNT; type++) {
        for (size_t i = 0; i < COUNT(heights) * COUNT(heights) * 20; i++) {
            gemm_kernel from = kernels_get(QWEN3_ISA_C)->gemm[type], to = from;
            from.nr = heights[i % COUNT(heights)];
            to.nr = heights[i / COUNT(heights) % COUNT(heights)];
            check_repack(&from, &to);
        }
    }
}

/* Blocks with ties of every rounding, equal candidates, lone values, and the ends of the range. */
static void fill_block(float *x)
{
    const size_t kind = random_below(8);
    const float scale = ldexpf(1.0f + (float)random_unit(), (int)random_below(240) - 120);
    for (size_t i = 0; i < BLOCK; i++) {
        const float halves = 0.5f * (float)((int)random_below(521) - 260);
        x[i] = kind == 0   ? scale * (float)q4_values[random_below(16)]
               : kind == 1 ? halves
               : kind == 2 ? ldexpf(halves, -98) /* about the least magnitude */
               : kind == 3 ? (random_below(BLOCK) ? 0.0f : scale)
               : kind == 4 ? (random_bits() & 1 ? scale : -scale)
               : kind == 5 ? bf16_to_f32(f32_to_bf16(random_plain()))
                           : scale * random_plain();
    }
    if (kind == 7)
        x[random_below(BLOCK)] = random_bits() & 1 ? FLT_MAX : -FLT_MAX;
}

/* All levels quantise to the bits of plain C. */
static void test_quantise(void **state)
{
    (void)state;
    const kernels *plain = kernels_get(QWEN3_ISA_C);
    FOR_EACH_LEVEL(k)
    {
        for (int round = 0; round < 40000; round++) {
            const qwen3_dtype type = round & 1 ? QWEN3_DTYPE_Q8 : QWEN3_DTYPE_Q4;
            assert_ptr_equal(k->gemm[type].quantise, k->quantise[type]);
            float x[BLOCK];
            int8_t q[BLOCK], expected[BLOCK];
            bf16 scale, expected_scale;
            fill_block(x);
            const bool finite = k->quantise[type](x, &scale, q);
            if (finite != plain->quantise[type](x, &expected_scale, expected) || scale != expected_scale)
                fail_msg("%s %s: round %d: scale %04x, expected %04x", k->name, qwen3_dtype_name(type), round, scale,
                         expected_scale);
            for (size_t i = 0; i < BLOCK; i++)
                if (q[i] != expected[i])
                    fail_msg("%s %s: round %d: value %zu is %a: got %d, expected %d", k->name, qwen3_dtype_name(type),
                             round, i, (double)x[i], q[i], expected[i]);
        }
    }
}

/* Expanded panels are scale * q, or the value, exactly, in the layout of the kernel that multiplies with them. */
static void test_expand(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(k)
    {
        for (int round = 0; round < 24; round++) {
            const gemm_kernel *g = &k->gemm[1 + round % 3], *to = g->expanded;
            assert_true(g->tile || g->expand);
            assert_int_equal(to != NULL, g->expand != NULL);
            if (!g->expand)
                continue;
            assert_int_equal(to->nr, g->nr);
            assert_int_equal(to->activation, g->activation);
            if (to->storage != QWEN3_DTYPE_F32)
                continue; /* an order of the level's own, which its products test */
            const size_t nr = (size_t)g->nr, k_groups = 1 + random_below(9), depth = (size_t)g->kr * k_groups;
            assert_ptr_equal(to->tile, k->gemm[to->storage].tile); /* inherited entries name that of the level below */
            fenced fw, fp;
            unsigned char *w = fence(&fw, k_groups * nr * (size_t)g->group_bytes, round & 2);
            fill_panel(g, k_groups, w, round & 4 ? random_nasty : random_plain);
            void *panel = fence(&fp, gemm_packed_bytes(to, nr, depth), round & 2);
            g->expand(k_groups, w, panel);
            for (size_t j = 0; j < nr; j++) {
                for (size_t i = 0; i < depth; i++) {
                    const float expected = packed_value(g, w, depth, j, i), got = packed_value(to, panel, depth, j, i);
                    if (got != expected)
                        fail_msg("%s: output %zu, value %zu: got %g, expected %g", k->name, j, i, (double)got,
                                 (double)expected);
                }
            }
            unfence(&fw);
            unfence(&fp);
        }
    }
}

/* x[rows, k] in rows that obey ACTIVATION_PAD, values behind k zero. */
static unsigned char *make_activation(const gemm_kernel *g, size_t rows, size_t k, size_t stride, random_float draw)
{
    unsigned char *x = calloc(activation_bytes(g->activation, rows * stride) + 1, 1);
    for (size_t r = 0; r < rows; r++)
        draw_activations(g->activation, x + activation_bytes(g->activation, r * stride), k, draw);
    return x;
}

/* y[m, n] = x W^T. */
static void check_products(const kernels *k, const gemm_kernel *g, const matrix *w, const gemm_input *x,
                           const gemm_output *y)
{
    for (size_t r = 0; r < x->rows; r++) {
        for (size_t j = 0; j < w->n; j++) {
            double flushed = 0;
            dot d = dot_begin(0.0f);
            for (size_t i = 0; i < w->k; i++)
                dot_add(&d, load_activation(g->activation, x->x, r * x->stride + i), matrix_at(w, g, j, i), &flushed);
            check_close("gemm", k->name, w->k, r * w->n + j, y->y[r * y->stride + j], d.value,
                        dot_bound(&d, w->k, flushed));
        }
    }
}

static void check_gemm(const kernels *k, const gemm_kernel *g, size_t m, size_t n, size_t depth, random_float draw)
{
    matrix w;
    assert_true(matrix_make(&w, g, n, depth, (qwen3_dtype)random_below(2), random_below(2), draw));
    const size_t stride = (depth + ACTIVATION_PAD - 1) / ACTIVATION_PAD * ACTIVATION_PAD;
    const size_t y_stride = n + random_below(3), kr = (size_t)g->kr, nr = (size_t)g->nr;
    unsigned char *x = make_activation(g, m, depth, stride, draw);
    fenced fy, fz;
    float *y = fence(&fy, ((m - 1) * y_stride + n) * sizeof(float), false);
    const gemm_weights whole = {w.packed.data, n, depth, 0, n, 0, depth, NULL};
    const gemm_input input = {x, m, stride};
    gemm(g, &whole, &input, &(gemm_output){y, y_stride, false});
    check_products(k, g, &w, &input, &(gemm_output){y, y_stride, false});
    /* The same out of two parts along n and two along k, the second added to the first: where k is split at a multiple
     * of ACTIVATION_PAD, the same bits. */
    const size_t grain = random_below(2) ? ACTIVATION_PAD : kr;
    const size_t n_split = random_below((n + nr - 1) / nr) * nr,
                 k_split = random_below((depth + grain - 1) / grain) * grain;
    float *z = fence(&fz, ((m - 1) * y_stride + n) * sizeof(float), true);
    const size_t n_ends[3] = {0, n_split, n}, k_ends[3] = {0, k_split, depth};
    for (size_t a = 0; a < 2; a++) {
        for (size_t b = 0; b < 2; b++) {
            /* The second half's x as the caller has it who owns only these columns. */
            const size_t k0 = k_ends[b], k1 = k_ends[b + 1];
            const qwen3_dtype type = g->activation;
            const size_t columns = type == QWEN3_DTYPE_Q8 ? (k1 - k0 + BLOCK - 1) / BLOCK * BLOCK : k1 - k0;
            unsigned char *part = calloc(activation_bytes(type, m * stride) + 1, 1);
            for (size_t r = 0; r < m; r++)
                memcpy(part + activation_bytes(type, r * stride), x + activation_bytes(type, r * stride + k0),
                       activation_bytes(type, columns));
            gemm(g, &(gemm_weights){w.packed.data, n, depth, n_ends[a], n_ends[a + 1], k0, k1, NULL},
                 &(gemm_input){part, m, stride}, &(gemm_output){z + n_ends[a], y_stride, b > 0});
            free(part);
        }
    }
    for (size_t r = 0; r < m && k_split % ACTIVATION_PAD == 0; r++)
        assert_memory_equal(z + r * y_stride, y + r * y_stride, n * sizeof(float));
    check_products(k, g, &w, &input, &(gemm_output){z, y_stride, false});
    /* A row does not depend on the others. */
    const size_t row = random_below(m);
    float *alone = malloc(n * sizeof(float));
    gemm(g, &whole, &(gemm_input){x + activation_bytes(g->activation, row * stride), 1, stride},
         &(gemm_output){alone, n, false});
    assert_memory_equal(alone, y + row * y_stride, n * sizeof(float));
    free(alone);
    free(x);
    unfence(&fy);
    unfence(&fz);
    matrix_free(&w);
}

/* Every number of rows, around those of tiles: the rows of the largest product. */
static void test_numbers_of_rows(void **state)
{
    (void)state;
    enum { MOST = 290 }; /* more than pass by together at any level */
    FOR_EACH_LEVEL(k)
    {
        for (int type = 0; type < DTYPE_COUNT; type++) {
            const gemm_kernel *g = &k->gemm[type];
            if (!g->panel)
                continue;
            for (size_t depth = 31; depth < 700; depth += 300) {
                const size_t n = 65 + random_below(60), stride = (depth + 31) / 32 * 32;
                matrix w;
                assert_true(matrix_make(&w, g, n, depth, QWEN3_DTYPE_F32, false, random_plain));
                unsigned char *x = make_activation(g, MOST, depth, stride, random_plain);
                float *whole = malloc(MOST * n * sizeof *whole), *y = malloc(MOST * n * sizeof *y);
                const gemm_weights weights = {w.packed.data, n, depth, 0, n, 0, depth, w.packed.data};
                gemm(g, &weights, &(gemm_input){x, MOST, stride}, &(gemm_output){whole, n, false});
                for (size_t rows = 1; rows < MOST; rows += rows < 66 ? 1 : 50) {
                    memset(y, 0, rows * n * sizeof *y);
                    gemm(g, &weights, &(gemm_input){x, rows, stride}, &(gemm_output){y, n, rows & 1});
                    assert_memory_equal(y, whole, rows * n * sizeof *y);
                    assert_false(test_level_holds_tiles());
                }
                free(x);
                free(whole);
                free(y);
                matrix_free(&w);
            }
        }
    }
}

static void test_gemm(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(k)
    {
        for (int type = 0; type < DTYPE_COUNT; type++) {
            const gemm_kernel *g = &k->gemm[type];
            check_gemm(k, g, 1, 1, 1, random_nasty);
            check_gemm(k, g, 7, 64, 64, random_plain);
            check_gemm(k, g, 2, 70, 4500, random_plain); /* several pieces along k, and an odd end */
            check_gemm(k, g, 8, 65, 2049, random_plain);
            check_gemm(k, g, 100, 65, 300, random_plain); /* several tiles of rows */
            check_gemm(k, g, 40, 65, 1500, random_plain); /* the same, and pieces that are expanded */
            for (int round = 0; round < 12; round++)
                check_gemm(k, g, 1 + random_below(28), 1 + random_below(140), 1 + random_below(200),
                           round & 1 ? random_nasty : random_plain);
            float y[2] = {NAN, 7.0f}, none = 0;
            const gemm_weights empty = {.w = &none, .n = 1, .n1 = 1};
            const gemm_output out = {y, 1, false};
            gemm(g, &empty, &(gemm_input){&none, 1, 0}, &out); /* an empty sum */
            assert_true(y[0] == 0.0f && y[1] == 7.0f);
            gemm(g, &empty, &(gemm_input){&none, 0, 0}, &out); /* no rows */
        }
    }
}

/* Now and then something that is not finite, or 0 for the rest of a block and longer. */
static float random_broken(void)
{
    static size_t zeros;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    if (zeros == 0 && random_below(200) == 0)
        zeros = random_below(100);
    if (zeros > 0 && zeros--)
        return 0.0f;
    return random_below(500) ? random_nasty() : bad[random_below(COUNT(bad))];
}

/* y (+)= x W^T with panels of any bits, at two levels with the same panels. */
static void check_same_bits(const kernels *k, const kernels *other, qwen3_dtype type, size_t m)
{
    static const random_float draws[] = {random_plain, random_nasty, random_ends, random_broken};
    const gemm_kernel *g = &k->gemm[type];
    const size_t n = 1 + random_below(130), depth = 1 + random_below(400), nr = (size_t)g->nr;
    const size_t stride = (depth + ACTIVATION_PAD - 1) / ACTIVATION_PAD * ACTIVATION_PAD,
                 y_stride = n + random_below(3);
    const size_t panels = (n + nr - 1) / nr, floats = (m - 1) * y_stride + n;
    const bool accumulate = random_below(2), at_start = random_below(2);
    fenced fw, fx, fy, fz;
    unsigned char *w = fence(&fw, gemm_packed_bytes(g, n, depth), at_start);
    fill_panel(g, panels * stride / BLOCK, w, draws[random_below(3)]);
    unsigned char *x = fence(&fx, activation_bytes(g->activation, m * stride), at_start);
    const random_float draw = draws[random_below(COUNT(draws))];
    for (size_t r = 0; r < m; r++)
        draw_activations(g->activation, x + activation_bytes(g->activation, r * stride), depth, draw);
    float *y = fence(&fy, floats * sizeof(float), at_start), *z = fence(&fz, floats * sizeof(float), !at_start);
    fill_nasty(y, floats);
    memcpy(z, y, floats * sizeof(float));
    const gemm_weights weights = {w, n, depth, 0, n, 0, depth, NULL};
    const gemm_input input = {x, m, stride};
    gemm(g, &weights, &input, &(gemm_output){y, y_stride, accumulate});
    gemm(&other->gemm[type], &weights, &input, &(gemm_output){z, y_stride, accumulate});
    for (size_t i = 0; i < floats; i++)
        if (memcmp(&y[i], &z[i], sizeof *y) != 0 && !(isnan(y[i]) && isnan(z[i])))
            fail_msg("%s, %s: %zu rows of %zu, row %zu, output %zu: %a, %s has %a", k->name, qwen3_dtype_name(type), m,
                     depth, i / y_stride, i % y_stride, (double)y[i], other->name, (double)z[i]);
    assert_false(test_level_holds_tiles());
    unfence(&fw);
    unfence(&fx);
    unfence(&fy);
    unfence(&fz);
}

/* Levels with products of bytes, whatever their instructions and tiles, agree to the last bit. */
static void test_same_bits(void **state)
{
    (void)state;
    const kernels *first = NULL;
    FOR_EACH_LEVEL(k)
    {
        for (int type = QWEN3_DTYPE_Q8; type <= QWEN3_DTYPE_Q4; type++) {
            if (!first ||
                (k->gemm[type].tile == first->gemm[type].tile && k->gemm[type].expand == first->gemm[type].expand))
                continue;
            assert_int_equal(k->gemm[type].activation, QWEN3_DTYPE_Q8);
            assert_int_equal(k->gemm[type].nr, first->gemm[type].nr);
            for (size_t m = 1; m <= 40; m++)
                check_same_bits(k, first, (qwen3_dtype)type, m);
            check_same_bits(k, first, (qwen3_dtype)type, 41 + random_below(100));
            check_same_bits(k, first, (qwen3_dtype)type, 200);
        }
        if (!first && k->gemm[QWEN3_DTYPE_Q8].activation == QWEN3_DTYPE_Q8)
            first = k;
    }
}

/* ---- Row-major matrices ------------------------------------------------------------------------ */

static void fill_drawn(float *x, size_t n, random_float draw)
{
    for (size_t i = 0; i < n; i++)
        x[i] = draw();
}

/* y (+)= x W^T or x W, of the sizes given; row r against float64, and bit by bit against the row alone. */
static void check_rows(const kernels *k, bool weighted, size_t rows, size_t n, size_t depth, random_float draw)
{
    const size_t inner = weighted ? n : depth, outer = weighted ? depth : n, x_stride = inner + random_below(3);
    const size_t w_stride = depth + random_below(3), y_stride = outer + random_below(3);
    const bool at_start = random_below(2);
    fenced fx, fw, fy;
    float *x = fence(&fx, ((rows - 1) * x_stride + inner) * sizeof *x, at_start);
    float *w = fence(&fw, (n ? (n - 1) * w_stride + depth : 0) * sizeof *w, at_start);
    float *y = fence(&fy, ((rows - 1) * y_stride + outer) * sizeof *y, at_start);
    float *start = malloc((rows * y_stride + 1) * sizeof *start);
    fill_drawn(x, fx.bytes / sizeof *x, draw);
    fill_drawn(w, fw.bytes / sizeof *w, draw);
    fill_nasty(y, fy.bytes / sizeof *y);
    memcpy(start, y, fy.bytes);
    (weighted ? k->weighted_rows : k->dot_rows)(rows, n, depth, x, x_stride, w, w_stride, y, y_stride);
    for (size_t r = 0; r < rows; r++) {
        for (size_t o = 0; o < outer; o++) {
            double flushed = 0;
            dot d = dot_begin(weighted ? start[r * y_stride + o] : 0.0f);
            for (size_t i = 0; i < inner; i++)
                dot_add(&d, x[r * x_stride + i], weighted ? w[i * w_stride + o] : w[o * w_stride + i], &flushed);
            check_close(weighted ? "weighted_rows" : "dot_rows", k->name, inner, o, y[r * y_stride + o], d.value,
                        dot_bound(&d, inner, (double)inner * (double)FLT_MIN * 0x1p-23));
        }
        for (size_t o = outer; o < y_stride && r + 1 < rows; o++)
            assert_memory_equal(&y[r * y_stride + o], &start[r * y_stride + o], sizeof *y);
        float *alone = start + r * y_stride;
        const size_t split = weighted ? random_below(n + 1) : n;
        (weighted ? k->weighted_rows : k->dot_rows)(1, split, depth, x + r * x_stride, 0, w, w_stride, alone, 0);
        if (weighted)
            k->weighted_rows(1, n - split, depth, x + r * x_stride + split, 0, w + split * w_stride, w_stride, alone,
                             0);
        assert_memory_equal(alone, y + r * y_stride, outer * sizeof *y);
    }
    free(start);
    unfence(&fx);
    unfence(&fw);
    unfence(&fy);
}

static void test_rows(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(k)
    {
        for (int weighted = 0; weighted < 2; weighted++) {
            check_rows(k, weighted, 1, 0, 16, random_plain);
            check_rows(k, weighted, 3, 64, 128, random_plain);
            for (int round = 0; round < 60; round++)
                check_rows(k, weighted, 1 + random_below(15), 1 + random_below(70), 1 + random_below(150),
                           round & 1 ? random_nasty : random_plain);
        }
    }
}

int main(void)
{
    seed_random();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tile),
        cmocka_unit_test(test_bytes_tile),
        cmocka_unit_test(test_few_rows),
        cmocka_unit_test(test_tile_not_finite),
        cmocka_unit_test(test_pack),
        cmocka_unit_test(test_pack_blocks),
        cmocka_unit_test(test_repack),
        cmocka_unit_test(test_quantise),
        cmocka_unit_test(test_activation_blocks),
        cmocka_unit_test(test_expand),
        cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_numbers_of_rows),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
