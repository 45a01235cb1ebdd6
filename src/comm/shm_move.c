/* shm_move.c - gathers, all-to-all and broadcast through the slots of shm.c, or from memory to memory.
 *
 * Every function goes through a number of synchronisations that all ranks know or learn at the first one. A slot's
 * worth of each piece that is not direct moves at each; a direct piece moves between the first and the second.
 */
#include <string.h>

#include "base/memory.h"
#include "comm/shm.h"

/* Pieces from this length on are read from the memory of their owner, or written to that of their receiver: below, two
 * copies through slots, which stay in the caches, take less time. A broadcast has nothing that overlaps with the root's
 * copy but the copies of chunks before. Measured in docs/notebook/2026-11-27-communication.md. */
#define DIRECT_BYTES ((size_t)1 << 20)
#define DIRECT_BROADCAST ((size_t)128 << 10)
#define BROADCAST_CHUNK ((size_t)8 << 10)

static bool direct(const comm *c, size_t bytes)
{
    return bytes >= DIRECT_BYTES && shm_reads(c);
}

static void copy(void *to, const void *from, size_t bytes)
{
    if (bytes && to != from)
        memmove(to, from, bytes);
}

/* Synchronisations for the pieces, of which every rank has one: 0 if there is nothing to move. */
static size_t syncs_of(const comm *c, const size_t *bytes, int pieces)
{
    size_t syncs = 0;
    for (int r = 0; r < pieces; r++) {
        const size_t n = direct(c, bytes[r]) ? 2 : (bytes[r] + SLOT_BYTES - 1) / SLOT_BYTES;
        syncs = n > syncs ? n : syncs;
    }
    return syncs;
}

/* Copies bytes [done, done + SLOT_BYTES) of a piece into this rank's slot for the next synchronisation. */
static void copy_in(comm *c, const void *piece, size_t bytes, size_t done)
{
    if (done < bytes)
        memcpy(shm_slot(c, c->rank, shm_next(c)), (const unsigned char *)piece + done,
               at_most(bytes - done, SLOT_BYTES));
}

/* Copies them out of the slot of `rank` for the synchronisation of that number, or the whole piece from its memory. */
static void copy_out(comm *c, int rank, uint64_t number, void *piece, size_t bytes, size_t done)
{
    if (done < bytes && !direct(c, bytes))
        memcpy((unsigned char *)piece + done, shm_slot(c, rank, number), at_most(bytes - done, SLOT_BYTES));
    else if (done == 0 && bytes)
        shm_read(c, rank, shm_notes(c, rank, number)->place, piece, bytes);
}

void shm_allgather(comm *c, const void *send, void *recv, const size_t *bytes)
{
    const size_t own = bytes[c->rank], syncs = syncs_of(c, bytes, c->size);
    size_t place = 0; /* of the own piece */
    for (int r = 0; r < c->rank; r++)
        place += bytes[r];
    for (size_t i = 0; i < syncs; i++) {
        const uint64_t number = shm_next(c);
        if (direct(c, own))
            shm_notes(c, c->rank, number)->place = (uintptr_t)send;
        else
            copy_in(c, send, own, i * SLOT_BYTES);
        shm_barrier(c);
        /* from the next rank on, so that not all read from one */
        unsigned char *to = (unsigned char *)recv + place + own;
        for (int k = 1, r; k < c->size; k++, to += bytes[r]) {
            r = (c->rank + k) % c->size;
            if (r == 0)
                to = recv;
            copy_out(c, r, number, to, bytes[r], i * SLOT_BYTES);
        }
        if (i == 0)
            copy((unsigned char *)recv + place, send, own);
    }
}

/* Direct pieces are written by their owners, all at once, into the memory of rank 0. */
void shm_gather(comm *c, const void *send, void *recv, const size_t *bytes)
{
    const size_t own = bytes[c->rank], syncs = syncs_of(c, bytes + 1, c->size - 1);
    size_t place = 0;
    for (int r = 0; r < c->rank; r++)
        place += bytes[r];
    for (size_t i = 0; i < syncs; i++) {
        const uint64_t number = shm_next(c);
        if (c->rank == 0)
            shm_notes(c, 0, number)->place = (uintptr_t)recv;
        else if (!direct(c, own))
            copy_in(c, send, own, i * SLOT_BYTES);
        shm_barrier(c);
        if (i == 0 && c->rank != 0 && direct(c, own))
            shm_write(c, 0, shm_notes(c, 0, number)->place + place, send, own);
        unsigned char *to = recv;
        for (int r = 1; c->rank == 0 && r < c->size; r++) {
            to += bytes[r - 1];
            if (!direct(c, bytes[r]))
                copy_out(c, r, number, to, bytes[r], i * SLOT_BYTES);
        }
    }
    if (c->rank == 0)
        copy(recv, send, own);
}

/* In short chunks: the root writes one while the others read the one before. */
void shm_broadcast(comm *c, void *data, size_t bytes, int root)
{
    unsigned char *at = data;
    if (bytes >= DIRECT_BROADCAST && shm_reads(c)) {
        const uint64_t number = shm_next(c);
        if (c->rank == root)
            shm_notes(c, root, number)->place = (uintptr_t)data;
        shm_barrier(c);
        if (c->rank != root)
            shm_read(c, root, shm_notes(c, root, number)->place, data, bytes);
        shm_barrier(c);
        return;
    }
    for (size_t done = 0; done < bytes; done += BROADCAST_CHUNK) {
        const uint64_t number = shm_next(c);
        const size_t len = at_most(bytes - done, BROADCAST_CHUNK);
        if (c->rank == root)
            memcpy(shm_slot(c, root, number), at + done, len);
        shm_barrier(c);
        if (c->rank != root)
            memcpy(at + done, shm_slot(c, root, number), len);
    }
}

/* ---- All-to-all -------------------------------------------------------------------------------- */

/* Divides this rank's next slot among the pieces that are not direct, in proportion if they do not fit, and says where
 * each is. */
static void write_notes(comm *c, const unsigned char *send, const size_t *bytes)
{
    const size_t room = SLOT_BYTES - (size_t)c->size * CACHE_LINE;
    shm_note *notes = shm_notes(c, c->rank, shm_next(c));
    size_t total = 0, offset = 0, syncs = 1;
    for (int r = 0; r < c->size; r++)
        total += r == c->rank || direct(c, bytes[r]) ? 0 : bytes[r];
    for (int r = 0; r < c->size; send += bytes[r], r++) {
        const size_t n = bytes[r];
        notes[r] = (shm_note){0};
        if (r == c->rank || n == 0)
            continue;
        if (direct(c, n)) {
            notes[r].place = (uintptr_t)send;
            syncs = syncs > 2 ? syncs : 2;
            continue;
        }
        const size_t window = total <= room ? n : 1 + (size_t)((double)n / (double)total * (double)(room - 1));
        notes[r].place = offset;
        notes[r].window = (uint32_t)window;
        offset += round_up(window, CACHE_LINE);
        syncs = syncs > (n + window - 1) / window ? syncs : (n + window - 1) / window;
    }
    for (int r = 0; r < c->size; r++)
        notes[r].syncs = (uint32_t)syncs;
}

/* Copies into this rank's slot what moves at synchronisation i, as its notes of the first one say. */
static void copy_in_pieces(comm *c, const unsigned char *send, const size_t *bytes, const shm_note *notes, size_t i)
{
    unsigned char *slot = shm_slot(c, c->rank, shm_next(c));
    for (int r = 0; r < c->size; send += bytes[r], r++) {
        const size_t window = notes[r].window, done = i * window;
        if (done < bytes[r] && window > 0)
            memcpy(slot + notes[r].place, send + done, at_most(bytes[r] - done, window));
    }
}

/* Takes over what all owners say about the pieces for this rank. Returns the number of synchronisations. */
static size_t read_notes(comm *c, uint64_t number)
{
    size_t syncs = 1;
    for (int r = 0; r < c->size; r++) {
        const shm_note *note = &shm_notes(c, r, number)[c->rank];
        shm_received(c)[r] = *note;
        syncs = note->syncs > syncs ? note->syncs : syncs;
    }
    return syncs;
}

static void copy_out_piece(comm *c, int rank, unsigned char *to, size_t bytes, size_t i)
{
    const shm_note *note = &shm_received(c)[rank];
    const size_t done = i * note->window;
    if (direct(c, bytes)) {
        if (i == 0)
            shm_read(c, rank, note->place, to, bytes);
    } else if (done < bytes) {
        memcpy(to + done, shm_slot(c, rank, shm_next(c) - 1) + note->place, at_most(bytes - done, note->window));
    }
}

void shm_alltoall(comm *c, const void *send, const size_t *send_bytes, void *recv, const size_t *recv_bytes)
{
    size_t syncs = 1, from = 0, to = 0; /* offsets of the own piece */
    for (int r = 0; r < c->rank; r++) {
        from += send_bytes[r];
        to += recv_bytes[r];
    }
    write_notes(c, send, send_bytes);
    const shm_note *notes = shm_notes(c, c->rank, shm_next(c));
    for (size_t i = 0; i < syncs; i++) {
        copy_in_pieces(c, send, send_bytes, notes, i);
        shm_barrier(c);
        if (i == 0)
            syncs = read_notes(c, shm_next(c) - 1);
        unsigned char *at = (unsigned char *)recv + to + recv_bytes[c->rank];
        for (int k = 1, r; k < c->size; k++, at += recv_bytes[r]) {
            r = (c->rank + k) % c->size;
            if (r == 0)
                at = recv;
            copy_out_piece(c, r, at, recv_bytes[r], i);
        }
        if (i == 0)
            copy((unsigned char *)recv + to, (const unsigned char *)send + from, send_bytes[c->rank]);
    }
}
