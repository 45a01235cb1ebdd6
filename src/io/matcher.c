/* matcher.c - where a text is in a grammar: an automaton whose states are made when they are first reached.
 *
 * A thread is a byte node and a stack; a state is the set of threads that a text may be in. Stacks are lists that share
 * their lower frames, and equal frames are one, so equal states are found by comparing numbers (as "graph-structured
 * stacks", Tomita 1987). What follows a state by each byte is kept, and its mask. */
#include <stdlib.h>
#include <string.h>

#include "io/grammar.h"
#include "io/vocabulary.h"

enum {
    STATES = 1 << 12,      /* kept; more are forgotten before the next token */
    STATES_LAST = 1 << 14, /* at most; beyond it a byte is refused */
    FRAMES = 1 << 16,
    FRAMES_LAST = 1 << 18,
    THREADS = 1 << 12, /* of a state: more are left out, and so are the texts that only they lead to */
    WORK = 1 << 22,    /* threads for one call, a fraction of a second: beyond it bytes are refused */
    MASKS = 64,
    DEAD = -1, /* the state from which nothing follows */
    UNKNOWN = -2,
    BOTTOM = -1, /* an empty stack */
};

typedef struct frame {
    int32_t parent, node, count; /* node: the call or repetition that returns here */
    int32_t depth;
} frame;

typedef struct thread {
    int32_t node, frame;
} thread;

typedef struct state {
    uint32_t first, n; /* in threads */
    int32_t mask;      /* in masks; -1 = none */
    bool complete;
} state;

/* Hash table of numbers of things that are compared elsewhere; -1 = free. */
typedef struct table {
    int32_t *slots;
    uint32_t room; /* a power of 2 */
} table;

struct qwen3_matcher {
    const qwen3_grammar *g;
    const qwen3_vocabulary *v;
    frame *frames;
    int32_t n_frames, room_frames;
    table frame_table;
    state *states;
    int32_t (*next)[256]; /* [room_states] states after each byte */
    int32_t n_states, room_states;
    table state_table;
    thread *threads; /* of all states */
    uint32_t n_threads, room_threads;
    thread *work; /* [THREADS] of the state that is being made */
    int32_t n_work;
    table work_table;
    bool work_complete;
    int64_t left;    /* of WORK, in this call */
    uint64_t *masks; /* [MASKS][words] */
    int32_t n_masks;
    size_t words;
    int32_t *path; /* [longest token + 1] states of the walk for a mask */
    int32_t current;
    bool failed; /* out of memory */
};

/* ---- Tables ------------------------------------------------------------------------------------- */

static uint32_t hash_of(uint32_t a, uint32_t b, uint32_t c)
{
    uint64_t h =
        (a * UINT64_C(0x9E3779B97F4A7C15)) ^ (b * UINT64_C(0xC2B2AE3D27D4EB4F)) ^ (c * UINT64_C(0x165667B19E3779F9));
    h ^= h >> 32;
    h *= UINT64_C(0xD6E8FEB86659FD93);
    return (uint32_t)(h >> 32);
}

static bool table_make(table *t, uint32_t room)
{
    t->slots = malloc(room * sizeof *t->slots);
    t->room = t->slots ? room : 0;
    if (t->slots)
        memset(t->slots, -1, room * sizeof *t->slots);
    return t->slots != NULL;
}

static void table_clear(table *t)
{
    memset(t->slots, -1, t->room * sizeof *t->slots);
}

/* Room for one more of *n; doubles. */
static bool grow(qwen3_matcher *m, void *array, int64_t n, int64_t *room, size_t size)
{
    void **place = array;
    if (n < *room)
        return true;
    const int64_t larger = 2 * *room + 64;
    void *moved = realloc(*place, (size_t)larger * size);
    if (!moved) {
        m->failed = true;
        return false;
    }
    *place = moved;
    *room = larger;
    return true;
}

/* ---- Frames ------------------------------------------------------------------------------------- */

static int32_t depth_of(const qwen3_matcher *m, int32_t f)
{
    return f == BOTTOM ? 0 : m->frames[f].depth;
}

/* The number of the frame, which is made if there is none like it; UNKNOWN = there is no room. */
static int32_t push(qwen3_matcher *m, int32_t parent, int32_t node, int32_t count)
{
    const uint32_t mask = m->frame_table.room - 1;
    uint32_t slot = hash_of((uint32_t)parent, (uint32_t)node, (uint32_t)count) & mask;
    for (int32_t f; (f = m->frame_table.slots[slot]) >= 0; slot = (slot + 1) & mask)
        if (m->frames[f].parent == parent && m->frames[f].node == node && m->frames[f].count == count)
            return f;
    int64_t room = m->room_frames;
    if (m->n_frames == FRAMES_LAST || !grow(m, &m->frames, m->n_frames, &room, sizeof *m->frames))
        return UNKNOWN;
    m->room_frames = (int32_t)room;
    m->frames[m->n_frames] = (frame){parent, node, count, depth_of(m, parent) + 1};
    m->frame_table.slots[slot] = m->n_frames;
    return m->n_frames++;
}

/* ---- States ------------------------------------------------------------------------------------- */

/* Adds a thread to the state that is being made, unless it is there, or has not the room for its end. */
static void add(qwen3_matcher *m, int32_t node, int32_t f)
{
    const uint32_t mask = m->work_table.room - 1;
    if (f == UNKNOWN || m->g->nodes[node].need > GRAMMAR_DEPTH - depth_of(m, f) || m->n_work == THREADS)
        return;
    uint32_t slot = hash_of((uint32_t)node, (uint32_t)f, 0) & mask;
    for (int32_t i; (i = m->work_table.slots[slot]) >= 0; slot = (slot + 1) & mask)
        if (m->work[i].node == node && m->work[i].frame == f)
            return;
    m->work_table.slots[slot] = m->n_work;
    m->work[m->n_work++] = (thread){node, f};
}

static void add_return(qwen3_matcher *m, int32_t f)
{
    if (f == BOTTOM) {
        m->work_complete = true;
        return;
    }
    const frame from = m->frames[f];
    const grammar_node *n = &m->g->nodes[from.node];
    const int32_t count = from.count + 1;
    if (n->op == GRAMMAR_CALL || count >= n->least)
        add(m, n->next, from.parent);
    if (n->op == GRAMMAR_CALL || (n->most != GRAMMAR_NO_LIMIT && count == n->most))
        return;
    /* without an upper limit all that matters is whether there are enough */
    const int32_t kept = n->most == GRAMMAR_NO_LIMIT && count > n->least ? n->least : count;
    add(m, m->g->rules[n->what], push(m, from.parent, from.node, kept));
}

/* Goes on from the threads that were added until all that is left reads. */
static void close_work(qwen3_matcher *m)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < m->n_work; i++) {
        const thread t = m->work[i];
        const grammar_node *n = &m->g->nodes[t.node];
        switch (n->op) {
        case GRAMMAR_SPLIT:
            add(m, n->next, t.frame);
            add(m, n->what, t.frame);
            break;
        case GRAMMAR_REPEAT:
            if (n->least == 0)
                add(m, n->next, t.frame);
            add(m, m->g->rules[n->what], push(m, t.frame, t.node, 0));
            break;
        case GRAMMAR_CALL:
            add(m, m->g->rules[n->what], push(m, t.frame, t.node, 0));
            break;
        case GRAMMAR_RETURN:
            add_return(m, t.frame);
            break;
        default:
            break;
        }
    }
    m->left -= m->n_work + 16; /* what a state costs beside its threads */
    for (int32_t i = 0; i < m->n_work; i++)
        if (m->g->nodes[m->work[i].node].op == GRAMMAR_BYTE)
            m->work[kept++] = m->work[i];
    m->n_work = kept;
}

static int compare_threads(const void *one, const void *other)
{
    const thread *a = one, *b = other;
    return a->node != b->node ? (a->node > b->node) - (a->node < b->node)
                              : (a->frame > b->frame) - (a->frame < b->frame);
}

static bool is_state(const qwen3_matcher *m, int32_t s)
{
    const state *one = &m->states[s];
    return one->n == (uint32_t)m->n_work && one->complete == m->work_complete &&
           memcmp(m->threads + one->first, m->work, one->n * sizeof *m->work) == 0;
}

static bool reserve_state(qwen3_matcher *m)
{
    int64_t room = m->room_states, same = room, threads = m->room_threads;
    if (m->n_states == STATES_LAST || !grow(m, &m->states, m->n_states, &room, sizeof *m->states) ||
        !grow(m, &m->next, m->n_states, &same, sizeof *m->next))
        return false;
    m->room_states = (int32_t)room;
    while (m->n_threads + (uint32_t)m->n_work > threads)
        if (!grow(m, &m->threads, threads, &threads, sizeof *m->threads))
            return false;
    m->room_threads = (uint32_t)threads;
    return true;
}

static void begin_work(qwen3_matcher *m)
{
    m->n_work = 0;
    m->work_complete = false;
    table_clear(&m->work_table);
}

/* The state of the threads that were added; UNKNOWN = there is no room for it. */
static int32_t end_work(qwen3_matcher *m)
{
    close_work(m);
    if (m->n_work == 0 && !m->work_complete)
        return DEAD;
    qsort(m->work, (size_t)m->n_work, sizeof *m->work, compare_threads);
    uint32_t h = m->work_complete;
    for (int32_t i = 0; i < m->n_work; i++)
        h = hash_of(h, (uint32_t)m->work[i].node, (uint32_t)m->work[i].frame);
    const uint32_t mask = m->state_table.room - 1;
    uint32_t slot = h & mask;
    for (int32_t s; (s = m->state_table.slots[slot]) >= 0; slot = (slot + 1) & mask)
        if (is_state(m, s))
            return s;
    if (!reserve_state(m))
        return UNKNOWN;
    const int32_t s = m->n_states++;
    m->states[s] = (state){.first = m->n_threads, .n = (uint32_t)m->n_work, .mask = -1, .complete = m->work_complete};
    memcpy(m->threads + m->n_threads, m->work, (size_t)m->n_work * sizeof *m->work);
    m->n_threads += (uint32_t)m->n_work;
    for (int byte = 0; byte < 256; byte++)
        m->next[s][byte] = UNKNOWN;
    m->state_table.slots[slot] = s;
    return s;
}

/* The state after a byte. */
static int32_t step(qwen3_matcher *m, int32_t s, unsigned char byte)
{
    int32_t to = m->next[s][byte];
    if (to != UNKNOWN)
        return to;
    if (m->left < 0)
        return DEAD;
    begin_work(m);
    for (uint32_t i = 0; i < m->states[s].n; i++) {
        const thread t = m->threads[m->states[s].first + i];
        const grammar_node *n = &m->g->nodes[t.node];
        if (grammar_class_has(&m->g->classes[n->what], byte))
            add(m, n->next, t.frame);
    }
    to = end_work(m);
    if (to == UNKNOWN)
        return DEAD;
    m->next[s][byte] = to;
    return to;
}

static int32_t walk(qwen3_matcher *m, int32_t s, const unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i < n && s != DEAD; i++)
        s = step(m, s, bytes[i]);
    return s;
}

/* ---- Forgetting --------------------------------------------------------------------------------- */

/* Leaves the frames of the current state, renumbered in their order, so that lower ones remain in front. */
static bool keep_frames(qwen3_matcher *m, thread *threads, uint32_t n)
{
    int32_t *moved = calloc((size_t)m->n_frames + 1, sizeof *moved), kept = 0;
    if (!moved)
        return false;
    for (uint32_t i = 0; i < n; i++)
        for (int32_t f = threads[i].frame; f != BOTTOM && !moved[f]; f = m->frames[f].parent)
            moved[f] = 1;
    const int32_t all = m->n_frames;
    m->n_frames = 0;
    table_clear(&m->frame_table);
    for (int32_t f = 0; f < all; f++) {
        if (!moved[f])
            continue;
        const frame old = m->frames[f];
        kept = push(m, old.parent == BOTTOM ? BOTTOM : moved[old.parent], old.node, old.count);
        moved[f] = kept;
    }
    for (uint32_t i = 0; i < n; i++)
        if (threads[i].frame != BOTTOM)
            threads[i].frame = moved[threads[i].frame];
    free(moved);
    return true;
}

/* Begins a call. Makes room where many states or frames are kept: only the current state is left. */
static void begin_call(qwen3_matcher *m)
{
    m->left = WORK;
    if (m->n_states < STATES && m->n_frames < FRAMES)
        return;
    const state old = m->states[m->current];
    thread *threads = malloc((old.n + 1) * sizeof *threads);
    if (!threads) {
        m->failed = true;
        return;
    }
    memcpy(threads, m->threads + old.first, old.n * sizeof *threads);
    m->failed |= !keep_frames(m, threads, old.n);
    m->n_states = m->n_masks = 0;
    m->n_threads = 0;
    table_clear(&m->state_table);
    begin_work(m);
    memcpy(m->work, threads, old.n * sizeof *threads);
    m->n_work = (int32_t)old.n;
    m->work_complete = old.complete;
    free(threads);
    m->current = end_work(m);
    m->failed |= m->current < 0;
}

/* ---- Masks -------------------------------------------------------------------------------------- */

/* Tokens that begin with a byte. What tokens share is walked once; where it leads nowhere they are passed over. */
static void fill_mask(qwen3_matcher *m, int32_t s, int byte, uint64_t *mask)
{
    const qwen3_vocabulary *v = m->v;
    uint32_t reached = 0; /* bytes of the token before that lead somewhere: path[0] to path[reached] */
    m->path[0] = s;
    for (int32_t i = v->first[byte]; i < v->first[byte + 1]; i++) {
        const vocabulary_token *t = &v->tokens[i];
        const uint32_t shared = i > v->first[byte] ? t->shared : 0;
        if (shared > reached)
            continue;
        for (reached = shared; reached < t->n; reached++) {
            const int32_t to = step(m, m->path[reached], t->bytes[reached]);
            if (to == DEAD)
                break;
            m->path[reached + 1] = to;
        }
        if (reached == t->n)
            mask[t->id / 64] |= (uint64_t)1 << t->id % 64;
    }
}

/* The mask of the current state, from those that are kept; NULL = out of memory. */
static const uint64_t *find_mask(qwen3_matcher *m)
{
    const int32_t s = m->current;
    if (!m->masks && !(m->masks = malloc(MASKS * m->words * sizeof *m->masks)))
        return NULL;
    if (m->states[s].mask >= 0)
        return m->masks + (size_t)m->states[s].mask * m->words;
    if (m->n_masks == MASKS) {
        for (int32_t i = 0; i < m->n_states; i++)
            m->states[i].mask = -1;
        m->n_masks = 0;
    }
    uint64_t *mask = m->masks + (size_t)m->n_masks * m->words;
    memset(mask, 0, m->words * sizeof *mask);
    for (int byte = 0; byte < 256; byte++)
        if (m->v->first[byte] < m->v->first[byte + 1] && step(m, s, (unsigned char)byte) != DEAD)
            fill_mask(m, s, byte, mask);
    if (m->left >= 0)
        m->states[s].mask = m->n_masks++;
    return mask;
}

/* ---- The interface ------------------------------------------------------------------------------ */

void qwen3_matcher_close(qwen3_matcher *m)
{
    if (!m)
        return;
    free(m->frames);
    free(m->frame_table.slots);
    free(m->states);
    free(m->next);
    free(m->state_table.slots);
    free(m->threads);
    free(m->work);
    free(m->work_table.slots);
    free(m->masks);
    free(m->path);
    free(m);
}

void qwen3_matcher_reset(qwen3_matcher *m)
{
    if (!m)
        return;
    m->n_states = m->n_masks = m->n_frames = 0;
    m->n_threads = 0;
    table_clear(&m->state_table);
    table_clear(&m->frame_table);
    begin_work(m);
    add(m, m->g->start, BOTTOM);
    m->current = end_work(m);
    m->failed = m->current < 0;
}

qwen3_status qwen3_matcher_open(const qwen3_grammar *grammar, const qwen3_vocabulary *vocabulary,
                                qwen3_matcher **matcher, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(matcher, "matcher", err))
        return err->status;
    *matcher = NULL;
    if (missing(grammar, "grammar", err) || missing(vocabulary, "vocabulary", err))
        return err->status;
    qwen3_matcher *m = calloc(1, sizeof *m);
    if (m) {
        m->g = grammar;
        m->v = vocabulary;
        m->words = ((size_t)vocabulary->n_ids + 63) / 64;
        m->work = malloc(THREADS * sizeof *m->work);
        m->path = malloc((vocabulary->longest + 1) * sizeof *m->path);
    }
    if (!m || !m->work || !m->path || !table_make(&m->frame_table, 2 * FRAMES_LAST) ||
        !table_make(&m->state_table, 2 * STATES_LAST) || !table_make(&m->work_table, 2 * THREADS)) {
        qwen3_matcher_close(m);
        return fail(err, QWEN3_ERR_MEMORY, "no memory for a matcher");
    }
    qwen3_matcher_reset(m);
    if (m->failed) {
        qwen3_matcher_close(m);
        return fail(err, QWEN3_ERR_MEMORY, "no memory for a matcher");
    }
    *matcher = m;
    return QWEN3_OK;
}

static int32_t after_token(qwen3_matcher *m, int32_t id)
{
    const vocabulary_token *t = vocabulary_find_token(m->v, id);
    if (!t)
        return DEAD;
    begin_call(m);
    return m->failed ? DEAD : walk(m, m->current, t->bytes, t->n);
}

bool qwen3_matcher_allows(qwen3_matcher *m, int32_t token)
{
    return m && !m->failed && after_token(m, token) != DEAD;
}

bool qwen3_matcher_accept(qwen3_matcher *m, int32_t token)
{
    const int32_t to = m && !m->failed ? after_token(m, token) : DEAD;
    if (to != DEAD)
        m->current = to;
    return to != DEAD;
}

bool qwen3_matcher_accept_bytes(qwen3_matcher *m, const char *bytes, size_t n)
{
    if (!m || m->failed || (!bytes && n > 0))
        return false;
    begin_call(m);
    const int32_t to = m->failed ? DEAD : walk(m, m->current, (const unsigned char *)bytes, n);
    if (to != DEAD)
        m->current = to;
    return to != DEAD;
}

bool qwen3_matcher_mask(qwen3_matcher *m, uint64_t *mask, int32_t n_tokens)
{
    if (!m || m->failed || !mask || n_tokens <= 0)
        return false;
    begin_call(m);
    const uint64_t *own = m->failed ? NULL : find_mask(m);
    const size_t words = ((size_t)n_tokens + 63) / 64;
    bool some = false;
    for (size_t i = 0; own && i < m->words && i < words; i++) {
        uint64_t bits = own[i];
        if (i == words - 1 && n_tokens % 64)
            bits &= ((uint64_t)1 << n_tokens % 64) - 1;
        mask[i] |= bits;
        some |= bits != 0;
    }
    return some;
}

bool qwen3_matcher_complete(const qwen3_matcher *m)
{
    return m && !m->failed && m->states[m->current].complete;
}
