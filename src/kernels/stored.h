/* stored.h - the layout of groups of stored types (stored_types.h) and how blocks of a file become panels. */
#ifndef QWEN3_KERNELS_STORED_H
#define QWEN3_KERNELS_STORED_H

#include "base/half.h"
#include "kernels/blocks.h"
#include "kernels/kernels.h"

/* Values of the largest block of a file, with one d, and its blocks of 32. */
enum { STORED_LARGE = 256, STORED_BLOCKS = STORED_LARGE / BLOCK };

/* The most that z can be: zero points of 4 bits which are stored minus 1. */
enum { STORED_MOST_ZERO = 16 };

extern const int8_t iq4_values[16];

/* A line of EACH_STORED_TYPE. */
typedef struct stored_format {
    int file_bytes;
    int blocks;
    int low, high;
    int bias;
    int scales;
    int minimum;
    int zero;
    const int8_t *levels;
} stored_format;

/* Of a type that is known when this is compiled, it costs nothing. */
static inline __attribute__((always_inline)) stored_format stored_format_of(const weight_type type)
{
#define STORED_CASE(name, ...)                                                                                         \
    case WEIGHT_##name:                                                                                                \
        return (stored_format){__VA_ARGS__};
    switch (type) {
        EACH_STORED_TYPE(STORED_CASE)
    default:
        return (stored_format){0};
    }
#undef STORED_CASE
}

/* Values in a block of a file. */
static inline int stored_file_values(stored_format f)
{
    return f.blocks == 1 || f.zero ? BLOCK * f.blocks : STORED_LARGE;
}

/* Values with one s. */
static inline int stored_run(stored_format f)
{
    return f.scales == 2 ? BLOCK / 2 : BLOCK;
}

/* Bytes of one output: before z, before the blocks of 32, of such a block before its low bits, and in all. */
static inline size_t stored_halves_bytes(stored_format f)
{
    return sizeof(uint16_t) * ((size_t)f.minimum + 1);
}

static inline size_t stored_head_bytes(stored_format f)
{
    return stored_halves_bytes(f) + (size_t)f.zero;
}

static inline size_t stored_scales_bytes(stored_format f)
{
    return (size_t)f.scales + (f.scales && f.minimum ? 1 : 0);
}

static inline size_t stored_block_bytes(stored_format f)
{
    return stored_scales_bytes(f) + ((size_t)f.low + (size_t)f.high) * sizeof(uint32_t);
}

static inline size_t stored_group_bytes(stored_format f)
{
    return stored_head_bytes(f) + (size_t)f.blocks * stored_block_bytes(f);
}

/* The four that i < 32 belongs to, and its byte there. */
static inline unsigned stored_four(size_t i)
{
    return (unsigned)(i / 8 * 2 + i % 4 / 2);
}

static inline unsigned stored_byte(size_t i)
{
    return (unsigned)(i % 2 * 2 + i % 8 / 4);
}

/* Where the word of nr outputs is that has the low bits of i, counted from the low bits of the block, and where these
 * are in the word. */
static inline size_t stored_low_word(stored_format f, size_t i)
{
    return f.low == 8 ? stored_four(i) : i / 8;
}

static inline unsigned stored_low_shift(stored_format f, size_t i)
{
    return stored_byte(i) * 8 + (f.low == 4 ? stored_four(i) % 2 * 4 : 0);
}

/* The same of the high bits, counted from the first of them. */
static inline size_t stored_high_word(stored_format f, size_t i)
{
    return stored_four(i) * (unsigned)f.high / 8;
}

static inline unsigned stored_high_shift(stored_format f, size_t i)
{
    return stored_byte(i) * 8 + stored_four(i) * (unsigned)f.high % 8;
}

/* Rows of a matrix as a file has them: blocks of all columns, `stride` bytes from row to row; of these rows columns
 * [col, col + k), multiples of the kernel's kr. */
typedef struct stored_part {
    const unsigned char *data;
    size_t stride, n, col, k;
} stored_part;

/* Packs rows as outputs [at, at + n) of a panel that was zeroed. Returns false where a value is not finite. */
bool stored_pack_rows(const gemm_kernel *g, const stored_part *rows, void *panel, size_t at);

/* The type of that name in files ("Q4_K"); false and *type untouched where it is none of the stored types. */
bool stored_type_parse(const char *name, weight_type *type);
/* Its name. */
const char *stored_type_name(weight_type type);

#endif
