#include "model/kv_cache.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

qwen3_status kv_cache_open(kv_cache *c, const attention_shape *shape, int64_t layers, const sequence_table *table,
                           qwen3_error *err)
{
    *c = (kv_cache){.shape = shape, .table = table, .layers = layers, .most_pages = SIZE_MAX};
    c->page_bytes = (size_t)layers * kv_page_bytes(shape, KV_BLOCK);
    c->sequences = calloc((size_t)table->max_sequences, sizeof *c->sequences);
    if (!c->sequences)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for the KV cache of %d sequences", table->max_sequences);
    return QWEN3_OK;
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

/* A table for `need` pages of a sequence. */
static qwen3_status table_reserve(kv_sequence *s, size_t need, qwen3_error *err)
{
    if (need <= s->max_pages)
        return QWEN3_OK;
    const size_t max = need + need / 2 + 4;
    kv_page **pages = realloc(s->pages, max * sizeof *pages);
    if (!pages)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for a table of %zu KV pages", max);
    s->pages = pages;
    s->max_pages = max;
    return QWEN3_OK;
}

/* An empty page with one user. */
static qwen3_status page_take(kv_cache *c, kv_page **out, qwen3_error *err)
{
    if (c->used_pages == c->most_pages)
        return fail(err, QWEN3_ERR_CAPACITY, "the KV cache is full: %zu pages of %d positions (kv_pages)",
                    c->most_pages, KV_BLOCK);
    if (!c->free_pages) {
        qwen3_status status = page_new(c, err);
        if (status)
            return status;
    }
    kv_page *page = c->free_pages;
    c->free_pages = page->next;
    page->next = NULL;
    page->users = 1;
    kv_slots_clear(&page->slots);
    c->used_pages++;
    *out = page;
    return QWEN3_OK;
}

static void page_release(kv_cache *c, kv_page *page)
{
    if (--page->users > 0)
        return;
    page->next = c->free_pages;
    c->free_pages = page;
    c->used_pages--;
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
            page_release(c, c->sequences[i].pages[p]);
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

/* Empties the slots of a page from `count` on. */
static void empty_slots(const kv_cache *c, kv_page *page, size_t count)
{
    kv_slots_truncate(&page->slots, count);
    for (int64_t layer = 0; layer < c->layers; layer++)
        for (size_t h = 0; h < c->shape->kv_heads; h++)
            kv_block_end(c->shape, kv_page_place(c->shape, kv_cache_layer(c, page, layer), KV_BLOCK, h), count);
}

/* A page of which a sequence has `count` slots, and in which it goes on where `appends` is set: without slots past
 * these, and where it goes on its own. */
static qwen3_status page_settle(kv_cache *c, kv_page **page, size_t count, bool appends, qwen3_error *err)
{
    const kv_page *shared = *page;
    const bool longer = (size_t)shared->slots.count > count;
    if (shared->users > 1 && (appends || longer)) {
        qwen3_status status = page_take(c, page, err);
        if (status)
            return status;
        memcpy((*page)->data, shared->data, c->page_bytes);
        (*page)->slots = shared->slots;
        page_release(c, (kv_page *)shared);
    }
    if (longer)
        empty_slots(c, *page, count);
    return QWEN3_OK;
}

qwen3_status kv_cache_reserve(kv_cache *c, int sequence, int64_t n, qwen3_error *err)
{
    kv_sequence *s = &c->sequences[sequence];
    const int64_t kept = c->table->items[sequence].owned[c->table->group];
    const size_t need = kv_pages_for(kept + n);
    qwen3_status status = table_reserve(s, need, err);
    if (!status && kept % KV_BLOCK != 0)
        status = page_settle(c, &s->pages[kept / KV_BLOCK], (size_t)(kept % KV_BLOCK), n > 0, err);
    while (!status && s->n_pages < need)
        if (!(status = page_take(c, &s->pages[s->n_pages], err)))
            s->n_pages++;
    return status;
}

kv_slot kv_cache_append(kv_cache *c, int sequence, int32_t position, int64_t place)
{
    kv_page *page = c->sequences[sequence].pages[place / KV_BLOCK];
    return (kv_slot){.page = page, .slot = kv_slots_add(&page->slots, position)};
}

void kv_cache_truncate(kv_cache *c, int sequence, int64_t kept)
{
    kv_sequence *s = &c->sequences[sequence];
    while (s->n_pages > kv_pages_for(kept))
        page_release(c, s->pages[--s->n_pages]);
    kv_page *last = kept % KV_BLOCK != 0 ? s->pages[s->n_pages - 1] : NULL;
    if (last && last->users == 1)
        empty_slots(c, last, (size_t)(kept % KV_BLOCK));
}

qwen3_status kv_cache_fork(kv_cache *c, int from, int to, int64_t kept, qwen3_error *err)
{
    const kv_sequence *source = &c->sequences[from];
    kv_sequence *s = &c->sequences[to];
    const size_t n = kv_pages_for(kept);
    qwen3_status status = table_reserve(s, n, err);
    for (; !status && s->n_pages < n; s->n_pages++) {
        s->pages[s->n_pages] = source->pages[s->n_pages];
        s->pages[s->n_pages]->users++;
    }
    return status;
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
