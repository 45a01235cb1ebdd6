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

/* The two stores, for either storage type; kr and size are constants where this is called. */
__attribute__((always_inline)) static inline void store_value(char *at, float x, qwen3_dtype type)
{
    if (type == QWEN3_DTYPE_F32) {
        memcpy(at, &x, sizeof x);
    } else {
        bf16 h = f32_to_bf16(x);
        memcpy(at, &h, sizeof h);
    }
}

__attribute__((always_inline)) static inline void store(const gemm_kernel *g, qwen3_dtype type, size_t head_dim,
                                                        char *k, char *v, size_t slot, const float *key,
                                                        const float *value)
{
    const size_t size = type == QWEN3_DTYPE_F32 ? 4 : 2, nr = (size_t)g->nr, kr = (size_t)g->kr;
    char *k_slot = k + (slot / nr * round_up(head_dim, kr) * nr + slot % nr * kr) * size;
    for (size_t i = 0; i < head_dim; i++)
        store_value(k_slot + (i / kr * nr * kr + i % kr) * size, key[i], type);
    char *v_slot = v + (slot / kr * nr * kr + slot % kr) * size;
    for (size_t panel = 0; panel < head_dim; panel += nr, v_slot += KV_BLOCK * nr * size)
        for (size_t j = 0; j < nr && panel + j < head_dim; j++)
            store_value(v_slot + j * kr * size, value[panel + j], type);
}

void kv_block_store(const attention_shape *shape, void *k, void *v, size_t slot, const float *key, const float *value)
{
    const gemm_kernel *g = &shape->kernels->gemm[shape->kv_type];
    if (shape->kv_type == QWEN3_DTYPE_F32)
        store(g, QWEN3_DTYPE_F32, shape->head_dim, k, v, slot, key, value);
    else
        store(g, QWEN3_DTYPE_BF16, shape->head_dim, k, v, slot, key, value);
}
