/* stored.c - blocks of a file, taken apart and put into panels (stored_types.h). The layouts of blocks of GGUF files
 * are those of ggml-common.h of llama.cpp. */
#include "kernels/stored.h"

const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* A block of a file: numbers of binary16, and of the values in their order. */
typedef struct parts {
    uint16_t d, m;
    uint8_t zero;
    int8_t scales[2 * STORED_BLOCKS];
    uint8_t minima[STORED_BLOCKS];
    uint8_t q[STORED_LARGE];
} parts;

static inline uint16_t half_bits(const unsigned char *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

/* ---- Blocks of 32: value i < 16 is in the low half of byte i, value 16 + i in its high half ----------- */

/* The m of a file is added, ours is subtracted. */
static inline uint16_t negated(uint16_t half)
{
    return half ^ 0x8000;
}

static inline void take_nibbles(const unsigned char *b, uint8_t *q)
{
    for (int i = 0; i < BLOCK / 2; i++) {
        q[i] = b[i] & 15;
        q[i + BLOCK / 2] = b[i] >> 4;
    }
}

static inline void add_fifth_bits(const unsigned char *b, uint8_t *q)
{
    for (int i = 0; i < BLOCK; i++)
        q[i] |= (uint8_t)((b[i / 8] >> (i % 8) & 1) << 4);
}

static void take_Q8_0(const unsigned char *b, parts *p)
{
    p->d = half_bits(b);
    for (int i = 0; i < BLOCK; i++)
        p->q[i] = b[2 + i] ^ 0x80; /* + 128 */
}

static void take_Q4_0(const unsigned char *b, parts *p)
{
    p->d = half_bits(b);
    take_nibbles(b + 2, p->q);
}

static void take_Q4_1(const unsigned char *b, parts *p)
{
    p->d = half_bits(b);
    p->m = negated(half_bits(b + 2));
    take_nibbles(b + 4, p->q);
}

static void take_Q5_0(const unsigned char *b, parts *p)
{
    p->d = half_bits(b);
    take_nibbles(b + 6, p->q);
    add_fifth_bits(b + 2, p->q);
}

static void take_Q5_1(const unsigned char *b, parts *p)
{
    p->d = half_bits(b);
    p->m = negated(half_bits(b + 2));
    take_nibbles(b + 8, p->q);
    add_fifth_bits(b + 4, p->q);
}

static void take_IQ4_NL(const unsigned char *b, parts *p)
{
    take_Q4_0(b, p);
}

/* ---- Blocks of 256 ------------------------------------------------------------------------------------- */

/* Scales and minima of 6 bits: the first 4 of both in the low bits of bytes 0..3 and 4..7, the low halves of the others
 * in bytes 8..11, with their high bits in the top bits of the first 8 bytes. */
static void take_scales(const unsigned char *b, parts *p)
{
    for (int j = 0; j < 4; j++) {
        p->scales[j] = (int8_t)(b[j] & 63);
        p->minima[j] = b[j + 4] & 63;
        p->scales[j + 4] = (int8_t)((b[j + 8] & 15) | (b[j] >> 6) << 4);
        p->minima[j + 4] = (uint8_t)(b[j + 8] >> 4 | (b[j + 4] >> 6) << 4);
    }
}

/* Blocks 2 j and 2 j + 1 are the low and the high halves of 32 bytes. */
static inline void take_large_nibbles(const unsigned char *b, uint8_t *q)
{
    for (int j = 0; j < STORED_BLOCKS; j += 2, b += BLOCK, q += 2 * BLOCK)
        for (int i = 0; i < BLOCK; i++) {
            q[i] = b[i] & 15;
            q[i + BLOCK] = b[i] >> 4;
        }
}

static void take_Q4_K(const unsigned char *b, parts *p)
{
    p->d = half_bits(b);
    p->m = half_bits(b + 2);
    take_scales(b + 4, p);
    take_large_nibbles(b + 16, p->q);
}

static void take_Q5_K(const unsigned char *b, parts *p)
{
    p->d = half_bits(b);
    p->m = half_bits(b + 2);
    take_scales(b + 4, p);
    take_large_nibbles(b + 48, p->q);
    for (int j = 0; j < STORED_BLOCKS; j++)
        for (int i = 0; i < BLOCK; i++)
            p->q[j * BLOCK + i] |= (uint8_t)((b[16 + i] >> j & 1) << 4);
}

/* Each half of the block has 64 bytes of low bits and 32 of high ones. */
static void take_Q6_K(const unsigned char *b, parts *p)
{
    uint8_t *q = p->q;
    p->d = half_bits(b + 208);
    memcpy(p->scales, b + 192, sizeof p->scales);
    for (const unsigned char *low = b, *high = b + 128; low < b + 128; low += 64, high += 32, q += 128)
        for (int i = 0; i < BLOCK; i++) {
            q[i] = (uint8_t)((low[i] & 15) | (high[i] & 3) << 4);
            q[i + 32] = (uint8_t)((low[i + 32] & 15) | (high[i] >> 2 & 3) << 4);
            q[i + 64] = (uint8_t)(low[i] >> 4 | (high[i] >> 4 & 3) << 4);
            q[i + 96] = (uint8_t)(low[i + 32] >> 4 | (high[i] >> 6) << 4);
        }
}

/* Scales of 6 bits, 32 too large: the high bits in one number of 16, the low halves in 4 bytes. */
static void take_IQ4_XS(const unsigned char *b, parts *p)
{
    const unsigned high = half_bits(b + 2);
    p->d = half_bits(b);
    for (int j = 0; j < STORED_BLOCKS; j++) {
        p->scales[j] = (int8_t)((b[4 + j / 2] >> (j % 2 * 4) & 15) + (int)(high >> (2 * j) & 3) * 16 - 32);
        take_nibbles(b + 8 + j * BLOCK / 2, p->q + j * BLOCK);
    }
}

/* ---- Groups of GPTQ and AWQ ------------------------------------------------------------------------------ */

static inline void take_group(const unsigned char *b, int values, parts *p)
{
    p->d = half_bits(b);
    p->zero = b[2];
    for (int i = 0; i < values; i++)
        p->q[i] = b[3 + i / 2] >> (i % 2 * 4) & 15;
}

static void take_G4_32(const unsigned char *b, parts *p)
{
    take_group(b, BLOCK, p);
}

static void take_G4_128(const unsigned char *b, parts *p)
{
    take_group(b, 4 * BLOCK, p);
}

/* ---- Panels ---------------------------------------------------------------------------------------------- */

static inline void put_word(unsigned char *at, size_t nr, size_t word, size_t j, uint32_t value)
{
    memcpy(at + (word * nr + j) * sizeof value, &value, sizeof value);
}

/* 32 codes as output j of a block, whose low bits are at `at`. */
static inline void put_codes(stored_format f, const uint8_t *q, size_t nr, size_t j, unsigned char *at)
{
    int8_t ordered[BLOCK];
    uint32_t four[BLOCK / 4], high[2] = {0};
    memcpy(ordered, q, sizeof ordered);
    activation_order(ordered);
    memcpy(four, ordered, sizeof four);
    for (size_t n = 0; n < BLOCK / 4; n++) {
        if (f.low == 8)
            put_word(at, nr, n, j, four[n]);
        else if (n % 2)
            put_word(at, nr, n / 2, j, (four[n - 1] & 0x0f0f0f0fu) | (four[n] & 0x0f0f0f0fu) << 4);
        if (f.high)
            high[n * (size_t)f.high / 8] |= (four[n] >> 4 & (f.high == 1 ? 0x01010101u : 0x03030303u))
                                            << n * (size_t)f.high % 8;
    }
    for (size_t n = 0; n < (size_t)f.high; n++)
        put_word(at + (size_t)f.low * nr * sizeof(uint32_t), nr, n, j, high[n]);
}

/* The blocks of 32 of a file's block from `first` on, as output j of a group. */
static inline bool put_group(stored_format f, const parts *p, size_t first, size_t nr, size_t j, unsigned char *group)
{
    memcpy(group + j * sizeof p->d, &p->d, sizeof p->d);
    if (f.minimum)
        memcpy(group + (nr + j) * sizeof p->m, &p->m, sizeof p->m);
    if (f.zero)
        group[nr * stored_halves_bytes(f) + j] = p->zero;
    group += nr * stored_head_bytes(f);
    for (size_t b = first; b < first + (size_t)f.blocks; b++, group += nr * stored_block_bytes(f)) {
        for (size_t s = 0; s < (size_t)f.scales; s++)
            memcpy(group + s * nr + j, &p->scales[b * (size_t)f.scales + s], 1);
        if (f.scales && f.minimum)
            group[(size_t)f.scales * nr + j] = p->minima[b];
        put_codes(f, p->q + b * BLOCK, nr, j, group + nr * stored_scales_bytes(f));
    }
    return (p->d & 0x7c00) != 0x7c00 && (!f.minimum || (p->m & 0x7c00) != 0x7c00);
}

static inline __attribute__((always_inline)) bool pack_rows(const weight_type type,
                                                            void (*take)(const unsigned char *, parts *), size_t nr,
                                                            const stored_part *rows, unsigned char *panel, size_t at)
{
    const stored_format f = stored_format_of(type);
    const size_t values = (size_t)stored_file_values(f), kr = BLOCK * (size_t)f.blocks;
    const size_t group_bytes = nr * stored_group_bytes(f);
    bool finite = true;
    for (size_t r = 0; r < rows->n; r++) {
        const unsigned char *row = rows->data + r * rows->stride;
        unsigned char *group = panel;
        parts p = {0};
        for (size_t col = rows->col; col < rows->col + rows->k; col += kr, group += group_bytes) {
            if (col % values == 0 || col == rows->col)
                take(row + col / values * (size_t)f.file_bytes, &p);
            finite &= put_group(f, &p, col % values / BLOCK, nr, at + r, group);
        }
    }
    return finite;
}

bool stored_pack_rows(const gemm_kernel *g, const stored_part *rows, void *panel, size_t at)
{
#define PACK_CASE(name, ...)                                                                                           \
    case WEIGHT_##name:                                                                                                \
        return pack_rows(WEIGHT_##name, take_##name, (size_t)g->nr, rows, panel, at);
    switch (g->storage) {
        EACH_STORED_TYPE(PACK_CASE)
    default:
        return false;
    }
#undef PACK_CASE
}

/* ---- Names ----------------------------------------------------------------------------------------------- */

#define STORED_NAME(name, ...) [WEIGHT_##name - DTYPE_COUNT] = #name,
static const char *const names[WEIGHT_TYPES - DTYPE_COUNT] = {EACH_STORED_TYPE(STORED_NAME)};

bool stored_type_parse(const char *name, weight_type *type)
{
    for (weight_type t = DTYPE_COUNT; t < WEIGHT_TYPES; t++)
        if (strcmp(name, names[t - DTYPE_COUNT]) == 0) {
            *type = t;
            return true;
        }
    return false;
}

const char *stored_type_name(weight_type type)
{
    return names[type - DTYPE_COUNT];
}
