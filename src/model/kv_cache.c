#include "model/kv_cache.h"

#include <stdlib.h>

#include "base/memory.h"

qwen3_status kv_cache_open(kv_cache *c, const attention_shape *shape, int64_t layers, int groups, int group,
                           int max_sequences, int64_t max_tokens, qwen3_error *err)
{
    *c = (kv_cache){.shape = shape,
                    .layers = layers,
                    .groups = groups,
                    .group = group,
                    .max_sequences = max_sequences,
                    .max_tokens = max_tokens};
    c->page_bytes = (size_t)layers * kv_page_bytes(shape);
    c->sequences = calloc((size_t)max_sequences, sizeof *c->sequences);
    bool ok = c->sequences;
    for (int i = 0; ok && i < max_sequences; i++)
        ok = (c->sequences[i].owned = calloc((size_t)groups, sizeof(int64_t))) != NULL;
    return ok ? QWEN3_OK : fail(err, QWEN3_ERR_MEMORY, "no memory for the table of %d sequences", max_sequences);
}

static void page_free(kv_cache *c, kv_page *page)
{
    memory_free(page->data, c->page_bytes);
    free(page);
}

void kv_cache_close(kv_cache *c)
{
    for (int i = 0; c->sequences && i < c->max_sequences; i++) {
        for (size_t p = 0; p < c->sequences[i].n_pages; p++)
            page_free(c, c->sequences[i].pages[p]);
        free(c->sequences[i].pages);
        free(c->sequences[i].owned);
    }
    while (c->free_pages) {
        kv_page *page = c->free_pages;
        c->free_pages = page->next;
        page_free(c, page);
    }
    free(c->sequences);
    *c = (kv_cache){0};
}

static qwen3_status page_new(kv_cache *c, qwen3_error *err)
{
    kv_page *page = calloc(1, sizeof *page);
    void *data = NULL;
    if (!page)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for a page of the KV cache");
    qwen3_status status = memory_alloc(&data, c->page_bytes, "a page of the KV cache", err);
    if (status) {
        free(page);
        return status;
    }
    page->data = data;
    page->next = c->free_pages;
    c->free_pages = page;
    c->total_pages++;
    return QWEN3_OK;
}

qwen3_status kv_cache_reserve(kv_cache *c, int sequence, int64_t n, qwen3_error *err)
{
    kv_sequence *s = &c->sequences[sequence];
    size_t need = kv_pages_for(s->owned[c->group] + n);
    if (need > s->max_pages) {
        size_t max = need + need / 2 + 4;
        kv_page **pages = realloc(s->pages, max * sizeof *pages);
        if (!pages)
            return fail(err, QWEN3_ERR_MEMORY, "no memory for a table of %zu KV pages", max);
        s->pages = pages;
        s->max_pages = max;
    }
    /* Pages become the sequence's at once; they count as used when a position is booked. */
    while (s->n_pages < need) {
        if (!c->free_pages) {
            qwen3_status status = page_new(c, err);
            if (status)
                return status;
        }
        kv_page *page = c->free_pages;
        c->free_pages = page->next;
        page->next = NULL;
        kv_slots_clear(&page->slots);
        s->pages[s->n_pages++] = page;
    }
    return QWEN3_OK;
}

kv_slot kv_cache_append(kv_cache *c, int sequence, int64_t position, int owner)
{
    kv_sequence *s = &c->sequences[sequence];
    int64_t index = s->owned[owner]++;
    s->length++;
    if (owner != c->group)
        return (kv_slot){0};
    kv_page *page = s->pages[index / KV_BLOCK];
    c->used_pages += index % KV_BLOCK == 0;
    return (kv_slot){page, kv_slots_add(&page->slots, (int32_t)position)};
}

/* Gives back the pages from `keep` on. */
static void free_pages_from(kv_cache *c, kv_sequence *s, size_t keep)
{
    while (s->n_pages > keep) {
        kv_page *page = s->pages[--s->n_pages];
        page->next = c->free_pages;
        c->free_pages = page;
    }
}

void kv_cache_reset(kv_cache *c, int sequence)
{
    kv_sequence *s = &c->sequences[sequence];
    c->used_pages -= kv_pages_for(s->owned[c->group]);
    free_pages_from(c, s, 0);
    s->length = 0;
    memset(s->owned, 0, (size_t)c->groups * sizeof *s->owned);
}

int64_t kv_cache_owned_below(const kv_cache *c, int sequence, int64_t length)
{
    const kv_sequence *s = &c->sequences[sequence];
    int64_t kept = 0, high = s->owned[c->group];
    while (kept < high) { /* slots are filled in ascending order of position */
        int64_t middle = kept + (high - kept) / 2;
        if (s->pages[middle / KV_BLOCK]->slots.positions[middle % KV_BLOCK] < length)
            kept = middle + 1;
        else
            high = middle;
    }
    return kept;
}

/* Empties the slots of a page from `count` on. */
static void cut_page(const kv_cache *c, kv_page *page, size_t count)
{
    kv_slots_cut(&page->slots, count);
    for (int64_t layer = 0; layer < c->layers; layer++)
        for (size_t h = 0; h < c->shape->kv_heads; h++)
            kv_block_end(c->shape, kv_page_v(c->shape, kv_cache_layer(c, page, layer), h), count);
}

void kv_cache_truncate(kv_cache *c, int sequence, int64_t length, const int64_t *owned)
{
    kv_sequence *s = &c->sequences[sequence];
    int64_t kept = owned[c->group];
    size_t pages = kv_pages_for(kept);
    c->used_pages -= kv_pages_for(s->owned[c->group]) - pages;
    free_pages_from(c, s, pages);
    if (kept % KV_BLOCK != 0)
        cut_page(c, s->pages[pages - 1], (size_t)(kept % KV_BLOCK));
    s->length = length;
    memcpy(s->owned, owned, (size_t)c->groups * sizeof *owned);
}

size_t kv_cache_pages(const kv_cache *c, int sequence, int group)
{
    return kv_pages_for(c->sequences[sequence].owned[group]);
}

void *kv_cache_layer(const kv_cache *c, const kv_page *page, int64_t layer)
{
    return page->data + (size_t)layer * kv_page_bytes(c->shape);
}

void kv_cache_view(const kv_cache *c, int sequence, int64_t layer, kv_block *out)
{
    const kv_sequence *s = &c->sequences[sequence];
    size_t n = kv_cache_pages(c, sequence, c->group);
    for (size_t p = 0; p < n; p++)
        kv_page_view(c->shape, &s->pages[p]->slots, kv_cache_layer(c, s->pages[p], layer), out + p, n);
}
