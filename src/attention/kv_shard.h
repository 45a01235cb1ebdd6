/* kv_shard.h - a set of KV blocks with their positions in one contiguous buffer that can be sent as it is.
 *
 *   header | slot table [n_blocks] (count, positions) | pages [n_blocks]
 *   page:    [kv_heads] { packed K of the block, packed V of the block }
 *
 * The blocks come in runs, one for each sequence. All of a run but the last have KV_BLOCK slots, and the last one as
 * many as are filled, so that nothing else travels. Nothing in the buffer is an address, and every part starts at a
 * multiple of a cache line. A page of the KV cache has the form of a page of KV_BLOCK slots here. Shapes on both ends
 * must agree in kernels, kv_type, head_dim and kv_heads.
 */
#ifndef QWEN3_ATTENTION_KV_SHARD_H
#define QWEN3_ATTENTION_KV_SHARD_H

#include "attention/attention.h"

/* What is known of the slots of one block, the same for all heads. */
typedef struct kv_slots {
    int32_t count;
    int32_t min_position, max_position; /* over the filled slots; INT32_MAX, -1 where count is 0 */
    int32_t room;                       /* slots of the block */
    uint64_t page;                      /* in a shard: where its page is, in bytes from the begin of the shard */
    int32_t reserved[10];
    int32_t positions[KV_BLOCK];
} kv_slots;

/* Bytes of one page: K and V of one block for all heads. */
size_t kv_page_bytes(const attention_shape *shape, size_t slots);
/* Where K and V of a head are in a page. */
kv_place kv_page_place(const attention_shape *shape, void *page, size_t slots, size_t kv_head);

/* No slot filled, of KV_BLOCK. */
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

/* What a run of so many keys takes in a shard. */
size_t kv_run_bytes(const attention_shape *shape, size_t keys);
/* Bytes of a shard whose runs take run_bytes together; a shard without runs is a header alone. */
size_t kv_shard_bytes(size_t run_bytes);
/* Writes the header. `buffer` has kv_shard_bytes bytes and is aligned to a cache line. */
void kv_shard_init(void *buffer, size_t n_blocks);
/* Gives the next kv_blocks_for(keys) blocks their pages; no slot is filled. */
void kv_shard_add_run(const attention_shape *shape, void *buffer, size_t keys);
/* Blocks in a shard, received or made here. */
size_t kv_shard_blocks(const void *buffer);
kv_slots *kv_shard_slots(void *buffer, size_t block);
/* Where K and V of a head of a block are. */
kv_place kv_shard_place(const attention_shape *shape, void *buffer, size_t block, size_t kv_head);

/* Views of blocks [first, first + n) of the shard: blocks[h * stride + i] is block first + i of head h. The views
 * point into `buffer`. */
void kv_shard_view(const attention_shape *shape, const void *buffer, size_t first, size_t n, kv_block *blocks,
                   size_t stride);

#endif
