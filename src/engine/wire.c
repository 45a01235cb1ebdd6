#include "engine/wire.h"

#include <math.h>
#include <string.h>

static void bf16_encode(const comm_codec *codec, size_t n, const float *x, void *coded)
{
    ((const kernels *)codec->arg)->scale(n, 1.0f, x, coded, QWEN3_DTYPE_BF16);
}

static void bf16_decode(const comm_codec *codec, size_t n, const void *coded, float *x)
{
    ((const kernels *)codec->arg)->to_f32(n, coded, x);
}

enum { Q8_VALUES = 32 };

typedef struct q8_block {
    float scale; /* value = scale * q; not finite where a value is not */
    int8_t q[Q8_VALUES];
} q8_block;

static void q8_encode(const comm_codec *codec, size_t n, const float *x, void *coded)
{
    unsigned char *to = coded;
    (void)codec;
    for (size_t first = 0; first < n; first += Q8_VALUES, to += sizeof(q8_block)) {
        const size_t values = n - first < Q8_VALUES ? n - first : Q8_VALUES;
        q8_block block = {0};
        uint32_t bits[Q8_VALUES] = {0}, most = 0; /* of magnitudes, which are in the order of their bits, NaN last */
        memcpy(bits, x + first, values * sizeof *bits);
        for (size_t i = 0; i < Q8_VALUES; i++)
            most = (bits[i] & 0x7fffffffu) > most ? bits[i] & 0x7fffffffu : most;
        float largest;
        memcpy(&largest, &most, sizeof largest);
        block.scale = largest / 127;
        const float inverse = largest >= 0x1p-100f && isfinite(largest) ? 127 / largest : 0;
        for (size_t i = 0; i < values; i++)
            block.q[i] = inverse > 0 ? (int8_t)lrintf(x[first + i] * inverse) : 0;
        memcpy(to, &block, sizeof block);
    }
}

static void q8_decode(const comm_codec *codec, size_t n, const void *coded, float *x)
{
    const unsigned char *from = coded;
    (void)codec;
    for (size_t first = 0; first < n; first += Q8_VALUES, from += sizeof(q8_block)) {
        q8_block block;
        memcpy(&block, from, sizeof block);
        for (size_t i = 0; i < Q8_VALUES && first + i < n; i++)
            x[first + i] = block.scale * block.q[i];
    }
}

qwen3_status wire_codec(qwen3_dtype type, const kernels *k, comm_codec *codec, qwen3_error *err)
{
    *codec = (comm_codec){0};
    switch (type) {
    case QWEN3_DTYPE_AUTO:
    case QWEN3_DTYPE_F32:
        return QWEN3_OK;
    case QWEN3_DTYPE_BF16:
        *codec = (comm_codec){1, sizeof(bf16), bf16_encode, bf16_decode, k};
        return QWEN3_OK;
    case QWEN3_DTYPE_Q8:
        *codec = (comm_codec){Q8_VALUES, sizeof(q8_block), q8_encode, q8_decode, k};
        return QWEN3_OK;
    default:
        return fail(err, QWEN3_ERR_ARGUMENT, "wire %s: expected f32, bf16 or q8", qwen3_dtype_name(type));
    }
}
