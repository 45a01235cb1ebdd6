/* run.c - the tiles of all jobs on the threads of a team.
 *
 * A job is split into tiles of queries and, where tiles would be too few or too uneven for the threads (one query
 * against a long cache), each tile into parts of its keys. Threads take the pieces one by one, of some heads at a time,
 * the most expensive first. The first part of a tile works on the job's own partials, the others on partials in the
 * workspace, which are merged at the end in the order of the keys. How the work is split depends on the jobs and the
 * number of threads planned for, never on timing.
 *
 * Few queries are bound by reading, and memory is read at its full rate only in the order of its addresses
 * (docs/notebook/2026-11-24-zen5.md). The heads of a page are side by side. So a piece of few queries is a stretch of
 * memory, heads of a page after heads of a page, instead of all blocks of one head.
 */
#include <stdlib.h>

#include "attention/tile.h"
#include "base/memory.h"

/* Parts of the whole work per thread that a piece should not exceed, so that the last pieces end together. */
#define PIECES_PER_THREAD 2
/* Where they are split by page, so few that merging them does not show. */
#define PAGE_PIECES_PER_THREAD 1
/* Otherwise a part of the keys has at least this many blocks: a merge must stay small beside it. */
#define MIN_PART_BLOCKS 4
/* What a block costs beside its keys, in keys. */
#define BLOCK_COST 32

/* How one job is split. */
typedef struct job_split {
    size_t tile_rows, tiles, parts;
    bool by_page; /* threads share the pages, not the heads; pagewise a part is a page */
} job_split;

/* One tile (or part of one) of all KV heads: as many items of work, or by page one. */
typedef struct piece {
    const attention_job *job;
    size_t row0, rows, block0, n_blocks;
    bool by_page;        /* block0 and n_blocks count (page, head), the heads of a page one after the other */
    size_t cost;         /* of an item: blocks x rows that are visible */
    float *partial;      /* [kv_heads] partials of this part; NULL = the job's own */
    size_t partial_size; /* floats from one head's partial to the next */
} piece;

/* What all functions here need to know, and what attention_plan leaves for attention_run.
 *
 * The parts of the workspace: this | piece table | partials | one workspace per thread: pagewise the partial of a page,
 * and that of the algorithm. Nothing but thread_bytes depends on n_blocks, and pagewise the number of parts, and these
 * grow with it. So a workspace fits all jobs of the same rows with no more blocks: by the way they are split, there are
 * no more than threads * PIECES_PER_THREAD parts, or pagewise the pages, beyond one per tile. */
typedef struct work {
    const attention_shape *shape;
    const attention_algorithm *algorithm;
    const attention_job *jobs;
    size_t n_jobs;
    int threads;
    size_t cost;                     /* of all jobs, in rows x blocks of one KV head */
    size_t tiles, pieces;            /* of one KV head; pieces counts the parts of tiles */
    size_t partials_at, threads_at;  /* offsets in bytes */
    size_t thread_bytes, page_bytes; /* of the workspace of a thread; of these for the partial of a page */
} work;

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Whether a job may be split by page, as far as its rows say. Blocks in place are contiguous in each head. */
static bool may_split_by_page(const work *w, const attention_job *job)
{
    return (w->algorithm->piecewise || w->shape->pagewise) &&
           job->rows * w->shape->heads_per_kv <= ATTENTION_FEW_QUERIES;
}

static job_split split_job(const work *w, const attention_job *job)
{
    job_split split = {0, 0, 1, false};
    if (job->rows == 0 || w->shape->kv_heads == 0)
        return split;
    split.tile_rows = w->algorithm->tile_rows(w->shape, job->rows, w->n_jobs, w->threads);
    split.tiles = (job->rows + split.tile_rows - 1) / split.tile_rows;
    split.by_page = may_split_by_page(w, job) && job->n_blocks > 0 && job->blocks && !job->blocks->row_stride;
    if (w->shape->pagewise) {
        split.parts = split.by_page ? job->n_blocks : 1;
        return split;
    }
    if (w->threads > 1 && w->cost > 0 && split.tile_rows <= (size_t)w->shape->q_block_size) {
        size_t share = split.by_page ? PAGE_PIECES_PER_THREAD * w->shape->kv_heads : PIECES_PER_THREAD;
        size_t pieces = job->rows * job->n_blocks / split.tiles * (size_t)w->threads * share, limit;
        if (split.by_page) {
            pieces = (pieces + w->cost - 1) / w->cost;
            limit = job->n_blocks * w->shape->kv_heads;
        } else {
            pieces /= w->cost;
            limit = job->n_blocks / MIN_PART_BLOCKS;
        }
        split.parts = larger(smaller(pieces, limit), 1);
    }
    return split;
}

/* Floats of the partial of one tile and head: o, m, l. */
static size_t partial_size(const work *w, size_t tile_rows)
{
    return round_up(tile_rows * w->shape->heads_per_kv * (w->shape->head_dim + 2), CACHE_LINE / sizeof(float));
}

/* Blocks that the algorithm gets in one call. */
static size_t blocks_at_once(const attention_shape *shape, size_t n_blocks)
{
    return shape->pagewise ? smaller(n_blocks, 1) : n_blocks;
}

static work work_of(const attention_shape *shape, const attention_algorithm *algorithm, const attention_job *jobs,
                    size_t n_jobs, int threads)
{
    work w = {.shape = shape, .algorithm = algorithm, .jobs = jobs, .n_jobs = n_jobs, .threads = threads};
    size_t largest_partial = 0; /* of a piece */
    /* Parts beyond one per tile. */
    size_t more = threads > 1 && !shape->pagewise ? (size_t)threads * PIECES_PER_THREAD : 0;
    for (size_t j = 0; j < n_jobs; j++)
        w.cost += jobs[j].rows * jobs[j].n_blocks * shape->kv_heads;
    for (size_t j = 0; j < n_jobs; j++) {
        job_split split = split_job(&w, &jobs[j]);
        w.tiles += split.tiles;
        w.pieces += split.tiles * split.parts;
        const bool by_page = may_split_by_page(&w, &jobs[j]);
        if (by_page && shape->pagewise)
            more += split.tiles * jobs[j].n_blocks;
        if (by_page || (split.tile_rows <= (size_t)shape->q_block_size && !shape->pagewise))
            largest_partial =
                larger(largest_partial, (by_page ? shape->kv_heads : 1) * partial_size(&w, split.tile_rows));
        if (shape->pagewise)
            w.page_bytes = larger(w.page_bytes, partial_size(&w, split.tile_rows) * sizeof(float));
        w.thread_bytes = larger(w.thread_bytes, algorithm->workspace_bytes(shape, split.tile_rows,
                                                                           blocks_at_once(shape, jobs[j].n_blocks)));
    }
    w.thread_bytes = w.page_bytes + round_up(w.thread_bytes, CACHE_LINE);
    w.partials_at = round_up(sizeof w + (w.tiles + more) * sizeof(piece), CACHE_LINE);
    w.threads_at = w.partials_at + more * largest_partial * sizeof(float);
    return w;
}

size_t attention_workspace_bytes(const attention_shape *shape, const attention_algorithm *algorithm,
                                 const attention_job *jobs, size_t n_jobs, int threads, size_t *score_bytes)
{
    const work w = work_of(shape, algorithm, jobs, n_jobs, threads);
    *score_bytes = w.thread_bytes * (size_t)threads;
    return w.threads_at + *score_bytes;
}

static size_t visible_cost(const attention_job *job, const piece *p, int32_t last)
{
    size_t visible = 0;
    for (size_t b = p->block0; b < p->block0 + p->n_blocks; b++)
        visible += job->blocks[b].min_position <= last;
    return p->rows * visible;
}

/* A walk over (page, head), page by page, in keys that are visible. */
typedef struct page_walk {
    const attention_job *job;
    size_t heads;
    int32_t last; /* position that is seen */
    size_t page, passed;
} page_walk;

/* What one head of the page costs. */
static size_t page_cost(const page_walk *walk)
{
    const kv_block *b = &walk->job->blocks[walk->page];
    return b->count > 0 && b->min_position <= walk->last ? (size_t)b->count + BLOCK_COST : 0;
}

/* The (page, head) at which `target` has been passed; targets ascend. */
static size_t walk_to(page_walk *walk, size_t target)
{
    for (; walk->page < walk->job->n_blocks; walk->page++) {
        const size_t cost = page_cost(walk);
        if (target < walk->passed + cost * walk->heads)
            return walk->page * walk->heads + (target - walk->passed) / cost;
        walk->passed += cost * walk->heads;
    }
    return walk->page * walk->heads;
}

/* Splits the keys of a tile by page: its pieces end where equal parts of its cost do or, pagewise, at each page. */
static void split_pages(const work *w, piece *pieces, size_t parts, int32_t last)
{
    page_walk all = {pieces->job, w->shape->kv_heads, last, 0, 0}, walk = all;
    const size_t units = walk_to(&all, SIZE_MAX);
    size_t begin = 0;
    for (size_t part = 0; part < parts; part++) {
        const size_t end = w->shape->pagewise ? (part + 1) * w->shape->kv_heads
                           : part + 1 < parts ? walk_to(&walk, all.passed * (part + 1) / parts)
                                              : units;
        pieces[part].block0 = begin;
        pieces[part].n_blocks = end - begin;
        pieces[part].cost = pieces[part].rows * (end - begin);
        begin = end;
    }
}

static void split_blocks(piece *pieces, size_t parts, int32_t last)
{
    const size_t n_blocks = pieces->job->n_blocks;
    for (size_t part = 0; part < parts; part++) {
        pieces[part].block0 = n_blocks * part / parts;
        pieces[part].n_blocks = n_blocks * (part + 1) / parts - pieces[part].block0;
        pieces[part].cost = visible_cost(pieces[part].job, &pieces[part], last);
    }
}

static int most_expensive_first(const void *a, const void *b)
{
    const piece *x = a, *y = b;
    return (x->cost < y->cost) - (x->cost > y->cost);
}

static piece *piece_table(void *workspace)
{
    return (piece *)((work *)workspace + 1);
}

static void list_pieces(const work *w, void *workspace)
{
    piece *pieces = piece_table(workspace);
    float *partials = (float *)((char *)workspace + w->partials_at);
    size_t n = 0;
    for (size_t j = 0; j < w->n_jobs; j++) {
        const attention_job *job = &w->jobs[j];
        const job_split split = split_job(w, job);
        const size_t size = partial_size(w, split.tile_rows);
        for (size_t tile = 0; tile < split.tiles; tile++, n += split.parts) {
            const size_t row0 = tile * split.tile_rows, rows = smaller(split.tile_rows, job->rows - row0);
            const int32_t last = last_position(w->shape, rows, job->q_positions + row0);
            for (size_t part = 0; part < split.parts; part++) {
                pieces[n + part] = (piece){.job = job, .row0 = row0, .rows = rows, .by_page = split.by_page};
                if (part > 0) {
                    pieces[n + part].partial = partials;
                    pieces[n + part].partial_size = size;
                    partials += w->shape->kv_heads * size;
                }
            }
            if (split.by_page)
                split_pages(w, &pieces[n], split.parts, last);
            else
                split_blocks(&pieces[n], split.parts, last);
        }
    }
    qsort(pieces, n, sizeof *pieces, most_expensive_first);
}

/* Blocks [block0, block0 + n_blocks) of a piece for one KV head. */
static attention_job piece_tile(const work *w, const piece *p, size_t kv_head, size_t block0, size_t n_blocks)
{
    attention_job tile = attention_tile(w->shape, p->job, kv_head, p->row0, p->rows, block0, n_blocks);
    if (p->partial) {
        size_t queries = p->rows * w->shape->heads_per_kv;
        tile.o = p->partial + kv_head * p->partial_size;
        tile.m = tile.o + queries * w->shape->head_dim;
        tile.l = tile.m + queries;
    }
    return tile;
}

/* Nothing seen yet by head kv_head of a piece that has partials of its own. */
static void clear_piece(const work *w, const piece *p, size_t kv_head)
{
    if (!p->partial)
        return;
    attention_job tile = piece_tile(w, p, kv_head, 0, 0);
    partial_clear(p->rows * w->shape->heads_per_kv, w->shape->head_dim, (partial_run){tile.o, tile.m, tile.l});
}

/* All KV heads of a piece, page by page. */
static void run_pages(const work *w, const piece *p, void *workspace)
{
    const size_t heads = larger(w->shape->kv_heads, 1); /* without heads there are no pieces */
    for (size_t h = 0; h < heads; h++)
        clear_piece(w, p, h);
    for (size_t i = p->block0; i < p->block0 + p->n_blocks; i++) {
        attention_job tile = piece_tile(w, p, i % heads, i / heads, 1);
        w->algorithm->run(w->shape, &tile, (char *)workspace + w->page_bytes);
    }
}

/* Page after page of a tile in their order, each by itself. The first one needs no merge. */
static void run_pagewise(const work *w, const attention_job *tile, void *workspace)
{
    const size_t queries = tile->rows * w->shape->heads_per_kv, dim = w->shape->head_dim;
    const int32_t last = last_position(w->shape, tile->rows, tile->q_positions);
    const partial_run own = {tile->o, tile->m, tile->l}, other = partial_at(workspace, queries, dim);
    for (size_t i = 0; i < tile->n_blocks && tile->blocks[i].min_position <= last; i++) {
        attention_job page = *tile;
        page.blocks += i;
        page.n_blocks = 1;
        if (i > 0) {
            partial_clear(queries, dim, other);
            page.o = other.o;
            page.m = other.m;
            page.l = other.l;
        }
        w->algorithm->run(w->shape, &page, (char *)workspace + w->page_bytes);
        if (i > 0)
            partial_merge(queries, dim, own, other);
    }
}

/* One item of a piece: one KV head, or, where it is split by page, with the first all of them. */
static void run_item(const work *w, const piece *p, size_t kv_head, void *workspace)
{
    if (p->by_page) {
        if (kv_head == 0)
            run_pages(w, p, workspace);
        return;
    }
    clear_piece(w, p, kv_head);
    attention_job tile = piece_tile(w, p, kv_head, p->block0, p->n_blocks);
    if (w->shape->pagewise)
        run_pagewise(w, &tile, workspace);
    else
        w->algorithm->run(w->shape, &tile, workspace);
}

/* Item i of all pieces and heads: as many heads at a time as there are threads, so that threads keep to a head, whose
 * keys and values are in their caches then. */
static void run_numbered(const work *w, const piece *pieces, size_t i, void *workspace)
{
    const size_t most = smaller((size_t)w->threads, w->shape->kv_heads), first = i / (w->pieces * most) * most;
    const size_t heads = smaller(most, w->shape->kv_heads - first), rest = i - first * w->pieces;
    run_item(w, &pieces[rest / heads], first + rest % heads, workspace);
}

/* Merges the parts of the tiles into the job's partials; tiles and heads are dealt out to the threads. */
static void merge_parts(const work *w, const team *t, float *partials)
{
    const attention_shape *shape = w->shape;
    size_t turn = 0;
    for (size_t j = 0; j < w->n_jobs; j++) {
        const attention_job *job = &w->jobs[j];
        job_split split = split_job(w, job);
        if (split.parts == 1)
            continue;
        size_t size = partial_size(w, split.tile_rows);
        for (size_t tile = 0; tile < split.tiles; tile++, partials += (split.parts - 1) * shape->kv_heads * size)
            for (size_t h = 0; h < shape->kv_heads; h++) {
                if (turn++ % (size_t)t->size != (size_t)t->tid)
                    continue;
                size_t row0 = tile * split.tile_rows, rows = smaller(split.tile_rows, job->rows - row0);
                size_t queries = rows * shape->heads_per_kv, dim = shape->head_dim;
                attention_job own = attention_tile(shape, job, h, row0, rows, 0, 0);
                for (size_t part = 0; part + 1 < split.parts; part++)
                    partial_merge(queries, dim, (partial_run){own.o, own.m, own.l},
                                  partial_at(partials + (part * shape->kv_heads + h) * size, queries, dim));
            }
    }
}

void attention_plan(const team *t, const attention_shape *shape, const attention_algorithm *algorithm,
                    const attention_job *jobs, size_t n_jobs, const attention_workspace *workspace)
{
    work *w = workspace->data;
    *w = work_of(shape, algorithm, jobs, n_jobs, workspace->threads ? workspace->threads : t->size);
    list_pieces(w, workspace->data);
}

void attention_run(team *t, const attention_workspace *workspace)
{
    const work w = *(const work *)workspace->data; /* behind the last barrier another thread may plan already */
    char *data = workspace->data;
    team_loop_begin(t);
    if (t->tid < w.threads)
        for (size_t i, items = w.pieces * w.shape->kv_heads; (i = team_loop_next(t)) < items;)
            run_numbered(&w, piece_table(data), i, data + w.threads_at + w.thread_bytes * (size_t)t->tid);
    team_barrier(t);
    if (w.pieces > w.tiles) {
        merge_parts(&w, t, (float *)(void *)(data + w.partials_at));
        team_barrier(t);
    }
}
