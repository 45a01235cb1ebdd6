#include "model/kv_cache.h"

#include <stdlib.h>

#include "base/memory.h"

qwen3_status kv_cache_open(kv_cache *c, const attention_shape *shape, int64_t layers, const sequence_table *table,
                           qwen3_error *err)
{
    *c = (kv_cache){.shape = shape, .table = table, .layers = layers};
    c->page_bytes = (size_t)layers * kv_page_bytes(shape, KV_BLOCK);
    c->sequences = calloc((size_t)table->max_sequences, sizeof *c->sequences);
    if (!c->sequences)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for the KV cache of %d sequences", table->max_sequences);
    return QWEN3_OK;
}

static void page_free(kv_cache *c, kv_page *page)
{
    memory_free(page->data, c->page_bytes);
    free(page);
}

void kv_cache_close(kv_cache *c)
{
    for (int i = 0; c->sequences && i < c->table->max_sequences; i++) {
        for (size_t p = 0; p < c->sequences[i].n_pages; p++)
            page_free(c, c->sequences[i].pages[p]);
        free(c->sequences[i].pages);
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
    const size_t need = kv_pages_for(c->table->items[sequence].owned[c->table->group] + n);
    if (need > s->max_pages) {
        size_t max = need + need / 2 + 4;
        kv_page **pages = realloc(s->pages, max * sizeof *pages);
        if (!pages)
            return fail(err, QWEN3_ERR_MEMORY, "no memory for a table of %zu KV pages", max);
        s->pages = pages;
        s->max_pages = max;
    }
    /* Pages become the sequence's at once; they count as used when a position gets a slot. */
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

kv_slot kv_cache_append(kv_cache *c, int sequence, int32_t position, int64_t place)
{
    kv_page *page = c->sequences[sequence].pages[place / KV_BLOCK];
    c->used_pages += place % KV_BLOCK == 0;
    return (kv_slot){.page = page, .slot = kv_slots_add(&page->slots, position)};
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

/* Empties the slots of a page from `count` on. */
static void empty_slots(const kv_cache *c, kv_page *page, size_t count)
{
    kv_slots_truncate(&page->slots, count);
    for (int64_t layer = 0; layer < c->layers; layer++)
        for (size_t h = 0; h < c->shape->kv_heads; h++)
            kv_block_end(c->shape, kv_page_place(c->shape, kv_cache_layer(c, page, layer), KV_BLOCK, h), count);
}

void kv_cache_truncate(kv_cache *c, int sequence, int64_t kept)
{
    kv_sequence *s = &c->sequences[sequence];
    const size_t pages = kv_pages_for(kept);
    c->used_pages -= kv_cache_pages(c, sequence) - pages;
    free_pages_from(c, s, pages);
    if (kept % KV_BLOCK != 0)
        empty_slots(c, s->pages[pages - 1], (size_t)(kept % KV_BLOCK));
}

void *kv_cache_layer(const kv_cache *c, const kv_page *page, int64_t layer)
{
    return page->data + (size_t)layer * kv_page_bytes(c->shape, KV_BLOCK);
}

void kv_cache_view(const kv_cache *c, int sequence, int64_t positions, int64_t layer, kv_block *out)
{
    const kv_sequence *s = &c->sequences[sequence];
    const size_t n = kv_pages_for(positions);
    for (size_t p = 0; p < n; p++) {
        const kv_slots *slots = &s->pages[p]->slots;
        kv_page_view(c->shape, slots, kv_cache_layer(c, s->pages[p], layer), out + p, n);
        const int32_t most = (int32_t)(positions - (int64_t)p * KV_BLOCK);
        for (size_t h = 0; h < c->shape->kv_heads && slots->count > most; h++) {
            out[h * n + p].count = most;
            out[h * n + p].max_position = slots->positions[most - 1];
        }
    }
}
