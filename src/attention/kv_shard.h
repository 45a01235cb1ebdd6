/* kv_shard.h - a set of KV blocks with their positions in one contiguous buffer that can be sent as it is.
 *
 *   header | slot table [n_blocks] (count, positions) | pages [n_blocks]
 *   page:    [kv_heads] { packed K of the block, packed V of the block }
 *
 * Nothing in the buffer is an address, and every part starts at a multiple of a cache line. A KV cache whose
 * pages have the form of a page here copies one with a single memcpy. Shapes on both ends must agree in
 * kernels, kv_type, head_dim and kv_heads.
 */
#ifndef QWEN3_ATTENTION_KV_SHARD_H
#define QWEN3_ATTENTION_KV_SHARD_H

#include "attention/attention.h"

/* What is known of the slots of one block, the same for all heads. */
typedef struct kv_slots {
    int32_t count;
    int32_t min_position, max_position; /* over the filled slots; INT32_MAX, -1 where count is 0 */
    int32_t reserved[13];
    int32_t positions[KV_BLOCK];
} kv_slots;

/* Bytes of one page: K and V of one block for all heads. */
size_t kv_page_bytes(const attention_shape *shape);
/* Where K and V of a head start in a page. */
void *kv_page_k(const attention_shape *shape, void *page, size_t kv_head);
void *kv_page_v(const attention_shape *shape, void *page, size_t kv_head);

/* No slot filled. */
void kv_slots_clear(kv_slots *slots);
/* What the slots of a block at hand are, whose positions are listed. */
void kv_slots_set(kv_slots *slots, const kv_block *block);
/* Fills the next slot, which must exist; returns its index. */
size_t kv_slots_add(kv_slots *slots, int32_t position);
/* Empties the slots from `count` on, 1 <= count <= slots->count, where positions ascend. */
void kv_slots_truncate(kv_slots *slots, size_t count);
/* Views of one block for all heads: blocks[h * stride] for h in [0, kv_heads). */
void kv_page_view(const attention_shape *shape, const kv_slots *slots, const void *page, kv_block *blocks,
                  size_t stride);

/* Bytes of a shard of n_blocks blocks; a shard without blocks is a header alone. */
size_t kv_shard_bytes(const attention_shape *shape, size_t n_blocks);
/* Writes the header and empties the slot tables. `buffer` has kv_shard_bytes bytes and is aligned to a cache line. */
void kv_shard_init(void *buffer, size_t n_blocks);
/* Blocks in a shard, received or made here. */
size_t kv_shard_blocks(const void *buffer);
kv_slots *kv_shard_slots(void *buffer, size_t block);
void *kv_shard_page(const attention_shape *shape, void *buffer, size_t block);

/* Views of blocks [first, first + n) of the shard: blocks[h * stride + i] is block first + i of head h. The views
 * point into `buffer`. */
void kv_shard_view(const attention_shape *shape, const void *buffer, size_t first, size_t n, kv_block *blocks,
                   size_t stride);

#endif
