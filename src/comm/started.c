/* started.c - messages that go on while the ranks compute.
 *
 * MPI libraries move long messages only inside their calls. So whoever computes calls comm_progress from time to time
 * (team.h: between items of work), which tests all that is under way, and takes a sum from its contributions to its
 * second exchange.
 */
#include <limits.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
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

/* ---- Sums --------------------------------------------------------------------------------------
 *
 * Every rank sums one slice, whose contributions it gets from all others, and sends the sums to them. The room of a
 * coded sum: all values as they travel, first contributions to others, then sums | contributions to the own slice | two
 * slices of floats. Of another: contributions to the own slice, and its sums. */

/* Where rank r's slice begins: blocks of a codec stay together. */
static size_t slice(const comm *c, const comm_sum *s, int r)
{
    const size_t block = s->codec ? s->codec->values : 1, blocks = (s->n + block - 1) / block;
    const size_t begin = blocks * (size_t)r / (size_t)c->size * block;
    return begin < s->n ? begin : s->n;
}

static size_t slice_size(const comm *c, const comm_sum *s, int r)
{
    return slice(c, s, r + 1) - slice(c, s, r);
}

/* n values as they travel. */
static size_t travel_bytes(const comm_codec *codec, size_t n)
{
    return codec ? (n + codec->values - 1) / codec->values * codec->bytes : n * sizeof(float);
}

/* What rank r's slice travels from or arrives at: x, or its place among all coded values. */
static unsigned char *travelling(const comm *c, const comm_sum *s, int r)
{
    const size_t first = slice(c, s, r);
    return s->codec ? (unsigned char *)s->room + travel_bytes(s->codec, first) : (unsigned char *)(s->x + first);
}

/* Where the contribution of rank r to this rank's slice arrives; after the last one, floats. */
static unsigned char *contribution(const comm *c, const comm_sum *s, int r)
{
    const size_t all = s->codec ? round_up(travel_bytes(s->codec, s->n), CACHE_LINE) : 0;
    return (unsigned char *)s->room + all +
           round_up(travel_bytes(s->codec, slice_size(c, s, c->rank)), CACHE_LINE) * (size_t)r;
}

static size_t longest_slice(const comm *c, size_t n, const comm_codec *codec)
{
    const size_t block = codec ? codec->values : 1, blocks = (n + block - 1) / block;
    return (blocks + (size_t)c->size - 1) / (size_t)c->size * block;
}

/* In two levels sums are exchanged at once, and short ones, which are bound by latency. */
static bool sum_overlaps(const comm *c, size_t n)
{
    return comm_overlaps(c) && !c->levels && n * sizeof(float) * (size_t)c->size > GATHER_SUM_BYTES;
}

size_t comm_sum_room(const comm *c, size_t n, const comm_codec *codec)
{
    const size_t longest = longest_slice(c, n, codec), floats = round_up(longest * sizeof(float), CACHE_LINE);
    if (!sum_overlaps(c, n))
        return 0;
    const size_t contributions = (size_t)c->size * round_up(travel_bytes(codec, longest), CACHE_LINE);
    return codec ? round_up(travel_bytes(codec, n), CACHE_LINE) + contributions + 2 * floats : contributions + floats;
}

static void start_slices(comm *c, int slot)
{
    comm_started *s = &c->started[slot];
    const comm_sum *sum = &s->sum;
    int n = 0;
    for (int hop = 1; hop < c->size; hop++) {
        const int r = (c->rank - hop + c->size) % c->size;
        c->messages[n++] =
            receive_from(r, contribution(c, sum, r), travel_bytes(sum->codec, slice_size(c, sum, c->rank)));
    }
    for (int hop = 1; hop < c->size; hop++) {
        const int r = (c->rank + hop) % c->size;
        if (sum->codec)
            sum->codec->encode(sum->codec, slice_size(c, sum, r), sum->x + slice(c, sum, r), travelling(c, sum, r));
        c->messages[n++] = send_to(r, travelling(c, sum, r), travel_bytes(sum->codec, slice_size(c, sum, r)));
    }
    s->messages = n;
    c->backend->start(c, slot, c->messages, n);
}

/* own[i] = sum of the contributions, in rank order. */
static void sum_plain(comm *c, const comm_sum *s, float *own, size_t n)
{
    float *sums = (float *)(void *)contribution(c, s, c->size);
    for (int r = 0; r < c->size; r++)
        c->parts[r] = r == c->rank ? own : (const float *)(const void *)contribution(c, s, r);
    sum_in_rank_order(sums, c->parts, c->size, n);
    memcpy(own, sums, n * sizeof *own);
}

static void sum_coded(comm *c, const comm_sum *s, float *own, size_t n)
{
    float *sums = (float *)(void *)contribution(c, s, c->size), *part = sums + n;
    memset(sums, 0, n * sizeof *sums);
    for (int r = 0; r < c->size; r++) {
        if (r != c->rank)
            s->codec->decode(s->codec, n, contribution(c, s, r), part);
        const float *from = r == c->rank ? own : part;
        for (size_t i = 0; i < n; i++)
            sums[i] += from[i];
    }
    s->codec->encode(s->codec, n, sums, travelling(c, s, c->rank));
    s->codec->decode(s->codec, n, travelling(c, s, c->rank), own); /* what the others get */
}

/* Sums this rank's slice, and starts the exchange of sums. */
static void start_sums(comm *c, int slot)
{
    comm_started *s = &c->started[slot];
    const comm_sum *sum = &s->sum;
    const size_t own = slice_size(c, sum, c->rank);
    int n = 0;
    (sum->codec ? sum_coded : sum_plain)(c, sum, sum->x + slice(c, sum, c->rank), own);
    for (int hop = 1; hop < c->size; hop++) {
        const int r = (c->rank - hop + c->size) % c->size;
        c->messages[n++] = receive_from(r, travelling(c, sum, r), travel_bytes(sum->codec, slice_size(c, sum, r)));
    }
    for (int hop = 1; hop < c->size; hop++)
        c->messages[n++] =
            send_to((c->rank + hop) % c->size, travelling(c, sum, c->rank), travel_bytes(sum->codec, own));
    s->stage = SLOT_SUMS;
    s->messages = n;
    c->backend->start(c, slot, c->messages, n);
}

static void end_sum(const comm *c, const comm_sum *s)
{
    for (int r = 0; r < c->size && s->codec; r++)
        if (r != c->rank)
            s->codec->decode(s->codec, slice_size(c, s, r), travelling(c, s, r), s->x + slice(c, s, r));
}

/* Lets what is in a slot go on. */
static void advance(comm *c, int slot)
{
    comm_started *s = &c->started[slot];
    if (s->stage == SLOT_FREE || !c->backend->test(c, slot, s->messages))
        return;
    if (s->stage == SLOT_SLICES) {
        start_sums(c, slot);
        return;
    }
    if (s->stage == SLOT_SUMS)
        end_sum(c, &s->sum);
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

void comm_allreduce_start(comm *c, int slot, const comm_sum *sum, qwen3_comm_kind kind)
{
    if (!sum_overlaps(c, sum->n)) {
        comm_allreduce(c, sum->x, sum->n, kind);
        return;
    }
    const double start = seconds_now();
    size_t sent = 0;
    begin(c, slot, (comm_started){.stage = SLOT_SLICES, .kind = kind, .sum = *sum});
    start_slices(c, slot);
    for (int r = 0; r < c->size; r++)
        sent += r == c->rank ? (size_t)(c->size - 1) * travel_bytes(sum->codec, slice_size(c, sum, r))
                             : travel_bytes(sum->codec, slice_size(c, sum, r));
    comm_count(c, kind, 1, sent, start);
}
