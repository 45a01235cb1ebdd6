/* kv_block.c - storing keys and values into blocks packed for the matrix kernels.
 *
 * K is packed as W[n = slots, k = head_dim], so that scores = q W^T; V as W[n = head_dim, k = slots], so that
 * o = p W^T. The layout is that of gemm_kernel (kernels.h): a key is one output of a panel, strided; a value is one
 * place in the groups of every output. Q8 has a byte in the place of each BF16 value, and scales before them.
 */
#include "attention/attention.h"

/* Bytes of a packed W[n, k], without scales. */
static size_t packed_bytes(const attention_shape *shape, size_t n, size_t k)
{
    const size_t bytes = gemm_packed_bytes(attention_gemm(shape), n, k);
    return shape->kv_type == QWEN3_DTYPE_Q8 ? bytes / sizeof(bf16) : bytes;
}

/* Of the scales before it. */
static size_t scale_bytes(const attention_shape *shape, size_t slots)
{
    return shape->kv_type == QWEN3_DTYPE_Q8 ? kv_scale_bytes(slots) : 0;
}

size_t kv_block_k_bytes(const attention_shape *shape, size_t slots)
{
    return scale_bytes(shape, slots) + packed_bytes(shape, slots, shape->head_dim);
}

size_t kv_block_v_bytes(const attention_shape *shape, size_t slots)
{
    return scale_bytes(shape, slots) + packed_bytes(shape, shape->head_dim, slots);
}

size_t attention_q_stride(const attention_shape *shape)
{
    return round_up(shape->head_dim, ACTIVATION_PAD);
}

/* Dimensions that are converted at once; a multiple of nr and kr of every level. */
#define STORE_DIMS ((size_t)64)
/* Slots that are written at once where they all come together; a multiple of kr that divides nr at every level. */
#define STORE_SLOTS ((size_t)4)

/* Some dimensions of a key or value, in the storage type. A group of kr of them has 32 bits. */
typedef union stored {
    float f32[STORE_DIMS];
    bf16 bf16[STORE_DIMS];
    uint32_t group[STORE_DIMS];
} stored;

/* The groups of `slots` keys, which lie side by side, in a panel: nr groups from one to the next. */
static void store_keys(const gemm_kernel *g, size_t slots, size_t n, const stored *key, unsigned char *at)
{
    const size_t groups = (n + (size_t)g->kr - 1) / (size_t)g->kr, step = (size_t)g->nr * sizeof(uint32_t);
    if (slots == STORE_SLOTS) {
        for (size_t i = 0; i < groups; i++, at += step) {
            const uint32_t four[STORE_SLOTS] = {key[0].group[i], key[1].group[i], key[2].group[i], key[3].group[i]};
            memcpy(at, four, sizeof four);
        }
        return;
    }
    for (size_t s = 0; s < slots; s++)
        for (size_t i = 0; i < groups; i++)
            memcpy(at + s * sizeof(uint32_t) + i * step, &key[s].group[i], sizeof(uint32_t));
}

/* BF16 values of slots 2 i and 2 i + 1 are the pairs of a group: n outputs of a panel. */
static void store_pair(size_t n, const bf16 *even, const bf16 *odd, unsigned char *at)
{
    for (size_t i = 0; i < n; i++) {
        const uint32_t pair = even[i] | (uint32_t)odd[i] << 16;
        memcpy(at + i * sizeof pair, &pair, sizeof pair);
    }
}

/* Where an output of the values has its groups of slots, and how far the panels are apart. */
typedef struct value_panels {
    unsigned char *at;
    size_t step;
} value_panels;

/* Of outputs from `first` on, which begin a panel. */
static value_panels panels_from(const attention_shape *shape, kv_place to, size_t first)
{
    const gemm_kernel *g = attention_gemm(shape);
    const size_t nr = (size_t)g->nr, step = packed_bytes(shape, nr, to.slots);
    return (value_panels){(unsigned char *)to.v + scale_bytes(shape, to.slots) + first / nr * step, step};
}

/* The values of `slots` slots from `slot` on. */
static void store_values(const gemm_kernel *g, size_t slot, size_t slots, size_t n, const stored *value,
                         value_panels panels)
{
    const size_t nr = (size_t)g->nr, kr = (size_t)g->kr;
    unsigned char *at = panels.at;
    for (size_t first = 0; first < n; first += nr, at += panels.step) {
        const size_t outputs = n - first < nr ? n - first : nr;
        for (size_t s = 0; s < slots; s++) {
            unsigned char *group = at + (slot + s) / kr * nr * sizeof(uint32_t);
            const size_t place = (slot + s) % kr * sizeof(bf16);
            if (kr == 1) {
                memcpy(group, value[s].f32 + first, outputs * sizeof(float));
            } else if (place == 0 && s + 1 < slots) {
                store_pair(outputs, value[s].bf16 + first, value[s + 1].bf16 + first, group);
                s++;
            } else {
                for (size_t i = 0; i < outputs; i++)
                    memcpy(group + i * sizeof(uint32_t) + place, &value[s].bf16[first + i], sizeof(bf16));
            }
        }
    }
}

void kv_block_prefetch(const attention_shape *shape, kv_place to, size_t slot)
{
    const gemm_kernel *g = attention_gemm(shape);
    const bool bytes = shape->kv_type == QWEN3_DTYPE_Q8;
    const size_t nr = (size_t)g->nr, kr = (size_t)g->kr, dim = shape->head_dim, groups = (dim + kr - 1) / kr;
    const size_t output_bytes = kr * (bytes ? 1 : dtype_size(g->storage)), group_bytes = nr * output_bytes;
    const value_panels panels = panels_from(shape, to, 0);
    const char *key =
        (const char *)to.k + scale_bytes(shape, to.slots) + slot / nr * groups * group_bytes + slot % nr * output_bytes;
    const unsigned char *value = panels.at + slot / kr * group_bytes;
    for (size_t i = 0; i < groups; i++)
        __builtin_prefetch(key + i * group_bytes, 1);
    for (size_t i = 0; i < dim; i += nr, value += panels.step)
        for (size_t b = 0; b < group_bytes; b += CACHE_LINE)
            __builtin_prefetch(value + b, 1);
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

static void store_q8(const attention_shape *shape, kv_place to, size_t slot, const float *key, const float *value)
{
    const gemm_kernel *g = attention_gemm(shape);
    const size_t nr = (size_t)g->nr, kr = (size_t)g->kr, dim = shape->head_dim;
    const value_panels panels = panels_from(shape, to, 0);
    int8_t *k_slot = (int8_t *)to.k + kv_scale_bytes(to.slots) + slot / nr * round_up(dim, kr) * nr + slot % nr * kr;
    int8_t *v_slot = (int8_t *)panels.at + slot / kr * nr * kr + slot % kr;
    float key_inverse, value_inverse;
    ((float *)to.k)[slot] = scale_of(dim, key, &key_inverse);
    ((float *)to.v)[slot] = scale_of(dim, value, &value_inverse);
    for (size_t i = 0; i < dim; i += STORE_DIMS, k_slot += STORE_DIMS * nr) {
        const size_t n = dim - i < STORE_DIMS ? dim - i : STORE_DIMS;
        int8_t q[STORE_DIMS] = {0}; /* what a last group has past the key is 0 */
        to_bytes(n, key_inverse, key + i, q);
        for (size_t j = 0; j < n; j += kr)
            memcpy(k_slot + j * nr, q + j, sizeof(uint16_t));
        to_bytes(n, value_inverse, value + i, q);
        for (size_t j = 0; j < n; j++)
            v_slot[(i + j) / nr * panels.step + (i + j) % nr * kr] = q[j];
    }
}

/* A value of zeros, of which Q8 needs no more than the scale. kr is 1 or 2: there is one such slot, or none. */
void kv_block_end(const attention_shape *shape, kv_place to, size_t count)
{
    static const stored zeros;
    const gemm_kernel *g = attention_gemm(shape);
    const size_t dim = shape->head_dim;
    if (count % (size_t)g->kr == 0)
        return;
    if (shape->kv_type == QWEN3_DTYPE_Q8) {
        ((float *)to.v)[count] = 0;
        return;
    }
    for (size_t i = 0; i < dim; i += STORE_DIMS)
        store_values(g, count, 1, dim - i < STORE_DIMS ? dim - i : STORE_DIMS, &zeros, panels_from(shape, to, i));
}

void kv_block_copy(const attention_shape *shape, kv_place to, const kv_block *from)
{
    const size_t nr = (size_t)attention_gemm(shape)->nr, scales = scale_bytes(shape, to.slots);
    const size_t from_scales = scale_bytes(shape, from->slots), from_step = packed_bytes(shape, nr, from->slots);
    const value_panels panels = panels_from(shape, to, 0);
    const char *value = (const char *)from->v + from_scales;
    memcpy(to.k, from->k, scales);
    memcpy((char *)to.k + scales, (const char *)from->k + from_scales, packed_bytes(shape, to.slots, shape->head_dim));
    memcpy(to.v, from->v, scales);
    for (size_t i = 0, at = 0; i < shape->head_dim; i += nr, at += panels.step, value += from_step)
        memcpy(panels.at + at, value, panels.step);
}

/* Some slots of one panel. */
static void store_elements(const attention_shape *shape, kv_place to, size_t slot, size_t slots, const float *key,
                           const float *value)
{
    const gemm_kernel *g = attention_gemm(shape);
    const size_t nr = (size_t)g->nr, kr = (size_t)g->kr, dim = shape->head_dim, size = dtype_size(g->storage);
    unsigned char *k_at = (unsigned char *)to.k + (slot / nr * round_up(dim, kr) * nr + slot % nr * kr) * size;
    stored converted[STORE_SLOTS];
    for (size_t i = 0; i < dim; i += STORE_DIMS) {
        const size_t n = dim - i < STORE_DIMS ? dim - i : STORE_DIMS;
        for (size_t s = 0; s < slots; s++) {
            converted[s].group[(n - 1) / kr] = 0; /* what a last group has past the key is 0 */
            shape->kernels->scale(n, 1.0f, key + s * dim + i, &converted[s], g->storage);
        }
        store_keys(g, slots, n, converted, k_at + i * nr * size);
        for (size_t s = 0; s < slots; s++)
            shape->kernels->scale(n, 1.0f, value + s * dim + i, &converted[s], g->storage);
        store_values(g, slot, slots, n, converted, panels_from(shape, to, i));
    }
}

void kv_block_store(const attention_shape *shape, kv_place to, size_t slot, size_t slots, const float *key,
                    const float *value)
{
    for (const size_t end = slot + slots, dim = shape->head_dim; slot < end;) {
        const bool bytes = shape->kv_type == QWEN3_DTYPE_Q8;
        const size_t aligned = bytes ? slot + 1 : slot / STORE_SLOTS * STORE_SLOTS + STORE_SLOTS;
        const size_t n = aligned < end ? aligned - slot : end - slot;
        if (bytes)
            store_q8(shape, to, slot, key, value);
        else
            store_elements(shape, to, slot, n, key, value);
        slot += n, key += n * dim, value += n * dim;
    }
}
