/* kv_shard.c - KV blocks in one sendable buffer: arithmetic of its layout. */
#include "attention/kv_shard.h"

#include <assert.h>

#include "base/memory.h"

/* One cache line. */
typedef struct kv_shard_header {
    uint64_t n_blocks;
    uint64_t reserved[7];
} kv_shard_header;

static_assert(sizeof(kv_shard_header) % CACHE_LINE == 0, "the slot table starts at a cache line");
static_assert(sizeof(kv_slots) % CACHE_LINE == 0, "pages start at a cache line");

static size_t aligned_k_bytes(const attention_shape *shape)
{
    return round_up(kv_block_k_bytes(shape), CACHE_LINE);
}

static size_t head_bytes(const attention_shape *shape)
{
    return aligned_k_bytes(shape) + round_up(kv_block_v_bytes(shape), CACHE_LINE);
}

size_t kv_page_bytes(const attention_shape *shape)
{
    return shape->kv_heads * head_bytes(shape);
}

void *kv_page_k(const attention_shape *shape, void *page, size_t kv_head)
{
    return (char *)page + kv_head * head_bytes(shape);
}

void *kv_page_v(const attention_shape *shape, void *page, size_t kv_head)
{
    return (char *)page + kv_head * head_bytes(shape) + aligned_k_bytes(shape);
}

void kv_slots_clear(kv_slots *slots)
{
    memset(slots, 0, sizeof *slots);
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
    assert(slots->count < KV_BLOCK);
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
    const size_t k_bytes = aligned_k_bytes(shape), step = head_bytes(shape);
    for (size_t h = 0; h < shape->kv_heads; h++, k += step)
        blocks[h * stride] = (kv_block){.k = k,
                                        .v = k + k_bytes,
                                        .positions = slots->positions,
                                        .count = slots->count,
                                        .min_position = slots->min_position,
                                        .max_position = slots->max_position};
}

size_t kv_shard_bytes(const attention_shape *shape, size_t n_blocks)
{
    return sizeof(kv_shard_header) + n_blocks * (sizeof(kv_slots) + kv_page_bytes(shape));
}

void kv_shard_init(void *buffer, size_t n_blocks)
{
    *(kv_shard_header *)buffer = (kv_shard_header){.n_blocks = n_blocks};
    for (size_t b = 0; b < n_blocks; b++)
        kv_slots_clear(kv_shard_slots(buffer, b));
}

size_t kv_shard_blocks(const void *buffer)
{
    return ((const kv_shard_header *)buffer)->n_blocks;
}

kv_slots *kv_shard_slots(void *buffer, size_t block)
{
    return (kv_slots *)((char *)buffer + sizeof(kv_shard_header)) + block;
}

void *kv_shard_page(const attention_shape *shape, void *buffer, size_t block)
{
    return (char *)kv_shard_slots(buffer, kv_shard_blocks(buffer)) + block * kv_page_bytes(shape);
}

void kv_shard_view(const attention_shape *shape, const void *buffer, size_t first, size_t n, kv_block *blocks,
                   size_t stride)
{
    const kv_slots *slots = (const kv_slots *)((const char *)buffer + sizeof(kv_shard_header));
    const char *pages = (const char *)(slots + kv_shard_blocks(buffer));
    for (size_t b = first; b < first + n; b++)
        kv_page_view(shape, slots + b, pages + b * kv_page_bytes(shape), blocks + (b - first), stride);
}
