/* quantised.c - the values of quantised matrices. */
#include "model/quantised.h"

#include <string.h>

#include "base/half.h"

/* Value `at` of a tensor of type F32, F16 or BF16. */
static float value_at(const stored_tensor *t, int64_t at)
{
    const unsigned char *data = (const unsigned char *)t->data + (size_t)at * stored_type_size(t->type);
    float value;
    uint16_t half;
    if (t->type == STORED_F32) {
        memcpy(&value, data, sizeof value);
        return value;
    }
    memcpy(&half, data, sizeof half);
    return t->type == STORED_F16 ? f16_to_f32(half) : bf16_to_f32(half);
}

/* ---- FP8 --------------------------------------------------------------------------------------- */

/* 4 bits of exponent, 3 of mantissa, no infinity. */
static inline float e4m3_to_f32(unsigned char b)
{
    const uint32_t sign = (uint32_t)(b & 0x80) << 24, exponent = b >> 3 & 15, mantissa = b & 7;
    uint32_t bits = (exponent + 120) << 23 | mantissa << 20; /* exponent bias 7 to 127 */
    float small = (float)(int32_t)mantissa * 0x1p-9f, result;
    if (exponent == 0)
        memcpy(&bits, &small, sizeof bits);
    if ((b & 0x7f) == 0x7f)
        bits = UINT32_C(0x7fc00000); /* NaN */
    bits |= sign;
    memcpy(&result, &bits, sizeof result);
    return result;
}

void expand_f8(const stored_values *s, const tensor_part *part, float *out)
{
    const unsigned char *data = s->values->data;
    for (int64_t row = part->rows.begin; row < part->rows.end; row++)
        for (int64_t col = part->cols.begin, end; col < part->cols.end; col = end) {
            const float scale = value_at(s->scales, row / F8_BLOCK * s->scales->shape[1] + col / F8_BLOCK);
            end = (col / F8_BLOCK + 1) * F8_BLOCK;
            end = end < part->cols.end ? end : part->cols.end;
            for (int64_t i = col; i < end; i++)
                *out++ = e4m3_to_f32(data[row * s->values->shape[1] + i]) * scale;
        }
}

/* ---- GPTQ and AWQ ------------------------------------------------------------------------------ */

static inline uint32_t word_at(const stored_tensor *t, int64_t at)
{
    uint32_t word;
    memcpy(&word, (const unsigned char *)t->data + (size_t)at * sizeof word, sizeof word);
    return word;
}

int64_t quantised_group(const stored_values *s, const quantization *q, int64_t col)
{
    if (s->groups)
        return (int32_t)word_at(s->groups, col);
    return q->group_size > 0 ? col / q->group_size : 0;
}

/* Where AWQ's words hold each of eight rows. */
static const int row_places[] = {0, 4, 1, 5, 2, 6, 3, 7};

/* The code of a row in a line of words along the rows. */
static inline int row_code(const quantization *q, const stored_tensor *t, int64_t line, int64_t row)
{
    const int per = 32 / q->bits, in_word = (int)(row % per);
    const int place = q->method == QUANTIZATION_AWQ ? row_places[in_word] : in_word;
    return (int)(word_at(t, line * t->shape[1] + row / per) >> (q->bits * place) & ((1u << q->bits) - 1));
}

static inline int code_at(const quantization *q, const stored_tensor *t, int64_t row, int64_t col)
{
    const int per = 32 / q->bits;
    if (q->method == QUANTIZATION_AWQ)
        return row_code(q, t, col, row);
    return (int)(word_at(t, col / per * t->shape[1] + row) >> (q->bits * (int)(col % per)) & ((1u << q->bits) - 1));
}

enum { ROWS_AT_ONCE = 64 }; /* so that words which hold several rows or columns stay in the cache */

void expand_groups(const stored_values *s, const quantization *q, const tensor_part *part, float *out)
{
    const int64_t cols = range_size(part->cols);
    for (int64_t row = part->rows.begin, n; row < part->rows.end; row += n, out += n * cols) {
        float scales[ROWS_AT_ONCE] = {0};
        int zeros[ROWS_AT_ONCE] = {0};
        int64_t known = -1; /* the group that they are of */
        n = part->rows.end - row < ROWS_AT_ONCE ? part->rows.end - row : ROWS_AT_ONCE;
        for (int64_t col = 0; col < cols; col++) {
            const int64_t group = quantised_group(s, q, part->cols.begin + col);
            for (int64_t i = 0; i < n && group != known; i++) {
                scales[i] = value_at(s->scales, group * s->scales->shape[1] + row + i);
                zeros[i] = row_code(q, s->zeros, group, row + i) + q->zero_offset;
            }
            known = group;
            for (int64_t i = 0; i < n; i++)
                out[i * cols + col] =
                    (float)(code_at(q, s->values, row + i, part->cols.begin + col) - zeros[i]) * scales[i];
        }
    }
}

/* ---- Groups as they are ------------------------------------------------------------------------ */

/* Value `at` as binary16; false where that does not have it. */
static bool half_at(const stored_tensor *t, int64_t at, uint16_t *half)
{
    if (t->type != STORED_F16)
        return f16_of_f32(value_at(t, at), half);
    memcpy(half, (const unsigned char *)t->data + (size_t)at * sizeof *half, sizeof *half);
    return true;
}

weight_type quantised_stored_type(const stored_values *s, const quantization *q, const tensor *t)
{
    const int64_t size = q->group_size > 0 ? q->group_size : t->cols;
    if (q->bits != 4 || size % BLOCK != 0 || t->cols % BLOCK != 0)
        return QWEN3_DTYPE_F32;
    for (int64_t col = 0; col < t->cols && s->groups; col++)
        if (quantised_group(s, q, col) != col / size)
            return QWEN3_DTYPE_F32;
    uint16_t half;
    for (int64_t i = 0; i < s->scales->shape[0] * s->scales->shape[1] && s->scales->type != STORED_F16; i++)
        if (!half_at(s->scales, i, &half))
            return QWEN3_DTYPE_F32;
    return size % (4 * BLOCK) == 0 && t->cols % (4 * BLOCK) == 0 ? WEIGHT_G4_128 : WEIGHT_G4_32;
}

enum { CODES = 8 }; /* in a word */

/* The codes of 8 columns from `col` on of 8 rows from `row` on, one word for each row, that of the first column lowest;
 * `row` is a multiple of 8, as is `col`. */
static void take_codes(const quantization *q, const stored_tensor *t, int64_t row, int64_t col, uint32_t words[CODES])
{
    if (q->method == QUANTIZATION_GPTQ) {
        for (int i = 0; i < CODES; i++)
            words[i] = word_at(t, col / CODES * t->shape[1] + row + i);
        return;
    }
    for (int i = 0; i < CODES; i++)
        words[i] = 0;
    for (int c = 0; c < CODES; c++) {
        const uint32_t rows = word_at(t, (col + c) * t->shape[1] + row / CODES);
        for (int i = 0; i < CODES; i++)
            words[i] |= (rows >> (4 * row_places[i]) & 15) << (4 * c);
    }
}

/* d and z of the group of a block. */
static void pack_head(const stored_values *s, const quantization *q, int64_t row, int64_t group, unsigned char *block)
{
    uint16_t d = 0;
    half_at(s->scales, group * s->scales->shape[1] + row, &d);
    memcpy(block, &d, sizeof d);
    block[sizeof d] = (unsigned char)(row_code(q, s->zeros, group, row) + q->zero_offset);
}

/* The rows [first, first + 8) of the matrix, as far as the part has them. */
static void pack_eight(const stored_values *s, const quantization *q, const tensor_part *part, stored_format f,
                       int64_t first, unsigned char *out)
{
    const int64_t values = f.blocks > 1 ? 4 * BLOCK : BLOCK, cols = range_size(part->cols);
    const int64_t row_bytes = cols / values * f.file_bytes;
    const int64_t begin = part->rows.begin > first ? part->rows.begin : first;
    const int64_t end = part->rows.end < first + CODES ? part->rows.end : first + CODES;
    out += (begin - part->rows.begin) * row_bytes;
    for (int64_t block = 0; block < cols / values; block++) {
        const int64_t at = part->cols.begin + block * values;
        const int64_t group = q->group_size > 0 ? at / q->group_size : 0;
        unsigned char *to = out + block * f.file_bytes;
        for (int64_t row = begin; row < end; row++)
            pack_head(s, q, row, group, to + (row - begin) * row_bytes);
        for (int64_t col = 0; col < values; col += CODES) {
            uint32_t words[CODES];
            take_codes(q, s->values, first, at + col, words);
            for (int64_t row = begin; row < end; row++)
                memcpy(to + (row - begin) * row_bytes + 3 + col / 2, &words[row - first], sizeof *words);
        }
    }
}

void pack_groups(const stored_values *s, const quantization *q, const tensor_part *part, weight_type type,
                 unsigned char *out)
{
    for (int64_t first = part->rows.begin / CODES * CODES; first < part->rows.end; first += CODES)
        pack_eight(s, q, part, stored_format_of(type), first, out);
}
