/* kv_block.c - storing keys and values into blocks packed for the matrix kernels.
 *
 * K is packed as W[n = slots, k = head_dim], so that scores = q W^T; V as W[n = head_dim, k = slots], so that
 * o = p W^T. The layout is that of gemm_kernel (kernels.h): a key is one output of a panel, strided; a value is one
 * place in the groups of every output.
 */
#include "attention/attention.h"

#include "base/memory.h"

size_t kv_block_k_bytes(const attention_shape *shape)
{
    return gemm_packed_bytes(&shape->kernels->gemm[shape->kv_type], KV_BLOCK, shape->head_dim);
}

size_t kv_block_v_bytes(const attention_shape *shape)
{
    return gemm_packed_bytes(&shape->kernels->gemm[shape->kv_type], shape->head_dim, KV_BLOCK);
}

size_t attention_q_stride(const attention_shape *shape)
{
    return round_up(shape->head_dim, ACTIVATION_PAD);
}

/* Dimensions that are converted at once; a multiple of nr and kr of every level. */
#define STORE_DIMS ((size_t)64)

/* n <= STORE_DIMS values of a key into its place in a panel: kr at a time, nr * kr elements apart. */
static void store_key(const gemm_kernel *g, size_t n, const void *values, char *at)
{
    const size_t group = (size_t)g->kr * dtype_size(g->storage);
    for (size_t i = 0; i < n; i += (size_t)g->kr, at += (size_t)g->nr * group)
        memcpy(at, (const char *)values + i * dtype_size(g->storage), sizeof(uint32_t));
}

/* n <= STORE_DIMS values of a value, one for each output, kr elements apart in panels of nr. */
static void store_value(const gemm_kernel *g, size_t n, const void *values, char *at)
{
    const size_t nr = (size_t)g->nr;
    for (size_t panel = 0; panel < n; panel += nr, at += KV_BLOCK * nr * dtype_size(g->storage)) {
        const size_t end = panel + nr < n ? panel + nr : n;
        for (size_t i = panel; i < end && g->storage == QWEN3_DTYPE_F32; i++)
            memcpy(at + (i - panel) * sizeof(float), (const float *)values + i, sizeof(float));
        for (size_t i = panel; i < end && g->storage == QWEN3_DTYPE_BF16; i++)
            memcpy(at + (i - panel) * 2 * sizeof(bf16), (const bf16 *)values + i, sizeof(bf16));
    }
}

void kv_block_store(const attention_shape *shape, void *k, void *v, size_t slot, const float *key, const float *value)
{
    const gemm_kernel *g = &shape->kernels->gemm[shape->kv_type];
    const size_t size = dtype_size(g->storage), nr = (size_t)g->nr, kr = (size_t)g->kr, dim = shape->head_dim;
    char *k_slot = (char *)k + (slot / nr * round_up(dim, kr) * nr + slot % nr * kr) * size;
    char *v_slot = (char *)v + (slot / kr * nr * kr + slot % kr) * size;
    for (size_t i = 0; i < dim; i += STORE_DIMS) {
        const size_t n = dim - i < STORE_DIMS ? dim - i : STORE_DIMS;
        float converted[STORE_DIMS] = {0}; /* what a last group has past the key is 0 */
        shape->kernels->scale(n, 1.0f, key + i, converted, g->storage);
        store_key(g, n, converted, k_slot + i * nr * size);
        shape->kernels->scale(n, 1.0f, value + i, converted, g->storage);
        store_value(g, n, converted, v_slot + i * KV_BLOCK * size);
    }
}
