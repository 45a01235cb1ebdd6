/* kv_cache.h - keys and values of many sequences, in pages of KV_BLOCK slots (Kwon et al. 2023).
 *
 * A page holds, for KV_BLOCK positions of one sequence, the packed K and V of every layer with attention and local KV
 * head. A rank holds the positions that its sequence group keeps (sequences.h), in that order; every slot carries its
 * position.
 *
 * Sequences that begin with the same positions share pages. Of a page with several users nothing changes: it may have
 * more slots than a sequence has positions in it, and a sequence that goes on in it gets a copy first (reserve).
 */
#ifndef QWEN3_MODEL_KV_CACHE_H
#define QWEN3_MODEL_KV_CACHE_H

#include "attention/kv_shard.h"
#include "base/status.h"
#include "model/sequences.h"

typedef struct kv_page {
    struct kv_page *next; /* in the list of free pages */
    int users;            /* sequences that have it; 0 in the list */
    unsigned char *data;  /* [layers] pages as in kv_shard.h */
    kv_slots slots;
} kv_page;

/* Pages of one sequence. */
typedef struct kv_sequence {
    kv_page **pages;
    size_t n_pages, max_pages;
} kv_sequence;

typedef struct kv_cache {
    const attention_shape *shape;
    const sequence_table *table;
    int64_t layers;
    kv_sequence *sequences; /* [table->max_sequences] */
    kv_page *free_pages;
    size_t page_bytes, total_pages, used_pages; /* used: those that are not free, shared ones once */
    size_t most_pages;
} kv_cache;

/* A slot for one token of this rank. */
typedef struct kv_slot {
    kv_page *page; /* NULL where another group keeps the token */
    size_t slot;
    bool last; /* of those that have been given in its page */
} kv_slot;

/* shape and table must outlive the cache. There is no limit to pages until most_pages is set. */
qwen3_status kv_cache_open(kv_cache *c, const attention_shape *shape, int64_t layers, const sequence_table *table,
                           qwen3_error *err);
void kv_cache_close(kv_cache *c);

/* Makes room for n more positions of a sequence on this rank; nothing else changes. Fails with QWEN3_ERR_CAPACITY where
 * most_pages are used; pages that the sequence has got then, and does not need, are given back by kv_cache_truncate. */
qwen3_status kv_cache_reserve(kv_cache *c, int sequence, int64_t n, qwen3_error *err);
/* The slot of the `place`th position (sequences_append) that this rank keeps of a sequence: the one after those that
 * have slots. Room must have been reserved. */
kv_slot kv_cache_append(kv_cache *c, int sequence, int32_t position, int64_t place);
/* Forgets what is kept of a sequence but the first `kept` positions. To be called before sequences_truncate. */
void kv_cache_truncate(kv_cache *c, int sequence, int64_t kept);
/* The empty sequence `to` gets the first `kept` positions of `from`. On failure nothing changes. */
qwen3_status kv_cache_fork(kv_cache *c, int from, int to, int64_t kept, qwen3_error *err);

/* Pages that so many positions fill. */
static inline size_t kv_pages_for(int64_t positions)
{
    return kv_blocks_for((size_t)positions);
}
/* The pages of a sequence on this rank. */
static inline size_t kv_cache_pages(const kv_cache *c, int sequence)
{
    return kv_pages_for(c->table->items[sequence].owned[c->table->group]);
}
/* The part of a page that belongs to one layer. */
void *kv_cache_layer(const kv_cache *c, const kv_page *page, int64_t layer);
/* Views of the first `positions` positions of a sequence here, in one layer: out [kv_heads][pages of them]. */
void kv_cache_view(const kv_cache *c, int sequence, int64_t positions, int64_t layer, kv_block *out);

#endif
