/* kv_shard.c - KV blocks in one sendable buffer: arithmetic of its layout. */
#include "attention/kv_shard.h"

#include <assert.h>

#include "base/memory.h"

/* One cache line. */
typedef struct kv_shard_header {
    uint64_t n_blocks;
    uint64_t placed; /* of these, that have a page */
    uint64_t end;    /* of the last page */
    uint64_t reserved[5];
} kv_shard_header;

static_assert(sizeof(kv_shard_header) % CACHE_LINE == 0, "the slot table starts at a cache line");
static_assert(sizeof(kv_slots) % CACHE_LINE == 0, "pages start at a cache line");

static size_t aligned_k_bytes(const attention_shape *shape, size_t slots)
{
    return round_up(kv_block_k_bytes(shape, slots), CACHE_LINE);
}

static size_t head_bytes(const attention_shape *shape, size_t slots)
{
    return aligned_k_bytes(shape, slots) + round_up(kv_block_v_bytes(shape, slots), CACHE_LINE);
}

size_t kv_page_bytes(const attention_shape *shape, size_t slots)
{
    return shape->kv_heads * head_bytes(shape, slots);
}

kv_place kv_page_place(const attention_shape *shape, void *page, size_t slots, size_t kv_head)
{
    char *k = (char *)page + kv_head * head_bytes(shape, slots);
    return (kv_place){k, k + aligned_k_bytes(shape, slots), slots};
}

void kv_slots_clear(kv_slots *slots)
{
    memset(slots, 0, sizeof *slots);
    slots->room = KV_BLOCK;
    slots->min_position = INT32_MAX;
    slots->max_position = -1;
}

void kv_slots_set(kv_slots *slots, const kv_block *block)
{
    slots->count = block->count;
    slots->min_position = block->min_position;
    slots->max_position = block->max_position;
    memcpy(slots->positions, block->positions, (size_t)block->count * sizeof *slots->positions);
}

size_t kv_slots_add(kv_slots *slots, int32_t position)
{
    assert(slots->count < slots->room);
    slots->positions[slots->count] = position;
    if (position < slots->min_position)
        slots->min_position = position;
    if (position > slots->max_position)
        slots->max_position = position;
    return (size_t)slots->count++;
}

void kv_slots_truncate(kv_slots *slots, size_t count)
{
    assert(count > 0 && (int32_t)count <= slots->count);
    slots->count = (int32_t)count;
    slots->max_position = slots->positions[count - 1];
}

void kv_page_view(const attention_shape *shape, const kv_slots *slots, const void *page, kv_block *blocks,
                  size_t stride)
{
    const char *k = page;
    const size_t room = (size_t)slots->room, k_bytes = aligned_k_bytes(shape, room), step = head_bytes(shape, room);
    for (size_t h = 0; h < shape->kv_heads; h++, k += step)
        blocks[h * stride] = (kv_block){.k = k,
                                        .v = k + k_bytes,
                                        .slots = room,
                                        .positions = slots->positions,
                                        .count = slots->count,
                                        .min_position = slots->min_position,
                                        .max_position = slots->max_position};
}

size_t kv_run_bytes(const attention_shape *shape, size_t keys)
{
    const size_t whole = keys / KV_BLOCK, rest = keys % KV_BLOCK;
    return kv_blocks_for(keys) * sizeof(kv_slots) + whole * kv_page_bytes(shape, KV_BLOCK) +
           (rest ? kv_page_bytes(shape, rest) : 0);
}

size_t kv_shard_bytes(size_t run_bytes)
{
    return sizeof(kv_shard_header) + run_bytes;
}

void kv_shard_init(void *buffer, size_t n_blocks)
{
    *(kv_shard_header *)buffer =
        (kv_shard_header){.n_blocks = n_blocks, .end = sizeof(kv_shard_header) + n_blocks * sizeof(kv_slots)};
}

void kv_shard_add_run(const attention_shape *shape, void *buffer, size_t keys)
{
    kv_shard_header *header = buffer;
    for (size_t room; keys > 0; keys -= room) {
        room = keys < KV_BLOCK ? keys : KV_BLOCK;
        assert(header->placed < header->n_blocks);
        kv_slots *slots = kv_shard_slots(buffer, header->placed++);
        kv_slots_clear(slots);
        slots->room = (int32_t)room;
        slots->page = header->end;
        header->end += kv_page_bytes(shape, room);
    }
}

size_t kv_shard_blocks(const void *buffer)
{
    return ((const kv_shard_header *)buffer)->n_blocks;
}

kv_slots *kv_shard_slots(void *buffer, size_t block)
{
    return (kv_slots *)((char *)buffer + sizeof(kv_shard_header)) + block;
}

kv_place kv_shard_place(const attention_shape *shape, void *buffer, size_t block, size_t kv_head)
{
    const kv_slots *slots = kv_shard_slots(buffer, block);
    return kv_page_place(shape, (char *)buffer + slots->page, (size_t)slots->room, kv_head);
}

void kv_shard_view(const attention_shape *shape, const void *buffer, size_t first, size_t n, kv_block *blocks,
                   size_t stride)
{
    const kv_slots *slots = (const kv_slots *)((const char *)buffer + sizeof(kv_shard_header));
    for (size_t b = first; b < first + n; b++)
        kv_page_view(shape, slots + b, (const char *)buffer + slots[b].page, blocks + (b - first), stride);
}
