/* test_stored.c - weights in the blocks of GGUF files, and in groups: every level computes with the values that the
 * format defines, bit for bit, and multiplies them within the bounds of its arithmetic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "io/gguf_types.h"
#include "kernels/stored.h"
#include "support/cases.h"
#include "support/levels.h"

/* (q - z) d of G4_32 and G4_128 by definition. */
static void expand_groups(size_t values, const unsigned char *b, size_t blocks, float *out)
{
    for (; blocks > 0; blocks--, b += 3 + values / 2)
        for (size_t i = 0; i < values; i++) {
            const int q = b[3 + i / 2] >> (i % 2 * 4) & 15;
            *out++ = (float)(q - b[2]) * f16_to_f32((uint16_t)(b[0] | b[1] << 8));
        }
}

static void expand_groups_32(const unsigned char *b, size_t blocks, float *out)
{
    expand_groups(32, b, blocks, out);
}

static void expand_groups_128(const unsigned char *b, size_t blocks, float *out)
{
    expand_groups(128, b, blocks, out);
}

static const gguf_type *type_of_file(weight_type type)
{
    static const gguf_type groups[] = {{.name = "G4_32", .block = 32, .bytes = 19, .expand = expand_groups_32},
                                       {.name = "G4_128", .block = 128, .bytes = 67, .expand = expand_groups_128}};
    if (type == WEIGHT_G4_32 || type == WEIGHT_G4_128)
        return &groups[type == WEIGHT_G4_128];
    for (uint32_t id = 0; id < 64; id++) {
        const gguf_type *t = gguf_type_of(id);
        if (t && strcmp(t->name, stored_type_name(type)) == 0)
            return t;
    }
    fail_msg("%s is no type of a file", stored_type_name(type));
    return NULL;
}

/* W[n, k] as in a file, and its values. */
typedef struct stored_matrix {
    const gguf_type *type;
    size_t n, k, stride;
    fenced blocks;
    float *values;
} stored_matrix;

/* Random bits, and binary16 numbers that are finite: d is that of a file, of order 2^-4, or anything. */
static void make_matrix(stored_matrix *m, weight_type type, size_t n, size_t k, bool wild)
{
    *m = (stored_matrix){.type = type_of_file(type), .n = n, .k = k};
    const size_t blocks = k / (size_t)m->type->block, bytes = (size_t)m->type->bytes;
    m->stride = blocks * bytes;
    unsigned char *data = fence(&m->blocks, n * m->stride, random_below(2));
    m->values = malloc(n * k * sizeof *m->values);
    const bool minimum = stored_format_of(type).minimum;
    for (size_t i = 0; i < n * blocks; i++) {
        unsigned char *b = data + i * bytes;
        for (size_t j = 0; j < bytes; j++)
            b[j] = (unsigned char)random_bits();
        for (size_t j = 0; j < 1 + (size_t)minimum; j++) {
            uint16_t half = (uint16_t)random_bits();
            if (!wild)
                half = (uint16_t)((half & 0x83ff) | 0x2c00);
            half = (half & 0x7c00) == 0x7c00 ? (uint16_t)(half & 0x83ff) : half;
            memcpy(type == WEIGHT_Q6_K ? b + 208 : b + 2 * j, &half, sizeof half);
        }
        if (stored_format_of(type).zero)
            b[2] = (unsigned char)random_below(STORED_MOST_ZERO + 1);
    }
    for (size_t r = 0; r < n; r++)
        m->type->expand(data + r * m->stride, blocks, m->values + r * k);
}

static void free_matrix(stored_matrix *m)
{
    unfence(&m->blocks);
    free(m->values);
}

/* Columns [col, col + k) of the rows of a panel, `at` outputs of which come first. */
static bool pack_rows(const stored_matrix *m, const gemm_kernel *g, size_t row, size_t n, size_t col, size_t k,
                      void *panel, size_t at)
{
    const stored_part rows = {m->blocks.data + row * m->stride, m->stride, n, col, k};
    return stored_pack_rows(g, &rows, panel, at);
}

static void test_values(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(k)
    {
        for (weight_type type = DTYPE_COUNT; type < WEIGHT_TYPES; type++) {
            const gemm_kernel *g = &k->gemm[type];
            assert_int_equal(g->storage, type);
            assert_int_equal(g->activation, k->gemm[WEIGHT_Q8_0].activation);
            assert_int_equal(g->nr, k->gemm[QWEN3_DTYPE_F32].nr);
            assert_true(g->tile || g->expand);
            for (int round = 0; round < 12 && g->expand && g->expanded->storage == QWEN3_DTYPE_F32; round++) {
                const size_t nr = (size_t)g->nr, kr = (size_t)g->kr, n = 1 + random_below(nr);
                stored_matrix m;
                make_matrix(&m, type, n, 256 * (1 + random_below(4)), round & 1);
                const size_t col = random_below(m.k / kr) * kr, depth = (1 + random_below((m.k - col) / kr)) * kr;
                const size_t first = random_below(n), panel_bytes = gemm_packed_bytes(g, nr, depth);
                fenced fp, fx;
                void *panel = fence(&fp, panel_bytes, round & 2);
                float *x = fence(&fx, nr * depth * sizeof(float), round & 2);
                memset(panel, 0, panel_bytes);
                assert_true(pack_rows(&m, g, 0, first, col, depth, panel, 0));
                assert_true(pack_rows(&m, g, first, n - first, col, depth, panel, first));
                g->expand(depth / kr, panel, x);
                for (size_t j = 0; j < nr; j++)
                    for (size_t i = 0; i < depth; i++)
                        if (j < n && memcmp(&x[i * nr + j], &m.values[j * m.k + col + i], sizeof(float)) != 0)
                            fail_msg("%s, %s: (%zu, %zu) is %a and not %a", k->name, stored_type_name(type), j, i,
                                     (double)x[i * nr + j], (double)m.values[j * m.k + col + i]);
                        else if (j >= n)
                            assert_true(x[i * nr + j] == 0.0f);
                unfence(&fx);
                unfence(&fp);
                free_matrix(&m);
            }
        }
    }
}

static void test_not_finite(void **state)
{
    (void)state;
    for (weight_type type = DTYPE_COUNT; type < WEIGHT_TYPES; type++) {
        const gemm_kernel *g = &kernels_get(QWEN3_ISA_C)->gemm[type];
        const size_t bytes = gemm_packed_bytes(g, (size_t)g->nr, 256);
        unsigned char *panel = calloc(bytes, 1);
        stored_matrix m;
        make_matrix(&m, type, 2, 256, true);
        assert_true(pack_rows(&m, g, 0, 2, 0, 256, panel, 3));
        m.blocks.data[m.stride + (type == WEIGHT_Q6_K ? 209 : 1)] = 0xfc;
        assert_false(pack_rows(&m, g, 0, 2, 0, 256, panel, 3));
        free(panel);
        free_matrix(&m);
    }
}

/* ---- Products ------------------------------------------------------------------------------------ */

/* Rows of activations, and their values. */
static unsigned char *make_rows(qwen3_dtype type, size_t n, size_t k, float *values)
{
    unsigned char *x = calloc(n * activation_bytes(type, k), 1);
    for (size_t i = 0; i < n * k; i++)
        values[i] = random_plain();
    if (type == QWEN3_DTYPE_F32) {
        memcpy(x, values, n * k * sizeof *values);
        return x;
    }
    for (size_t i = 0; i < n * k; i += BLOCK) {
        unsigned char *block = x + i / BLOCK * ACTIVATION_BLOCK_BYTES;
        activation_store_block(values + i, block);
        activation_widen(block, BLOCK, values + i);
    }
    return x;
}

/* The sums of integers are exact; what is rounded are products and sums of f32, those of d s q and of m t apart. */
static void check_rows(const char *level, const stored_matrix *m, size_t rows, const float *x, const float *y)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < m->n; j++) {
            double sum = 0, size = 0;
            for (size_t i = 0; i < m->k; i++) {
                const double a = (double)x[r * m->k + i];
                sum += a * (double)m->values[j * m->k + i];
                size += fabs(a) * (fabs((double)m->values[j * m->k + i]) + 8192); /* terms that cancel: m t, bias d s */
            }
            check_close(m->type->name, level, m->k, r * m->n + j, y[r * m->n + j], sum, (double)(m->k + 6) * U * size);
        }
}

static void check_product(const kernels *k, weight_type type, size_t rows, size_t n, size_t depth)
{
    const gemm_kernel *g = &k->gemm[type];
    const size_t nr = (size_t)g->nr, kr = (size_t)g->kr, panel_bytes = gemm_packed_bytes(g, nr, depth);
    stored_matrix m;
    make_matrix(&m, type, n, depth, false);
    fenced fw, fx;
    unsigned char *w = fence(&fw, gemm_packed_bytes(g, n, depth), random_below(2));
    memset(w, 0, fw.bytes);
    for (size_t at = 0; at < n; at += nr)
        assert_true(pack_rows(&m, g, at, n - at < nr ? n - at : nr, 0, depth, w + at / nr * panel_bytes, 0));
    float *values = malloc(rows * depth * sizeof *values), *y = malloc(rows * n * sizeof *y);
    float *parts = malloc(rows * n * sizeof *parts);
    unsigned char *made = make_rows(g->activation, rows, depth, values);
    unsigned char *x = fence(&fx, rows * activation_bytes(g->activation, depth), random_below(2));
    memcpy(x, made, fx.bytes);
    const gemm_input in = {x, rows, depth};
    gemm(g, &(gemm_weights){w, n, depth, 0, n, 0, depth, NULL}, &in, &(gemm_output){y, n, false});
    check_rows(k->name, &m, rows, values, y);
    const size_t split = random_below(depth / kr) * kr; /* in two parts, and every row alone: the same bits */
    for (size_t r = 0; r < rows; r++)
        for (size_t part = 0; part < 2; part++) {
            const size_t k0 = part ? split : 0, k1 = part ? depth : split;
            const unsigned char *from = x + activation_bytes(g->activation, r * depth + k0);
            gemm(g, &(gemm_weights){w, n, depth, 0, n, k0, k1, NULL}, &(gemm_input){from, 1, depth},
                 &(gemm_output){parts + r * n, n, part > 0});
        }
    assert_memory_equal(parts, y, rows * n * sizeof *y);
    free(values);
    free(y);
    free(parts);
    free(made);
    unfence(&fx);
    unfence(&fw);
    free_matrix(&m);
}

static void test_products(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(k)
    {
        for (weight_type type = DTYPE_COUNT; type < WEIGHT_TYPES; type++) {
            for (size_t rows = 1; rows <= 7; rows++)
                check_product(k, type, rows, 1 + random_below(130), 256 * (1 + random_below(3)));
            check_product(k, type, 17, 65, 1024);
            check_product(k, type, 40, 20, 2560);
        }
    }
}

/* F32 and BF16 weights with the activations of quantised ones. */
static void check_mixed(const kernels *k, const gemm_kernel *g, const gemm_kernel *plain)
{
    assert_int_equal(g->activation, QWEN3_DTYPE_Q8);
    const size_t rows = 1 + random_below(30), nr = (size_t)g->nr, n = 1 + random_below(nr);
    const size_t depth = 32 * random_below(40);
    float *weights = calloc(nr * depth + 1, sizeof *weights), *values = malloc(rows * depth * sizeof *values + 1);
    for (size_t i = 0; i < n * depth; i++)
        weights[i] = random_plain();
    void *w = calloc(gemm_packed_bytes(g, nr, depth) + 1, 1);
    assert_true(gemm_pack_panel(g, &(matrix_rows){weights, QWEN3_DTYPE_F32, depth, n, depth}, w));
    unsigned char *x = make_rows(QWEN3_DTYPE_Q8, rows, depth, values);
    float *y = malloc(rows * n * sizeof *y), *expected = malloc(rows * n * sizeof *y);
    const gemm_weights from = {w, n, depth, 0, n, 0, depth, NULL};
    gemm(g, &from, &(gemm_input){x, rows, depth}, &(gemm_output){y, n, false});
    gemm(plain, &from, &(gemm_input){values, rows, depth}, &(gemm_output){expected, n, false});
    if (memcmp(y, expected, rows * n * sizeof *y) != 0)
        fail_msg("%s, type %d: %zu rows of %zu values differ", k->name, g->storage, rows, depth);
    free(weights);
    free(w);
    free(values);
    free(x);
    free(y);
    free(expected);
}

static void test_mixed(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(k)
    {
        const kernels *plain = k; /* the level with the same products of f32 activations */
        while (plain->gemm[QWEN3_DTYPE_BF16].activation != QWEN3_DTYPE_F32)
            plain = plain->below;
        for (int type = QWEN3_DTYPE_F32; type <= QWEN3_DTYPE_BF16; type++)
            for (int round = 0; round < 10; round++)
                check_mixed(k, &k->mixed[type], &plain->gemm[type]);
    }
}

/* Scales that are not stored as binary16 are kept where they are such numbers. */
static void test_half(void **state)
{
    (void)state;
    for (unsigned h = 0; h <= 0xffff; h++) {
        const float x = f16_to_f32((uint16_t)h);
        uint16_t back = 0;
        assert_true(f16_of_f32(x, &back));
        assert_true(back == h || !isfinite(x));
        if (!isfinite(x))
            assert_int_equal(back & 0x7fff, 0x7c00);
        else if (f16_of_f32(nextafterf(x, INFINITY), &back))
            fail_msg("%a is said to be binary16 %#x", (double)nextafterf(x, INFINITY), back);
    }
    uint16_t half;
    assert_false(f16_of_f32(0x1p16f, &half) || f16_of_f32(-1e30f, &half) || f16_of_f32(0x1p-25f, &half));
}

int main(void)
{
    seed_random();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values), cmocka_unit_test(test_not_finite), cmocka_unit_test(test_products),
        cmocka_unit_test(test_mixed),  cmocka_unit_test(test_half),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
