/* started.c - messages that go on while the ranks compute.
 *
 * MPI libraries move long messages only inside their calls. So whoever computes calls comm_progress from time to time
 * (team.h: between items of work), which tests all that is under way, and takes a sum from its contributions to its
 * second exchange.
 */
#include <limits.h>
#include <string.h>

#include "base/clock.h"
#include "comm/comm_backend.h"

static void list_remove(comm *c)
{
    comm **at = &c->root->first_busy;
    while (*at != c)
        at = &(*at)->next_busy;
    *at = c->next_busy;
}

/* ---- Stages ------------------------------------------------------------------------------------ */

static void begin(comm *c, int slot, comm_started started)
{
    started.begin = seconds_now();
    c->started[slot] = started;
    if (c->busy++ == 0) {
        c->next_busy = c->root->first_busy;
        c->root->first_busy = c;
    }
}

static void end(comm *c, int slot)
{
    comm_started *s = &c->started[slot];
    c->stats->under_way[s->kind] += seconds_now() - s->begin;
    s->stage = SLOT_FREE;
    if (--c->busy == 0)
        list_remove(c);
}

/* Bounds of rank r's slice of a sum. */
static size_t slice(const comm *c, size_t n, int r)
{
    return n * (size_t)r / (size_t)c->size;
}

/* Where the contribution of rank r to this rank's slice arrives. */
static float *contribution(const comm *c, const comm_started *s, int r)
{
    const size_t own = slice(c, s->n, c->rank + 1) - slice(c, s->n, c->rank);
    return s->room + own * (size_t)r;
}

static void start_slices(comm *c, int slot)
{
    comm_started *s = &c->started[slot];
    const size_t own = (slice(c, s->n, c->rank + 1) - slice(c, s->n, c->rank)) * sizeof(float);
    int n = 0;
    for (int hop = 1; hop < c->size; hop++) {
        const int r = (c->rank - hop + c->size) % c->size;
        c->messages[n++] = receive_from(r, contribution(c, s, r), own);
    }
    for (int hop = 1; hop < c->size; hop++) {
        const int r = (c->rank + hop) % c->size;
        const size_t first = slice(c, s->n, r);
        c->messages[n++] = send_to(r, s->x + first, (slice(c, s->n, r + 1) - first) * sizeof(float));
    }
    s->messages = n;
    c->backend->start(c, slot, c->messages, n);
}

/* Sums this rank's slice, and starts the exchange of sums. */
static void start_sums(comm *c, int slot)
{
    comm_started *s = &c->started[slot];
    const size_t first = slice(c, s->n, c->rank), own = slice(c, s->n, c->rank + 1) - first;
    float *sum = contribution(c, s, c->size);
    int n = 0;
    for (int r = 0; r < c->size; r++)
        c->parts[r] = r == c->rank ? s->x + first : contribution(c, s, r);
    sum_in_rank_order(sum, c->parts, c->size, own);
    memcpy(s->x + first, sum, own * sizeof(float));
    for (int hop = 1; hop < c->size; hop++) {
        const int r = (c->rank - hop + c->size) % c->size;
        const size_t from = slice(c, s->n, r);
        c->messages[n++] = receive_from(r, s->x + from, (slice(c, s->n, r + 1) - from) * sizeof(float));
    }
    for (int hop = 1; hop < c->size; hop++)
        c->messages[n++] = send_to((c->rank + hop) % c->size, s->x + first, own * sizeof(float));
    s->stage = SLOT_SUMS;
    s->messages = n;
    c->backend->start(c, slot, c->messages, n);
}

/* Lets what is in a slot go on. */
static void advance(comm *c, int slot)
{
    comm_started *s = &c->started[slot];
    if (s->stage == SLOT_FREE || !c->backend->test(c, slot, s->messages))
        return;
    if (s->stage == SLOT_SLICES)
        start_sums(c, slot);
    else
        end(c, slot);
}

/* ---- What others call -------------------------------------------------------------------------- */

bool comm_overlaps(const comm *c)
{
    return c->size > 1 && !c->shm;
}

void comm_progress(comm *c)
{
    for (comm *busy = c->root->first_busy, *next; busy; busy = next) {
        next = busy->next_busy;
        for (int slot = 0; slot < COMM_SLOTS; slot++) {
            if (busy->started[slot].stage == SLOT_FREE)
                continue;
            const qwen3_comm_kind kind = busy->started[slot].kind;
            const double start = seconds_now();
            advance(busy, slot);
            comm_count(busy, kind, 0, 0, start);
        }
    }
}

void comm_wait(comm *c, int slot)
{
    comm_wait_part(c, slot, INT_MAX);
}

void comm_wait_part(comm *c, int slot, int hop)
{
    const comm_started *s = &c->started[slot];
    long_wait wait = {.shared = c->shares_cpus};
    for (int polls = 0; s->stage != SLOT_FREE && (hop > s->messages || !c->backend->test(c, slot, hop)); polls++) {
        comm_progress(c);
        if (polls < MESSAGE_POLLS && !c->shares_cpus)
            continue;
        const double start = seconds_now();
        leave_cpu(&wait, false);
        comm_count(c, s->kind, 0, 0, start);
    }
}

void comm_ring_start(comm *c, int slot, const void *send, size_t send_bytes, void *recv, size_t recv_bytes,
                     qwen3_comm_kind kind)
{
    const double start = seconds_now();
    if (c->size == 1) {
        c->backend->allgather(c, send, recv, &send_bytes);
        return;
    }
    begin(c, slot, (comm_started){.stage = SLOT_MESSAGES, .kind = kind, .messages = 2});
    c->messages[0] = receive_from((c->rank + c->size - 1) % c->size, recv, recv_bytes);
    c->messages[1] = send_to((c->rank + 1) % c->size, send, send_bytes);
    c->backend->start(c, slot, c->messages, 2);
    comm_count(c, kind, 1, send_bytes, start);
}

void comm_allgather_start(comm *c, int slot, const void *send, void *recv, const size_t *bytes, qwen3_comm_kind kind)
{
    if (!comm_overlaps(c)) {
        comm_allgather(c, send, recv, bytes, kind);
        return;
    }
    const double start = seconds_now();
    unsigned char *to = recv;
    int n = 0;
    for (int r = 0; r < c->size; to += bytes[r], r++) {
        if (r == c->rank) {
            if (bytes[r] && to != send)
                memmove(to, send, bytes[r]);
            continue;
        }
        const int hop = (c->rank - r + c->size) % c->size;
        c->messages[hop - 1] = receive_from(r, to, bytes[r]);
    }
    for (int hop = 1; hop < c->size; hop++)
        c->messages[c->size - 2 + hop] = send_to((c->rank + hop) % c->size, send, bytes[c->rank]);
    n = 2 * (c->size - 1);
    begin(c, slot, (comm_started){.stage = SLOT_MESSAGES, .kind = kind, .messages = n});
    c->backend->start(c, slot, c->messages, n);
    comm_count(c, kind, 1, bytes[c->rank] * (size_t)(c->size - 1), start);
}

/* In two levels, sums are exchanged at once. */
static bool sum_overlaps(const comm *c)
{
    return comm_overlaps(c) && !c->levels;
}

size_t comm_sum_room(const comm *c, size_t n)
{
    const size_t size = (size_t)c->size;
    return sum_overlaps(c) ? (size + 1) * ((n + size - 1) / size) : 0;
}

void comm_allreduce_start(comm *c, int slot, float *x, size_t n, float *room, qwen3_comm_kind kind)
{
    if (!sum_overlaps(c)) {
        comm_allreduce(c, x, n, kind);
        return;
    }
    const double start = seconds_now();
    const size_t own = slice(c, n, c->rank + 1) - slice(c, n, c->rank);
    begin(c, slot, (comm_started){.stage = SLOT_SLICES, .kind = kind, .x = x, .room = room, .n = n});
    start_slices(c, slot);
    comm_count(c, kind, 1, (n - own + own * (size_t)(c->size - 1)) * sizeof *x, start);
}
