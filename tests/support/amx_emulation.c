/* amx_emulation.c - see amx_emulation.h. Compiled with FMA: products enter sums unrounded. */
#include "support/amx_emulation.h"

#include <float.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define TILES 8

typedef struct tile {
    unsigned char data[AMX_ROWS][AMX_BYTES];
} tile;

static _Thread_local struct {
    bool configured;
    amx_config config;
    tile tiles[TILES];
} state;

static void check(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "AMX fault: %s\n", what);
    abort();
}

void amx_configure(const amx_config *c)
{
    check(c->palette == 1, "palette is not 1"); /* 0 would be a release */
    check(c->start_row == 0, "start_row is not 0");
    for (size_t i = 0; i < sizeof c->reserved; i++)
        check(c->reserved[i] == 0, "a reserved byte is not 0");
    for (int t = 0; t < 16; t++) {
        check(c->rows[t] <= AMX_ROWS && c->bytes[t] <= AMX_BYTES, "a tile is too large");
        check((c->rows[t] == 0) == (c->bytes[t] == 0), "a tile has only rows or only columns");
        check(t < TILES || c->rows[t] == 0, "a tile that there is not is configured");
    }
    state.configured = true;
    state.config = *c;
    memset(state.tiles, 0, sizeof state.tiles);
}

void amx_release(void)
{
    memset(&state, 0, sizeof state);
}

bool amx_in_use(void)
{
    return state.configured;
}

static tile *configured_tile(int t)
{
    check(state.configured, "tiles are not configured");
    check(t >= 0 && t < TILES && state.config.rows[t] > 0, "the tile is not configured");
    return &state.tiles[t];
}

void amx_zero(int t)
{
    memset(configured_tile(t), 0, sizeof(tile));
}

void amx_load(int t, const void *from, size_t stride)
{
    tile *to = configured_tile(t);
    memset(to, 0, sizeof *to);
    for (size_t r = 0; r < state.config.rows[t]; r++)
        memcpy(to->data[r], (const unsigned char *)from + r * stride, state.config.bytes[t]);
}

void amx_store(int t, void *to, size_t stride)
{
    const tile *from = configured_tile(t);
    for (size_t r = 0; r < state.config.rows[t]; r++)
        memcpy((unsigned char *)to + r * stride, from->data[r], state.config.bytes[t]);
}

/* Denormal numbers become 0 of their sign, on the way in and on the way out. */
static inline float flush(float x)
{
    return fabsf(x) < FLT_MIN ? copysignf(0.0f, x) : x;
}

/* What all products fault on. */
static void check_product(int sums, int rows, int columns)
{
    const amx_config *c = &state.config;
    check(sums != rows && sums != columns && rows != columns, "a tile is named twice");
    check(c->bytes[sums] % 4 == 0 && c->bytes[rows] % 4 == 0, "columns are not whole");
    check(c->rows[sums] == c->rows[rows], "rows of the sums and of the first factor differ");
    check(c->bytes[sums] == c->bytes[columns], "columns of the sums and of the second factor differ");
    check(c->bytes[rows] == 4 * c->rows[columns], "inner dimensions differ");
}

void amx_add_products_bf16(int sums, int rows, int columns)
{
    const amx_config *c = &state.config;
    tile *const sum = configured_tile(sums), *const a = configured_tile(rows), *const b = configured_tile(columns);
    check_product(sums, rows, columns);
    const int outputs = AMX_BYTES / 4; /* past the configured ones are zeros */
    float weight[2][AMX_ROWS][AMX_BYTES / 4];
    for (int k = 0; k < c->rows[columns]; k++) {
        bf16 pairs[AMX_BYTES / 2];
        memcpy(pairs, b->data[k], sizeof pairs);
        for (int n = 0; n < outputs; n++) {
            weight[0][k][n] = flush(bf16_to_f32(pairs[2 * n]));
            weight[1][k][n] = flush(bf16_to_f32(pairs[2 * n + 1]));
        }
    }
    for (int m = 0; m < c->rows[rows]; m++) {
        float even[AMX_BYTES / 4] = {0}, odd[AMX_BYTES / 4] = {0}, before[AMX_BYTES / 4];
        bf16 pairs[AMX_BYTES / 2];
        memcpy(pairs, a->data[m], sizeof pairs);
        memcpy(before, sum->data[m], sizeof before);
        for (int k = 0; k < c->rows[columns]; k++) {
            const float x0 = flush(bf16_to_f32(pairs[2 * k])), x1 = flush(bf16_to_f32(pairs[2 * k + 1]));
            for (int n = 0; n < outputs; n++) {
                even[n] = flush(fmaf(x0, weight[0][k][n], even[n]));
                odd[n] = flush(fmaf(x1, weight[1][k][n], odd[n]));
            }
        }
        for (int n = 0; n < outputs; n++)
            before[n] = flush(flush(before[n]) + flush(even[n] + odd[n]));
        memcpy(sum->data[m], before, c->bytes[sums]);
    }
}

void amx_add_products_int8(int sums, int rows, int columns)
{
    const amx_config *c = &state.config;
    tile *const sum = configured_tile(sums), *const a = configured_tile(rows), *const b = configured_tile(columns);
    check_product(sums, rows, columns);
    for (int m = 0; m < c->rows[rows]; m++) {
        uint32_t total[AMX_BYTES / 4]; /* modulo 2^32 */
        memcpy(total, sum->data[m], sizeof total);
        for (int k = 0; k < c->rows[columns]; k++)
            for (int n = 0; n < AMX_BYTES; n++)
                total[n / 4] += (uint32_t)((int8_t)a->data[m][4 * k + n % 4] * (int8_t)b->data[k][n]);
        memcpy(sum->data[m], total, c->bytes[sums]);
    }
}

/* ---- The level --------------------------------------------------------------------------------- */

void kernels_init_amx_emulated(kernels *k);

static kernels level;

static void build(void)
{
    static const qwen3_isa bases[] = {QWEN3_ISA_AVX512_BF16, QWEN3_ISA_AVX512_VNNI, QWEN3_ISA_AVX2};
    const kernels *below = NULL;
    for (size_t i = 0; !below && i < sizeof bases / sizeof *bases; i++)
        below = kernels_get(bases[i]);
    if (!below)
        return;
    level = *below;
    kernels_init_amx_emulated(&level);
    if (!kernels_get(QWEN3_ISA_AVX512))
        level.gemm[QWEN3_DTYPE_BF16].few = NULL;
    for (int type = QWEN3_DTYPE_Q8; !kernels_get(QWEN3_ISA_AVX512_VNNI) && type <= QWEN3_DTYPE_Q4; type++) {
        level.gemm[type] = below->gemm[type];
        level.few[type] = below->few[type];
        level.multiply_add[type] = below->multiply_add[type];
    }
    for (int type = 0; type < DTYPE_COUNT; type++) { /* as kernels.c does for the real levels */
        level.gemm[type].quantise = level.quantise[type];
        level.gemm[type].policy = level.few[type].policy = level.bytes.policy = below->bytes.policy;
        level.gemm[type].few_rows = 5;
    }
    level.below = below;
    level.isa = QWEN3_ISA_AMX;
    level.name = "amx (emulated)";
}

const kernels *amx_emulated(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, build);
    return level.name ? &level : NULL;
}
