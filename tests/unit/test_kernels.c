/* test_kernels.c - the choice of a level, conversions, and the kernels that work element by element, of every level
 * that this CPU has, against float64, on data chosen to hurt; and what measures the limits.
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

/* ---- Elements ---------------------------------------------------------------------------------- */

static const size_t sizes[] = {0,  1,  2,  3,  7,  8,  9,  15, 16, 17, 31,  32,  33,  47,  48,   63,
                               64, 65, 66, 67, 79, 80, 81, 95, 96, 97, 127, 128, 129, 255, 1024, 1031};

/* A kernel's BF16 output must be its F32 output, rounded. */
static void check_rounded(const char *kernel, const char *level, size_t n, const bf16 *got, const float *exact)
{
    for (size_t i = 0; i < n; i++)
        if (got[i] != f32_to_bf16(exact[i]))
            fail_msg("%s %s: n %zu element %zu: %04x is not %.9g rounded", level, kernel, n, i, got[i],
                     (double)exact[i]);
}

/* The same, but where BF16 products take denormal numbers for 0 these may be 0. */
static void check_rounded_or_zero(const char *kernel, const kernels *k, size_t n, const bf16 *got, const float *exact)
{
    const bool flushes = k->gemm[QWEN3_DTYPE_BF16].activation == QWEN3_DTYPE_BF16;
    for (size_t i = 0; i < n; i++)
        if (!flushes || fpclassify(exact[i]) != FP_SUBNORMAL || (got[i] & 0x7fff) != 0)
            check_rounded(kernel, k->name, 1, got + i, exact + i);
}

/* And its Q8 output the blocks of its F32 output, filled up with zeros. */
static void check_blocks(const char *kernel, const char *level, size_t n, const unsigned char *got, const float *exact)
{
    for (size_t i = 0; i < n; i += BLOCK, got += ACTIVATION_BLOCK_BYTES) {
        float x[BLOCK] = {0};
        unsigned char expected[ACTIVATION_BLOCK_BYTES];
        memcpy(x, exact + i, (n - i < BLOCK ? n - i : BLOCK) * sizeof *x);
        activation_store_block(x, expected);
        if (memcmp(got, expected, sizeof expected) != 0)
            fail_msg("%s %s: n %zu: the block from element %zu on is not that of its F32 output", level, kernel, n, i);
    }
}

/* Bytes of the blocks of n values. */
static size_t blocks_bytes(size_t n)
{
    return (n + BLOCK - 1) / BLOCK * ACTIVATION_BLOCK_BYTES;
}

/* ---- Dispatch ---------------------------------------------------------------------------------- */

static void test_names(void **state)
{
    (void)state;
    for (qwen3_isa isa = QWEN3_ISA_AUTO; isa < ISA_COUNT; isa++) {
        qwen3_isa parsed = (qwen3_isa)99;
        assert_true(qwen3_isa_parse(qwen3_isa_name(isa), &parsed));
        assert_int_equal(parsed, isa);
    }
    qwen3_isa isa = QWEN3_ISA_AVX2;
    assert_true(qwen3_isa_parse("AVX512-bf16", &isa));
    assert_int_equal(isa, QWEN3_ISA_AVX512_BF16);
    static const char *const unknown[] = {"", "avx", "avx22", "avx512_", "sse", "c "};
    for (size_t i = 0; i < COUNT(unknown); i++)
        assert_false(qwen3_isa_parse(unknown[i], &isa));
    assert_false(qwen3_isa_parse(NULL, &isa));
    assert_int_equal(isa, QWEN3_ISA_AVX512_BF16);
    assert_string_equal(qwen3_isa_name((qwen3_isa)77), "unknown");
}

static void test_processor_families(void **state)
{
    (void)state;
    static const struct {
        const char *vendor;
        unsigned family;
        const char *name;
        prefetch_policy prefetch;
        bool fast_bf16;
    } cases[] = {
        {"GenuineIntel", 6, "Intel", {true, 2}, false},  /* Emerald Rapids, Granite Rapids */
        {"GenuineIntel", 19, "Intel", {true, 2}, false}, /* the family after it */
        {"AuthenticAMD", 0x17, "AMD Zen", {false, 1}, true},
        {"AuthenticAMD", 0x19, "AMD Zen", {false, 1}, true}, /* Zen 4 */
        {"AuthenticAMD", 0x1a, "AMD Zen", {false, 1}, true}, /* Zen 5 */
        {"AuthenticAMD", 0x15, "unknown", {false, 1}, false},
        {"HygonGenuine", 0x18, "unknown", {false, 1}, false},
        {"", 0, "unknown", {false, 1}, false}, /* other architectures */
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        const processor_family *f = processor_family_of(cases[i].vendor, cases[i].family);
        assert_string_equal(f->name, cases[i].name);
        assert_int_equal(f->prefetch.elements, cases[i].prefetch.elements);
        assert_int_equal(f->prefetch.piece_level, cases[i].prefetch.piece_level);
        assert_int_equal(f->fast_bf16, cases[i].fast_bf16);
        assert_in_range(f->amx.bf16_rows, 1, 24); /* gemm.c keeps the sums of so many */
        assert_in_range(f->amx.block_rows, 1, 24);
    }
}

/* Each architecture has one chain of levels above plain C. */
static void test_common_level(void **state)
{
    (void)state;
    static const struct {
        qwen3_isa a, b, common;
    } cases[] = {
        {QWEN3_ISA_AVX512_BF16, QWEN3_ISA_AVX512_BF16, QWEN3_ISA_AVX512_BF16},
        {QWEN3_ISA_AVX512_BF16, QWEN3_ISA_AVX2, QWEN3_ISA_AVX2},
        {QWEN3_ISA_AVX512, QWEN3_ISA_C, QWEN3_ISA_C},
        {QWEN3_ISA_AMX, QWEN3_ISA_AVX512_BF16, QWEN3_ISA_AVX512_BF16},
        {QWEN3_ISA_NEON_BF16, QWEN3_ISA_NEON, QWEN3_ISA_NEON},
        {QWEN3_ISA_NEON_BF16, QWEN3_ISA_NEON_DOT, QWEN3_ISA_NEON_DOT},
        {QWEN3_ISA_NEON_DOT, QWEN3_ISA_AVX512_VNNI, QWEN3_ISA_C},
        {QWEN3_ISA_NEON, QWEN3_ISA_AVX512_BF16, QWEN3_ISA_C},
        {QWEN3_ISA_NEON_BF16, QWEN3_ISA_C, QWEN3_ISA_C},
        {QWEN3_ISA_NEON_I8MM, QWEN3_ISA_NEON_BF16, QWEN3_ISA_NEON_BF16},
        {QWEN3_ISA_NEON_I8MM, QWEN3_ISA_AMX, QWEN3_ISA_C},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_int_equal(kernels_common(cases[i].a, cases[i].b), cases[i].common);
        assert_int_equal(kernels_common(cases[i].b, cases[i].a), cases[i].common);
    }
}

static void test_dispatch(void **state)
{
    (void)state;
    const qwen3_isa best = qwen3_isa_best(), highest = kernels_highest();
    const char *old = getenv("QWEN3_ISA");
    char *saved = old ? strdup(old) : NULL;
    unsetenv("QWEN3_ISA");
    assert_int_equal(kernels_get(QWEN3_ISA_AUTO)->isa, best);
    char vendor[13];
    unsigned family;
    processor_identify(vendor, &family);
    const bool passed_over = highest == QWEN3_ISA_AVX512_BF16 && !processor_family_of(vendor, family)->fast_bf16;
    assert_int_equal(best, passed_over ? QWEN3_ISA_AVX512_VNNI : highest);
#if defined(__aarch64__)
    const qwen3_isa first = QWEN3_ISA_NEON, last = QWEN3_ISA_NEON_I8MM;
    assert_true(best >= first); /* every such CPU has it */
#else
    const qwen3_isa first = QWEN3_ISA_AVX2, last = QWEN3_ISA_AMX;
#endif
    for (qwen3_isa isa = QWEN3_ISA_C; isa < ISA_COUNT; isa++) {
        const bool there = isa == QWEN3_ISA_C || (first <= isa && isa <= last && isa <= highest);
        const kernels *k = kernels_get(isa);
        assert_int_equal(k != NULL, there);
        if (k) {
            assert_int_equal(k->isa, isa);
            assert_string_equal(k->name, qwen3_isa_name(isa));
            assert_ptr_equal(k->below, isa == QWEN3_ISA_C ? NULL
                                       : isa == first     ? kernels_get(QWEN3_ISA_C)
                                                          : kernels_get(isa - 1));
        }
        setenv("QWEN3_ISA", qwen3_isa_name(isa), 1);
        assert_int_equal(kernels_get(QWEN3_ISA_AUTO)->isa, there ? isa : best);
        assert_int_equal(kernels_get(QWEN3_ISA_C)->isa, QWEN3_ISA_C);
    }
    setenv("QWEN3_ISA", "", 1);
    assert_int_equal(kernels_get(QWEN3_ISA_AUTO)->isa, best);
    setenv("QWEN3_ISA", "avx1024", 1);
    assert_null(kernels_get(QWEN3_ISA_AUTO));
    const kernels *chosen = NULL;
    qwen3_error err = {0};
    assert_int_equal(kernels_choose(QWEN3_ISA_AUTO, &chosen, &err), QWEN3_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "avx1024"));
    for (qwen3_isa isa = QWEN3_ISA_AUTO; isa < ISA_COUNT; isa++)
        assert_non_null(strstr(err.message, qwen3_isa_name(isa)));
    err = (qwen3_error){0};
    assert_int_equal(kernels_choose((qwen3_isa)99, &chosen, &err), QWEN3_ERR_ARGUMENT);
    assert_null(chosen);
    assert_int_equal(kernels_choose(QWEN3_ISA_C, &chosen, NULL), QWEN3_OK);
    assert_ptr_equal(chosen, kernels_get(QWEN3_ISA_C));
    assert_non_null(kernels_get(QWEN3_ISA_C));
    assert_null(kernels_get((qwen3_isa)99));
    unsetenv("QWEN3_ISA");
    if (saved)
        setenv("QWEN3_ISA", saved, 1);
    free(saved);
}

/* ---- Conversions ------------------------------------------------------------------------------- */

/* Independent of f32_to_bf16: the nearer neighbour, the even one where both are as near. */
static bf16 round_by_distance(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    const bf16 toward_zero = (bf16)(u >> 16), away = (bf16)(toward_zero + 1);
    const double below = fabs((double)bf16_to_f32(toward_zero));
    /* The neighbour past the largest finite value counts as 2^128. */
    const double above = (away & 0x7fff) == 0x7f80 ? 0x1p128 : fabs((double)bf16_to_f32(away));
    const double at = fabs((double)x);
    if (at - below != above - at)
        return at - below < above - at ? toward_zero : away;
    return toward_zero & 1 ? away : toward_zero;
}

static void test_round_trip(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        const float x = bf16_to_f32((bf16)h);
        const bf16 back = f32_to_bf16(x);
        assert_int_equal(back, isnan(x) ? h | 0x40 : h);
    }
    for (int i = 0; i < 200000; i++) {
        uint32_t u = (uint32_t)random_bits();
        if (i % 3 == 0)
            u = (u & 0xffff0000u) | 0x8000u; /* half way */
        float x;
        memcpy(&x, &u, sizeof x);
        if (isfinite(x))
            assert_int_equal(f32_to_bf16(x), round_by_distance(x));
        else if (isnan(x))
            assert_true(isnan(bf16_to_f32(f32_to_bf16(x))));
    }
}

static void test_conversions(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(k)
    {
        for (size_t s = 0; s < COUNT(sizes) * 2; s++) {
            const size_t n = sizes[s / 2];
            fenced fx, fh, fy;
            float *x = fence(&fx, n * sizeof(float), s & 1);
            bf16 *h = fence(&fh, n * sizeof(bf16), s & 1);
            float *y = fence(&fy, n * sizeof(float), s & 1);
            for (size_t i = 0; i < n; i++) {
                uint32_t u = (uint32_t)random_bits();
                if (random_below(4) == 0)
                    u |= 0x7f800000u; /* infinities and NaN */
                if (random_below(4) == 0)
                    u = (u & 0xffff0000u) | 0x8000u;
                memcpy(&x[i], &u, sizeof u);
            }
            k->to_bf16(n, x, h);
            k->to_f32(n, h, y);
            check_rounded("to_bf16", k->name, n, h, x);
            for (size_t i = 0; i < n; i++) {
                const float expected = bf16_to_f32(h[i]);
                assert_memory_equal(&y[i], &expected, sizeof expected);
            }
            unfence(&fx);
            unfence(&fh);
            unfence(&fy);
        }
    }
}

static void test_bytes(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(k)
    {
        for (size_t n = 0; n <= 512; n += 32)
            for (int at_start = 0; at_start < 2; at_start++) {
                fenced fx, fy;
                int8_t *x = fence(&fx, n, at_start);
                bf16 *y = fence(&fy, n * sizeof(bf16), at_start);
                for (size_t i = 0; i < n; i++)
                    x[i] = (int8_t)(n == 256 ? (int)i - 128 : (int)random_below(256) - 128);
                k->bytes_to_bf16(n, x, y);
                for (size_t i = 0; i < n; i++)
                    assert_true(bf16_to_f32(y[i]) == (float)x[i]);
                unfence(&fx);
                unfence(&fy);
            }
    }
}

static void test_multiply(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(k)
    {
        for (size_t s = 0; s < COUNT(sizes) * 2; s++) {
            const size_t n = sizes[s / 2];
            fenced fx, fw, fh;
            float *x = fence(&fx, n * sizeof(float), s & 1), *w = fence(&fw, n * sizeof(float), s & 1);
            bf16 *h = fence(&fh, n * sizeof(bf16), s & 1);
            fill_nasty(x, n);
            fill_nasty(w, n);
            float exact[1031];
            assert_true(n <= COUNT(exact));
            for (size_t i = 0; i < n; i++)
                exact[i] = x[i] * w[i];
            k->multiply(n, x, w, h, QWEN3_DTYPE_BF16);
            check_rounded("multiply", k->name, n, h, exact);
            k->multiply(n, x, w, x, QWEN3_DTYPE_F32);
            assert_memory_equal(x, exact, n * sizeof *x);
            unfence(&fx);
            unfence(&fw);
            unfence(&fh);
        }
    }
}

/* ---- Element by element ------------------------------------------------------------------------ */

static void test_add_scale_max(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(k)
    {
        for (size_t s = 0; s < COUNT(sizes) * 2; s++) {
            const size_t n = sizes[s / 2];
            fenced fx, fy, fz, fh, fb;
            unsigned char *b = fence(&fb, blocks_bytes(n), s & 1);
            float *x = fence(&fx, n * sizeof(float), s & 1), *y = fence(&fy, n * sizeof(float), s & 1);
            float *z = fence(&fz, n * sizeof(float), s & 1);
            bf16 *h = fence(&fh, n * sizeof(bf16), s & 1);
            fill_nasty(x, n);
            fill_nasty(y, n);
            float largest = -INFINITY;
            for (size_t i = 0; i < n; i++)
                largest = fmaxf(largest, x[i]);
            assert_true(k->max(n, x) == largest);
            k->scale(n, 0.37f, x, z, QWEN3_DTYPE_F32);
            k->scale(n, 0.37f, x, h, QWEN3_DTYPE_BF16);
            k->scale(n, 0.37f, x, b, QWEN3_DTYPE_Q8);
            check_rounded("scale", k->name, n, h, z);
            check_blocks("scale", k->name, n, b, z);
            for (size_t i = 0; i < n; i++)
                check_close("scale", k->name, n, i, z[i], 0.37f * x[i], 0);
            k->scale(n, -1.0f, z, z, QWEN3_DTYPE_F32);
            for (size_t i = 0; i < n; i++)
                check_close("scale in place", k->name, n, i, z[i], -(0.37f * x[i]), 0);
            memcpy(z, x, n * sizeof(float));
            k->add(n, z, y);
            for (size_t i = 0; i < n; i++)
                check_close("add", k->name, n, i, z[i], x[i] + y[i], 0);
            unfence(&fx);
            unfence(&fy);
            unfence(&fz);
            unfence(&fh);
            unfence(&fb);
        }
        const float all_hidden[3] = {-INFINITY, -INFINITY, -INFINITY};
        assert_true(k->max(3, all_hidden) == -INFINITY);
        float last[67]; /* the largest in every place */
        for (size_t at = 0; at < COUNT(last); at++) {
            for (size_t i = 0; i < COUNT(last); i++)
                last[i] = i == at ? -1.0f : -2.0f;
            assert_true(k->max(COUNT(last), last) == -1.0f);
        }
    }
}

/* The mean is a sum of n squares, each with up to n + 1 roundings; the root halves its error; then division,
 * root and two products. */
static void test_rms_norm(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(k)
    {
        for (size_t s = 0; s < COUNT(sizes) * 2; s++) {
            const size_t n = sizes[s / 2];
            const float eps = 1e-6f;
            fenced fx, fw, fy, fh, fb;
            unsigned char *b = fence(&fb, blocks_bytes(n), s & 1);
            float *x = fence(&fx, n * sizeof(float), s & 1), *w = fence(&fw, n * sizeof(float), s & 1);
            float *y = fence(&fy, n * sizeof(float), s & 1);
            bf16 *h = fence(&fh, n * sizeof(bf16), s & 1);
            fill_nasty(w, n);
            double squares = 0;
            for (size_t i = 0; i < n; i++) {
                x[i] = s % 3 == 0 ? 0.0f : random_nasty();
                squares += (double)x[i] * (double)x[i];
            }
            k->rms_norm(n, x, w, eps, y, QWEN3_DTYPE_F32);
            k->rms_norm(n, x, w, eps, h, QWEN3_DTYPE_BF16);
            k->rms_norm(n, x, w, eps, b, QWEN3_DTYPE_Q8);
            check_rounded("rms_norm", k->name, n, h, y);
            check_blocks("rms_norm", k->name, n, b, y);
            for (size_t i = 0; i < n; i++) {
                const double expected = x[i] / sqrt(squares / (double)n + (double)eps) * (double)w[i];
                const double tiny = (double)FLT_MIN * (1.0 + fabs((double)w[i]));
                check_close("rms_norm", k->name, n, i, y[i], expected,
                            fabs(expected) * (0.5 * (double)n + 6) * U + tiny);
            }
            k->rms_norm(n, x, w, eps, x, QWEN3_DTYPE_F32);
            assert_memory_equal(x, y, n * sizeof(float));
            unfence(&fx);
            unfence(&fw);
            unfence(&fy);
            unfence(&fh);
            unfence(&fb);
        }
    }
}

/* What rms_norm gives, rotated: two products and a sum, then the scale. */
static void test_norm_rope(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(k)
    {
        for (size_t s = 0; s < COUNT(sizes) * 4; s++) {
            const size_t half = sizes[s / 4], d = 2 * half;
            const bool normalises = s & 2;
            const float scale = s % 3 == 0 ? 1.0f : 0.088388346f, eps = 1e-6f;
            fenced fx, fw, fc, fs, fy, fh;
            float *x = fence(&fx, d * sizeof(float), s & 1), *w = fence(&fw, d * sizeof(float), s & 1);
            float *c = fence(&fc, half * sizeof(float), s & 1), *sn = fence(&fs, half * sizeof(float), s & 1);
            float *y = fence(&fy, d * sizeof(float), s & 1), *normed = malloc(d * sizeof(float) + 1);
            bf16 *h = fence(&fh, d * sizeof(bf16), s & 1);
            fill_nasty(x, d);
            fill_nasty(w, d);
            for (size_t i = 0; i < half; i++) {
                const double angle = 6.3 * random_unit();
                c[i] = (float)cos(angle);
                sn[i] = (float)sin(angle);
            }
            const float *weights = normalises ? w : NULL;
            memcpy(normed, x, d * sizeof(float));
            if (normalises)
                k->rms_norm(d, x, w, eps, normed, QWEN3_DTYPE_F32);
            k->norm_rope(d, x, weights, eps, c, sn, scale, y, QWEN3_DTYPE_F32);
            k->norm_rope(d, x, weights, eps, c, sn, scale, h, QWEN3_DTYPE_BF16);
            check_rounded("norm_rope", k->name, d, h, y);
            for (size_t i = 0; i < half; i++) {
                const double a = normed[i], b = normed[i + half], f = scale;
                const double ac = f * a * c[i], as = f * a * sn[i], bc = f * b * c[i], bs = f * b * sn[i];
                check_close("norm_rope", k->name, half, i, y[i], ac - bs, 3 * U * (fabs(ac) + fabs(bs)) + 1e-43);
                check_close("norm_rope", k->name, half, i, y[i + half], bc + as, 3 * U * (fabs(bc) + fabs(as)) + 1e-43);
            }
            k->norm_rope(d, x, weights, eps, c, sn, scale, x, QWEN3_DTYPE_F32);
            assert_memory_equal(x, y, d * sizeof(float));
            free(normed);
            unfence(&fx);
            unfence(&fw);
            unfence(&fc);
            unfence(&fs);
            unfence(&fy);
            unfence(&fh);
        }
    }
}

/* 4e-7 of exp, then an addition, a division (or a reciprocal within 1.2e-7) and products. A gate whose exponential is
 * below FLT_MIN may give 0, or what one of FLT_MIN gives. */
static void test_silu_mul(void **state)
{
    (void)state;
    static const float gates[] = {0.0f, -0.0f, 88.0f, -88.0f, -87.3f, -87.4f, 1000.0f, -1000.0f, 1e30f, -1e30f, 1e-40f};
    FOR_EACH_LEVEL(k)
    {
        for (size_t s = 0; s < COUNT(sizes) * 2; s++) {
            const size_t n = sizes[s / 2];
            fenced fg, fu, fy, fh, fb;
            unsigned char *b = fence(&fb, blocks_bytes(n), s & 1);
            float *g = fence(&fg, n * sizeof(float), s & 1), *up = fence(&fu, n * sizeof(float), s & 1);
            float *y = fence(&fy, n * sizeof(float), s & 1);
            bf16 *h = fence(&fh, n * sizeof(bf16), s & 1);
            fill_nasty(up, n);
            for (size_t i = 0; i < n; i++)
                g[i] = random_below(3) ? (float)(200 * random_unit() - 100) : gates[random_below(COUNT(gates))];
            k->silu_mul(n, g, up, y, QWEN3_DTYPE_F32);
            k->silu_mul(n, g, up, h, QWEN3_DTYPE_BF16);
            k->silu_mul(n, g, up, b, QWEN3_DTYPE_Q8);
            check_rounded_or_zero("silu_mul", k, n, h, y);
            check_blocks("silu_mul", k->name, n, b, y);
            for (size_t i = 0; i < n; i++) {
                const double expected = g[i] / (1.0 + exp(-(double)g[i])) * (double)up[i];
                const double tiny = 1.01 * (double)FLT_MIN * (1 + fabs((double)g[i])) * (1 + fabs((double)up[i]));
                check_close("silu_mul", k->name, n, i, y[i], (double)(float)expected, fabs(expected) * 7e-7 + tiny);
            }
            unfence(&fg);
            unfence(&fu);
            unfence(&fy);
            unfence(&fh);
            unfence(&fb);
        }
    }
}

static void check_exp(const kernels *k, size_t n, const float *s, float m, const float *p, float sum)
{
    double expected_sum = 0;
    for (size_t i = 0; i < n; i++) {
        const float x = s[i] - m;
        const double expected = exp((double)x);
        if (x == -INFINITY || expected < (double)FLT_MIN * 0.99999)
            check_close("exp_sum", k->name, n, i, p[i], 0, 0);
        else if (expected < (double)FLT_MIN * 1.00001)
            check_close("exp_sum", k->name, n, i, p[i], 0, 1.0001 * (double)FLT_MIN);
        else
            check_close("exp_sum", k->name, n, i, p[i], expected, 4e-7 * expected);
        assert_int_not_equal(fpclassify(p[i]), FP_SUBNORMAL);
        expected_sum += (double)p[i];
    }
    check_close("exp_sum, the sum,", k->name, n, 0, sum, expected_sum, (double)n * U * expected_sum);
}

static void test_exp_sum(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(k)
    {
        for (size_t t = 0; t < COUNT(sizes) * 2; t++) {
            const size_t n = sizes[t / 2];
            fenced fs, fp, fh;
            float *s = fence(&fs, n * sizeof(float), t & 1), *p = fence(&fp, n * sizeof(float), t & 1);
            bf16 *h = fence(&fh, n * sizeof(bf16), t & 1);
            const float m = (float)(20 * random_unit() - 10);
            const double width = t % 4 < 2 ? 8 : 100;
            for (size_t i = 0; i < n; i++) {
                s[i] = m - (float)(width * random_unit());
                if (random_below(5) == 0)
                    s[i] = random_below(2) ? -INFINITY : -1e30f;
            }
            const float sum = k->exp_sum(n, s, m, p, QWEN3_DTYPE_F32);
            check_exp(k, n, s, m, p, sum);
            assert_true(k->exp_sum(n, s, m, h, QWEN3_DTYPE_BF16) == sum);
            check_rounded("exp_sum", k->name, n, h, p);
            assert_true(k->exp_sum(n, s, m, s, QWEN3_DTYPE_F32) == sum);
            assert_memory_equal(s, p, n * sizeof(float));
            unfence(&fs);
            unfence(&fp);
            unfence(&fh);
        }
        static float s[200000], p[200000]; /* the whole range, and a little above m */
        for (size_t i = 0; i < COUNT(s); i++)
            s[i] = (float)(4.0 - 100.0 * (double)i / (double)COUNT(s));
        const float sum = k->exp_sum(COUNT(s), s, 0.0f, p, QWEN3_DTYPE_F32);
        check_exp(k, COUNT(s), s, 0.0f, p, sum);
    }
}

/* What is not a number, or too large for one, must not turn into one. */
static void test_nan(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(k)
    {
        float x[20], w[20], y[20];
        for (size_t at = 0; at < COUNT(x); at++) {
            for (size_t i = 0; i < COUNT(x); i++) {
                x[i] = i == at ? NAN : -1.0f;
                w[i] = 1.0f;
            }
            k->silu_mul(COUNT(x), x, w, y, QWEN3_DTYPE_F32);
            for (size_t i = 0; i < COUNT(x); i++)
                assert_int_equal(isnan(y[i]), i == at);
            assert_true(isnan(k->exp_sum(COUNT(x), x, 0.0f, y, QWEN3_DTYPE_F32)));
            for (size_t i = 0; i < COUNT(x); i++)
                assert_int_equal(isnan(y[i]), i == at);
            k->rms_norm(COUNT(x), x, w, 1e-6f, y, QWEN3_DTYPE_F32);
            for (size_t i = 0; i < COUNT(x); i++)
                assert_true(isnan(y[i]));
            const float largest = k->max(COUNT(x), x);
            assert_true(isnan(largest) || largest == -1.0f);
            x[at] = INFINITY;
            assert_true(k->max(COUNT(x), x) == INFINITY);
            assert_true(isnan(k->exp_sum(COUNT(x), x, INFINITY, y, QWEN3_DTYPE_F32)));
            assert_true(isnan(y[at]));
            assert_false(isfinite(k->exp_sum(COUNT(x), x, 0.0f, y, QWEN3_DTYPE_F32)));
            for (size_t i = 0; i < COUNT(x); i++)
                assert_int_equal(isfinite(y[i]), i != at);
            for (int sign = -1; sign <= 1; sign += 2) {
                x[at] = (float)sign * INFINITY;
                k->silu_mul(COUNT(x), x, w, y, QWEN3_DTYPE_F32);
                for (size_t i = 0; i < COUNT(x); i++)
                    assert_int_equal(isfinite(y[i]), i != at);
            }
            x[at] = 1e30f; /* its square overflows */
            k->rms_norm(COUNT(x), x, w, 1e-6f, y, QWEN3_DTYPE_F32);
            for (size_t i = 0; i < COUNT(x); i++)
                assert_true(isnan(y[i]));
            k->norm_rope(COUNT(x), x, w, 1e-6f, w, w, 1.0f, y, QWEN3_DTYPE_F32);
            for (size_t i = 0; i < COUNT(x); i++)
                assert_true(isnan(y[i]));
        }
        float low[40], p[40];
        for (size_t i = 0; i < COUNT(low); i++)
            low[i] = -INFINITY;
        assert_true(k->exp_sum(COUNT(low), low, -FLT_MAX, p, QWEN3_DTYPE_F32) == 0);
    }
}

/* ---- Limits ------------------------------------------------------------------------------------ */

static void test_limits(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(k)
    {
        for (int type = 0; type < DTYPE_COUNT; type++) {
            const uint64_t operations = k->multiply_add[type](3);
            assert_in_range(operations, 2800000, 3200000);
            assert_false(test_level_holds_tiles());
        }
        fenced f;
        unsigned char *p = fence(&f, 4096, false);
        const uint64_t before = k->read_memory(p, 4096);
        for (size_t i = 0; i < 4096; i += 1 + random_below(30)) {
            p[i] ^= 1;
            assert_int_not_equal(k->read_memory(p, 4096), before);
            p[i] ^= 1;
        }
        assert_int_equal(k->read_memory(p, 4096), before);
        unfence(&f);
    }
}

int main(void)
{
    seed_random();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_dispatch),
        cmocka_unit_test(test_processor_families),
        cmocka_unit_test(test_common_level),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_conversions),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_multiply),
        cmocka_unit_test(test_rms_norm),
        cmocka_unit_test(test_add_scale_max),
        cmocka_unit_test(test_norm_rope),
        cmocka_unit_test(test_silu_mul),
        cmocka_unit_test(test_exp_sum),
        cmocka_unit_test(test_nan),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
