/* kv_block.c - storing keys and values into blocks packed for the matrix kernels.
 *
 * K is packed as W[n = slots, k = head_dim], so that scores = q W^T; V as W[n = head_dim, k = slots], so that
 * o = p W^T. The layout is that of gemm_kernel (kernels.h): a key is one output of a panel, strided; a value is one
 * place in the groups of every output. Q8 has a byte in the place of each BF16 value, and scales before them.
 */
#include "attention/attention.h"

#include "base/memory.h"

/* Of a packed W[n, k]. */
static size_t packed_bytes(const attention_shape *shape, size_t n, size_t k)
{
    const size_t bytes = gemm_packed_bytes(attention_gemm(shape), n, k);
    return shape->kv_type == QWEN3_DTYPE_Q8 ? KV_BLOCK * sizeof(float) + bytes / sizeof(bf16) : bytes;
}

size_t kv_block_k_bytes(const attention_shape *shape)
{
    return packed_bytes(shape, KV_BLOCK, shape->head_dim);
}

size_t kv_block_v_bytes(const attention_shape *shape)
{
    return packed_bytes(shape, shape->head_dim, KV_BLOCK);
}

size_t attention_q_stride(const attention_shape *shape)
{
    return round_up(shape->head_dim, ACTIVATION_PAD);
}

/* Dimensions that are converted at once; a multiple of nr and kr of every level. */
#define STORE_DIMS ((size_t)64)

/* n <= STORE_DIMS values of a key, of `size` bytes each, into its place in a panel: kr at a time, nr * kr elements
 * apart. */
static void store_key(const gemm_kernel *g, size_t n, size_t size, const void *values, char *at)
{
    const size_t kr = (size_t)g->kr, step = (size_t)g->nr * kr * size;
    const char *from = values;
    for (size_t i = 0; i < n && size > 1; i += kr, at += step)
        memcpy(at, from + i * size, sizeof(uint32_t));
    for (size_t i = 0; i < n && size == 1; i += kr, at += step)
        memcpy(at, from + i, sizeof(uint16_t));
}

/* n <= STORE_DIMS values of a value, one for each output, kr elements apart in panels of nr. */
static void store_value(const gemm_kernel *g, size_t n, size_t size, const void *values, char *at)
{
    const size_t nr = (size_t)g->nr;
    for (size_t panel = 0; panel < n; panel += nr, at += KV_BLOCK * nr * size) {
        const size_t end = panel + nr < n ? panel + nr : n;
        for (size_t i = panel; i < end && size == sizeof(float); i++)
            memcpy(at + (i - panel) * sizeof(float), (const float *)values + i, sizeof(float));
        for (size_t i = panel; i < end && size == sizeof(bf16); i++)
            memcpy(at + (i - panel) * 2 * sizeof(bf16), (const bf16 *)values + i, sizeof(bf16));
        for (size_t i = panel; i < end && size == 1; i++)
            memcpy(at + (i - panel) * 2, (const int8_t *)values + i, 1);
    }
}

/* The largest magnitude; infinite or NaN where one of x is. */
static float largest_magnitude(size_t n, const float *x)
{
    uint32_t largest = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffffu;
        largest = bits > largest ? bits : largest;
    }
    float magnitude;
    memcpy(&magnitude, &largest, sizeof magnitude);
    return magnitude;
}

/* q[i] = nearest integer to x[i] * inverse, of magnitude <= 127. */
static void to_bytes(size_t n, float inverse, const float *x, int8_t *q)
{
    for (size_t i = 0; i < n; i++) {
        const float rounded = x[i] * inverse + 12582912.0f; /* 1.5 * 2^23 leaves the integer in the low bits */
        uint32_t bits;
        memcpy(&bits, &rounded, sizeof bits);
        q[i] = (int8_t)(uint8_t)bits;
    }
}

/* The scale of a vector, and its inverse. One that is too small for the inverse to be finite becomes 0. */
static float scale_of(size_t n, const float *x, float *inverse)
{
    const float largest = largest_magnitude(n, x);
    *inverse = largest < 0x1p-100f ? 0.0f : 127.0f / largest;
    return largest < 0x1p-100f ? 0.0f : largest / 127.0f;
}

static void store_q8(const attention_shape *shape, void *k, void *v, size_t slot, const float *key, const float *value)
{
    const gemm_kernel *g = attention_gemm(shape);
    const size_t nr = (size_t)g->nr, kr = (size_t)g->kr, dim = shape->head_dim;
    char *k_slot = (char *)k + KV_BLOCK * sizeof(float) + slot / nr * round_up(dim, kr) * nr + slot % nr * kr;
    char *v_slot = (char *)v + KV_BLOCK * sizeof(float) + slot / kr * nr * kr + slot % kr;
    float key_inverse, value_inverse;
    ((float *)k)[slot] = scale_of(dim, key, &key_inverse);
    ((float *)v)[slot] = scale_of(dim, value, &value_inverse);
    for (size_t i = 0; i < dim; i += STORE_DIMS) {
        const size_t n = dim - i < STORE_DIMS ? dim - i : STORE_DIMS;
        int8_t q[STORE_DIMS] = {0}; /* what a last group has past the key is 0 */
        to_bytes(n, key_inverse, key + i, q);
        store_key(g, n, 1, q, k_slot + i * nr);
        to_bytes(n, value_inverse, value + i, q);
        store_value(g, n, 1, q, v_slot + i * KV_BLOCK);
    }
}

void kv_block_store(const attention_shape *shape, void *k, void *v, size_t slot, const float *key, const float *value)
{
    if (shape->kv_type == QWEN3_DTYPE_Q8) {
        store_q8(shape, k, v, slot, key, value);
        return;
    }
    const gemm_kernel *g = attention_gemm(shape);
    const size_t size = dtype_size(g->storage), nr = (size_t)g->nr, kr = (size_t)g->kr, dim = shape->head_dim;
    char *k_slot = (char *)k + (slot / nr * round_up(dim, kr) * nr + slot % nr * kr) * size;
    char *v_slot = (char *)v + (slot / kr * nr * kr + slot % kr) * size;
    for (size_t i = 0; i < dim; i += STORE_DIMS) {
        const size_t n = dim - i < STORE_DIMS ? dim - i : STORE_DIMS;
        float converted[STORE_DIMS] = {0}; /* what a last group has past the key is 0 */
        shape->kernels->scale(n, 1.0f, key + i, converted, g->storage);
        store_key(g, n, size, converted, k_slot + i * nr * size);
        shape->kernels->scale(n, 1.0f, value + i, converted, g->storage);
        store_value(g, n, size, converted, v_slot + i * KV_BLOCK * size);
    }
}

void kv_block_ask(const attention_shape *shape, const void *k, const void *v, size_t slot)
{
    const gemm_kernel *g = attention_gemm(shape);
    const bool q8 = shape->kv_type == QWEN3_DTYPE_Q8;
    const size_t size = q8 ? 1 : dtype_size(g->storage), nr = (size_t)g->nr, kr = (size_t)g->kr, dim = shape->head_dim;
    const char *k_slot =
        (const char *)(q8 ? kv_block_q8(k) : k) + (slot / nr * round_up(dim, kr) * nr + slot % nr * kr) * size;
    const char *v_group = (const char *)(q8 ? kv_block_q8(v) : v) + slot / kr * nr * kr * size;
    for (size_t i = 0; i < dim; i += kr)
        __builtin_prefetch(k_slot + i * nr * size, 1);
    for (size_t panel = 0; panel < dim; panel += nr)
        for (size_t b = 0; b < nr * kr * size; b += CACHE_LINE)
            __builtin_prefetch(v_group + panel * KV_BLOCK * size + b, 1);
}
