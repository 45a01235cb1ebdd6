/* tokenizer_tables.c - look-up of tokens by bytes, of merges by pair, of added tokens in text. */
#include "io/tokenizer.h"

#include <stdlib.h>
#include <string.h>

static inline uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t h = (a ^ b) * UINT64_C(0x9E3779B97F4A7C15);
    return h ^ h >> 32;
}

/* Slots are a power of two, at most two thirds full. */
static size_t slots_for(size_t n)
{
    size_t slots = 16;
    while (slots < n + n / 2 + 1)
        slots *= 2;
    return slots;
}

static inline uint64_t load(const unsigned char *bytes, size_t n)
{
    uint64_t word = 0;
    memcpy(&word, bytes, n);
    return word;
}

/* The last bytes are read with an overlap: cheaper than a loop. */
static inline uint64_t hash_bytes(const unsigned char *bytes, size_t n)
{
    uint64_t h = n;
    if (n >= 8) {
        for (size_t i = 0; i + 8 < n; i += 8)
            h = mix(h, load(bytes + i, 8));
        return mix(h, load(bytes + n - 8, 8));
    }
    if (n >= 4)
        return mix(h, load(bytes, 4) | load(bytes + n - 4, 4) << 32);
    if (n > 0)
        h = mix(h, bytes[0] | (uint64_t)bytes[n / 2] << 8 | (uint64_t)bytes[n - 1] << 16);
    return h;
}

static inline const unsigned char *bytes_of(const qwen3_tokenizer *t, int32_t id)
{
    return t->bytes + t->tokens[id].begin;
}

/* The slot that holds these bytes, or the free one for them. */
static inline size_t vocabulary_slot(const qwen3_tokenizer *t, const unsigned char *bytes, size_t n)
{
    size_t mask = t->vocabulary_slots - 1, slot = hash_bytes(bytes, n) & mask;
    for (;; slot = (slot + 1) & mask) {
        int32_t id = t->vocabulary[slot];
        if (id == NO_ID || (t->tokens[id].bytes == n && memcmp(bytes_of(t, id), bytes, n) == 0))
            return slot;
    }
}

int32_t vocabulary_find(const qwen3_tokenizer *t, const unsigned char *bytes, size_t n)
{
    return t->vocabulary[vocabulary_slot(t, bytes, n)];
}

qwen3_status vocabulary_build(qwen3_tokenizer *t, const char *path, const char *name, qwen3_error *err)
{
    t->vocabulary_slots = slots_for(t->n_tokens);
    t->vocabulary = malloc(t->vocabulary_slots * sizeof *t->vocabulary);
    if (!t->vocabulary)
        return fail(err, QWEN3_ERR_MEMORY, "%s: cannot allocate the table of %zu tokens", path, t->n_tokens);
    memset(t->vocabulary, 0xFF, t->vocabulary_slots * sizeof *t->vocabulary);
    for (size_t id = 0; id < t->n_tokens; id++) {
        if (t->tokens[id].kind == QWEN3_TOKEN_NONE)
            continue;
        size_t slot = vocabulary_slot(t, bytes_of(t, (int32_t)id), t->tokens[id].bytes);
        if (t->vocabulary[slot] != NO_ID)
            return fail(err, QWEN3_ERR_FORMAT, "%s: %s: ids %d and %zu are the same token", path, name,
                        (int)t->vocabulary[slot], id);
        t->vocabulary[slot] = (int32_t)id;
    }
    return QWEN3_OK;
}

static inline size_t merge_slot(const qwen3_tokenizer *t, int32_t left, int32_t right)
{
    size_t mask = t->merge_slots - 1;
    size_t slot = mix((uint64_t)(uint32_t)left << 32 | (uint32_t)right, 0) & mask;
    while (t->merges[slot].left != NO_ID && (t->merges[slot].left != left || t->merges[slot].right != right))
        slot = (slot + 1) & mask;
    return slot;
}

qwen3_status merges_reserve(qwen3_tokenizer *t, size_t n, qwen3_error *err)
{
    t->merge_slots = slots_for(n);
    t->merges = malloc(t->merge_slots * sizeof *t->merges);
    if (!t->merges)
        return fail(err, QWEN3_ERR_MEMORY, "tokenizer: cannot allocate the table of %zu merges", n);
    memset(t->merges, 0xFF, t->merge_slots * sizeof *t->merges);
    return QWEN3_OK;
}

bool merges_insert(qwen3_tokenizer *t, merge m)
{
    size_t slot = merge_slot(t, m.left, m.right);
    if (t->merges[slot].left != NO_ID)
        return false;
    t->merges[slot] = m;
    return true;
}

const merge *merges_find(const qwen3_tokenizer *t, int32_t left, int32_t right)
{
    const merge *m = &t->merges[merge_slot(t, left, right)];
    return m->left == NO_ID ? NULL : m;
}

/* ---- Added tokens */

static int compare_added(const void *a, const void *b, void *tokenizer)
{
    const qwen3_tokenizer *t = tokenizer;
    const token *x = &t->tokens[*(const int32_t *)a], *y = &t->tokens[*(const int32_t *)b];
    uint32_t n = x->bytes < y->bytes ? x->bytes : y->bytes;
    int order = memcmp(t->bytes + x->begin, t->bytes + y->begin, n);
    return order ? order : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

void added_sort(qwen3_tokenizer *t)
{
    if (t->n_added)
        qsort_r(t->added, t->n_added, sizeof *t->added, compare_added, t);
    for (size_t i = 0; i < t->n_added; i++)
        t->added_begins[bytes_of(t, t->added[i])[0]] = true;
}

/* The first of added[begin, end), which share `depth` bytes, whose next byte is at least `byte`. A token without a next
 * byte is before all others. */
static size_t first_with(const qwen3_tokenizer *t, size_t begin, size_t end, size_t depth, int byte)
{
    while (begin < end) {
        size_t middle = begin + (end - begin) / 2;
        const token *candidate = &t->tokens[t->added[middle]];
        int found = candidate->bytes > depth ? t->bytes[candidate->begin + depth] : -1;
        if (found < byte)
            begin = middle + 1;
        else
            end = middle;
    }
    return begin;
}

int32_t added_match(const qwen3_tokenizer *t, const unsigned char *text, size_t bytes)
{
    size_t begin = 0, end = t->n_added;
    int32_t best = NO_ID;
    for (size_t depth = 0; depth < bytes; depth++) {
        begin = first_with(t, begin, end, depth, text[depth]);
        end = first_with(t, begin, end, depth, text[depth] + 1);
        if (begin == end)
            break;
        if (t->tokens[t->added[begin]].bytes == depth + 1)
            best = t->added[begin];
    }
    return best;
}
