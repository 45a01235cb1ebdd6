/* sequences.h - how long the sequences of a session are, and which sequence group keeps which of their positions.
 *
 * Who keeps a position is decided once, when its token is computed, and recorded here; nothing derives it afterwards.
 * All ranks know how many positions each group keeps, and each group knows its own. What a block keeps of a sequence
 * (keys and values) it keeps for these positions, in this order.
 */
#ifndef QWEN3_MODEL_SEQUENCES_H
#define QWEN3_MODEL_SEQUENCES_H

#include "base/status.h"

typedef struct sequence_entry {
    int64_t length;     /* positions held by the whole job */
    int64_t *owned;     /* [groups] of these, by each sequence group */
    int32_t *positions; /* [owned[group]] own ones, ascending */
    int64_t capacity;   /* of positions */
} sequence_entry;

typedef struct sequence_table {
    int groups, group; /* sequence groups of the job, and this rank's */
    int max_sequences;
    int64_t max_tokens;    /* per sequence */
    bool whole_pages;      /* pages of keys are not split between groups (attention.h, pagewise) */
    sequence_entry *items; /* [max_sequences] */
} sequence_table;

/* Empty sequences; the other fields of `limits` are those of the table. */
qwen3_status sequences_open(sequence_table *t, const sequence_table *limits, qwen3_error *err);
void sequences_close(sequence_table *t);
/* Makes room for n more positions of a sequence in this rank's group; nothing else changes. */
qwen3_status sequences_reserve(sequence_table *t, int sequence, int64_t n, qwen3_error *err);
/* Adds the next position of a sequence, for `owner`, and returns its place among those that the owner keeps. Room must
 * have been reserved. */
int64_t sequences_append(sequence_table *t, int sequence, int32_t position, int owner);
/* How many of the positions below `length` this rank's group keeps. */
int64_t sequences_owned_below(const sequence_table *t, int sequence, int64_t length);
/* The empty sequence `to` gets the positions of `from` below `length`, kept by the same groups; owned as below. On
 * failure nothing changes. */
qwen3_status sequences_fork(sequence_table *t, int from, int to, int64_t length, const int64_t *owned,
                            qwen3_error *err);
/* Forgets the positions from `length` on; owned[groups] is what sequences_owned_below says on each group. */
void sequences_truncate(sequence_table *t, int sequence, int64_t length, const int64_t *owned);

#endif
