/* tokenizer_merge.c - byte-level byte-pair encoding of one piece (Sennrich et al. 2016). Of all neighbours that merge,
 * the leftmost pair of the lowest rank is merged, until none is left.
 *
 * In a short piece the minimum is searched again after each merge. For a long one there is a queue of places for each
 * rank. A merge makes a token that only later merges use (checked at loading). So ranks are visited once, in ascending
 * order, and the time is linear except for sorting the places of one rank.
 *
 * Very long pieces are encoded in blocks that fit the caches. A sequence of tokens is the encoding of its bytes if this
 * holds for every two neighbours: until the first merge across a seam, each token forms as it does alone, and that
 * merge would also happen to the two neighbours alone. The next block starts a few tokens before the end of what is
 * encoded, and only the seam where it starts is checked. If that fails, the block starts earlier. */
#include "io/tokenizer.h"

#include <stdlib.h>
#include <string.h>

enum { SHORT_PIECE = 48, BLOCK = 4096, BLOCK_OVERLAP = 8 /* tokens */, NO_RANK = INT32_MAX };

static inline int32_t rank_of(const qwen3_tokenizer *t, int32_t left, int32_t right)
{
    const merge *m = merges_find(t, left, right);
    return m ? m->rank : NO_RANK;
}

static size_t merge_short(const qwen3_tokenizer *t, int32_t *ids, size_t n)
{
    int32_t ranks[SHORT_PIECE]; /* of ids[i], ids[i + 1] */
    for (size_t i = 0; i + 1 < n; i++)
        ranks[i] = rank_of(t, ids[i], ids[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (ranks[i] < ranks[best])
                best = i;
        if (ranks[best] == NO_RANK)
            break;
        ids[best] = merges_find(t, ids[best], ids[best + 1])->id;
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        memmove(ranks + best, ranks + best + 1, (n - best) * sizeof *ranks);
        if (best + 1 < n)
            ranks[best] = rank_of(t, ids[best], ids[best + 1]);
        if (best > 0)
            ranks[best - 1] = rank_of(t, ids[best - 1], ids[best]);
    }
    return n;
}

/* ---- Long pieces */

/* At first n - 1 places are queued, then at most two after each of at most n - 1 merges: 3 n entries. */
static qwen3_status work_reserve(const qwen3_tokenizer *t, merge_work *work, size_t n, qwen3_error *err)
{
    if (n > work->room) {
        size_t room = n > 2 * work->room ? n : 2 * work->room;
        merge_work_free(work);
        work->symbols = calloc(room, sizeof *work->symbols);
        work->entries = malloc(3 * room * sizeof *work->entries);
        work->batch = malloc(room * sizeof *work->batch);
        work->buckets = calloc(t->n_merges + 1, sizeof *work->buckets);
        work->waiting = calloc(t->n_merges / 64 + 1, sizeof *work->waiting);
        if (!work->symbols || !work->entries || !work->batch || !work->buckets || !work->waiting) {
            merge_work_free(work);
            fail(err, QWEN3_ERR_MEMORY, "text: cannot allocate the work space of a piece of %zu bytes", n);
            return QWEN3_ERR_MEMORY;
        }
        work->room = room;
    }
    work->n_entries = 0;
    return QWEN3_OK;
}

/* Looks up the merge of the token at `place` with the next one, and queues it. */
static void queue_place(const qwen3_tokenizer *t, merge_work *work, int32_t place)
{
    merge_symbol *s = &work->symbols[place];
    s->rank = s->next == NO_ID ? NO_RANK : rank_of(t, s->id, work->symbols[s->next].id);
    if (s->rank == NO_RANK)
        return;
    work->entries[work->n_entries++] = (merge_entry){place, work->buckets[s->rank]};
    work->buckets[s->rank] = work->n_entries;
    work->waiting[s->rank / 64] |= UINT64_C(1) << s->rank % 64;
}

static void merge_place(const qwen3_tokenizer *t, merge_work *work, int32_t place, int32_t id)
{
    merge_symbol *s = &work->symbols[place], *gone = &work->symbols[s->next];
    s->id = id;
    s->next = gone->next;
    gone->rank = NO_RANK;
    if (s->next != NO_ID)
        work->symbols[s->next].previous = place;
    queue_place(t, work, place);
    if (s->previous != NO_ID)
        queue_place(t, work, s->previous);
}

static int compare_places(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* All merges of one rank. Places whose pair has changed since they were queued are skipped. Places overlap only if a
 * token merges with its like; then the leftmost is first. */
static void merge_rank(const qwen3_tokenizer *t, merge_work *work, int32_t rank)
{
    size_t n = 0;
    bool ascending = true;
    for (uint32_t e = work->buckets[rank]; e != 0; e = work->entries[e - 1].next) {
        int32_t place = work->entries[e - 1].place;
        if (work->symbols[place].rank != rank)
            continue;
        ascending = ascending && (n == 0 || work->batch[n - 1] < place);
        work->batch[n++] = place;
    }
    work->buckets[rank] = 0;
    if (n == 0)
        return;
    const merge_symbol *s = &work->symbols[work->batch[0]];
    const merge *m = merges_find(t, s->id, work->symbols[s->next].id);
    if (m->left == m->right && !ascending)
        qsort(work->batch, n, sizeof *work->batch, compare_places);
    for (size_t i = 0; i < n; i++)
        if (work->symbols[work->batch[i]].rank == rank)
            merge_place(t, work, work->batch[i], m->id);
}

static qwen3_status merge_long(const qwen3_tokenizer *t, merge_work *work, int32_t *ids, size_t *n, qwen3_error *err)
{
    qwen3_status status = *n > 0 ? work_reserve(t, work, *n, err) : QWEN3_OK;
    if (status || *n == 0)
        return status;
    int32_t last = (int32_t)*n - 1;
    for (int32_t i = 0; i <= last; i++)
        work->symbols[i] = (merge_symbol){ids[i], i - 1, i < last ? i + 1 : NO_ID, NO_RANK};
    for (int32_t i = last - 1; i >= 0; i--) /* each is put in front of its queue */
        queue_place(t, work, i);
    for (size_t w = 0; w <= t->n_merges / 64; w++) {
        while (work->waiting[w]) {
            int bit = __builtin_ctzll(work->waiting[w]);
            work->waiting[w] &= work->waiting[w] - 1;
            merge_rank(t, work, (int32_t)w * 64 + bit);
        }
    }
    *n = 0;
    for (int32_t i = 0; i != NO_ID; i = work->symbols[i].next)
        ids[(*n)++] = work->symbols[i].id;
    return QWEN3_OK;
}

static qwen3_status merge_bytes(const qwen3_tokenizer *t, merge_work *work, const unsigned char *bytes, size_t n,
                                int32_t *ids, size_t *n_ids, qwen3_error *err)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = t->byte_ids[bytes[i]];
    *n_ids = n;
    if (n > SHORT_PIECE)
        return merge_long(t, work, ids, n_ids, err);
    *n_ids = merge_short(t, ids, n);
    return QWEN3_OK;
}

/* ---- Very long pieces */

/* *holds: the bytes of two tokens encode to these two. */
static qwen3_status check_seam(const qwen3_tokenizer *t, merge_work *work, int32_t left, int32_t right, bool *holds,
                               qwen3_error *err)
{
    unsigned char bytes[2 * TOKEN_LONGEST];
    int32_t ids[2 * TOKEN_LONGEST];
    const token *l = &t->tokens[left], *r = &t->tokens[right];
    size_t n;
    memcpy(bytes, t->bytes + l->begin, l->bytes);
    memcpy(bytes + l->bytes, t->bytes + r->begin, r->bytes);
    qwen3_status status = merge_bytes(t, work, bytes, (size_t)l->bytes + r->bytes, ids, &n, err);
    *holds = status == QWEN3_OK && n == 2 && ids[0] == left && ids[1] == right;
    return status;
}

/* A piece of which bytes [0, done) are encoded as ids [0, n). Both arrays belong to the caller of merge_piece. */
typedef struct piece_encoding {
    const unsigned char *piece;
    size_t done;
    int32_t *ids;
    size_t n;
} piece_encoding;

/* Extends the encoding to piece[0, end). */
static qwen3_status merge_next_block(const qwen3_tokenizer *t, merge_work *work, piece_encoding *e, size_t end,
                                     qwen3_error *err)
{
    for (size_t back = BLOCK_OVERLAP;; back *= 2) {
        for (size_t i = 0; i < back && e->n > 0; i++)
            e->done -= t->tokens[e->ids[--e->n]].bytes;
        int32_t *ids = e->ids + e->n;
        size_t n;
        bool holds = e->n == 0;
        qwen3_status status = merge_bytes(t, work, e->piece + e->done, end - e->done, ids, &n, err);
        if (status == QWEN3_OK && !holds)
            status = check_seam(t, work, ids[-1], ids[0], &holds, err);
        if (status)
            return status;
        if (holds) {
            e->n += n;
            e->done = end;
            return QWEN3_OK;
        }
    }
}

qwen3_status merge_piece(const qwen3_tokenizer *t, merge_work *work, const unsigned char *piece, size_t n, int32_t *ids,
                         size_t *n_ids, qwen3_error *err)
{
    piece_encoding e = {.piece = piece, .ids = ids};
    qwen3_status status = QWEN3_OK;
    while (e.done < n && status == QWEN3_OK)
        status = merge_next_block(t, work, &e, n - e.done < 2 * BLOCK ? n : e.done + BLOCK, err);
    *n_ids = e.n;
    return status;
}

void merge_work_free(merge_work *work)
{
    free(work->symbols);
    free(work->entries);
    free(work->batch);
    free(work->buckets);
    free(work->waiting);
    *work = (merge_work){0};
}
