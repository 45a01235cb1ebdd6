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

/* The code of a row in a line of words along the rows. */
static inline int row_code(const quantization *q, const stored_tensor *t, int64_t line, int64_t row)
{
    static const int places[] = {0, 4, 1, 5, 2, 6, 3, 7}; /* of AWQ's rows */
    const int per = 32 / q->bits, in_word = (int)(row % per);
    const int place = q->method == QUANTIZATION_AWQ ? places[in_word] : in_word;
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
