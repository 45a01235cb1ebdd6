/* kv_cache.h - keys and values of many sequences, in pages of KV_BLOCK slots (Kwon et al. 2023).
 *
 * A page holds, for KV_BLOCK positions of one sequence, the packed K and V of every layer and local KV
 * head. A rank holds the positions that its sequence group owns; every slot carries its position, so
 * nothing about ownership is derived from an index afterwards. Which group owns how many positions of
 * each sequence is known to all ranks.
 */
#ifndef QWEN3_MODEL_KV_CACHE_H
#define QWEN3_MODEL_KV_CACHE_H

#include "attention/kv_shard.h"
#include "base/status.h"

typedef struct kv_page {
    struct kv_page *next; /* in the list of free pages */
    unsigned char *data;  /* [layers] pages as in kv_shard.h */
    kv_slots slots;
} kv_page;

typedef struct kv_sequence {
    int64_t length; /* positions held by the whole job */
    int64_t *owned; /* [groups] thereof by each sequence group */
    kv_page **pages;
    size_t n_pages, max_pages;
} kv_sequence;

typedef struct kv_cache {
    const attention_shape *shape;
    int64_t layers;
    int groups, group; /* sequence groups of the job, and this rank's */
    int max_sequences;
    int64_t max_tokens; /* per sequence */
    kv_sequence *sequences;
    kv_page *free_pages;
    size_t page_bytes, total_pages, used_pages;
} kv_cache;

/* A slot for one token of this rank. */
typedef struct kv_slot {
    kv_page *page; /* NULL where another group keeps the token */
    size_t slot;
} kv_slot;

/* shape must outlive the cache. */
qwen3_status kv_cache_open(kv_cache *c, const attention_shape *shape, int64_t layers, int groups, int group,
                           int max_sequences, int64_t max_tokens, qwen3_error *err);
void kv_cache_close(kv_cache *c);

/* Makes room for n more positions of a sequence on this rank; nothing else changes. */
qwen3_status kv_cache_reserve(kv_cache *c, int sequence, int64_t n, qwen3_error *err);
/* Books a position of a sequence for `owner` and returns its slot if that is this rank's group. Room must
 * have been reserved. */
kv_slot kv_cache_append(kv_cache *c, int sequence, int64_t position, int owner);
void kv_cache_reset(kv_cache *c, int sequence);
/* How many of the positions below `length` this rank's group keeps. */
int64_t kv_cache_owned_below(const kv_cache *c, int sequence, int64_t length);
/* Forgets the positions from `length` on; owned[groups] is what kv_cache_owned_below says on each group. */
void kv_cache_truncate(kv_cache *c, int sequence, int64_t length, const int64_t *owned);

/* Pages that so many positions fill. */
static inline size_t kv_pages_for(int64_t positions)
{
    return (size_t)((positions + KV_BLOCK - 1) / KV_BLOCK);
}
/* The pages of a sequence on a rank of `group`. */
size_t kv_cache_pages(const kv_cache *c, int sequence, int group);
/* The part of a page that belongs to one layer. */
void *kv_cache_layer(const kv_cache *c, const kv_page *page, int64_t layer);
/* Views of all pages of a sequence here for one layer: out [kv_heads][kv_cache_pages]. */
void kv_cache_view(const kv_cache *c, int sequence, int64_t layer, kv_block *out);

#endif
