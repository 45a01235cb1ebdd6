/* step.h - what one forward pass is about to do, decided before it does anything: which rows this rank
 * computes, which group keeps them, whose logits are wanted. Every rank computes the same plan for all
 * ranks from the same batch, without any message.
 */
#ifndef QWEN3_BLOCKS_STEP_H
#define QWEN3_BLOCKS_STEP_H

#include "base/memory_plan.h"
#include "model/sequences.h"

/* How a step with several sequence groups divides its work. */
typedef enum step_mode {
    STEP_SPLIT_ROWS,    /* each group computes its own rows with whole slices of the weights */
    STEP_SPLIT_WEIGHTS, /* all groups compute all rows, each with its part of the weights */
} step_mode;

/* A batch may be computed in two parts (session.h): of the new tokens of every sequence the first half is in part 0. */
typedef struct step_part {
    int part, parts;
} step_part;

typedef struct step_row {
    int32_t token, sequence, position;
    int32_t owner; /* sequence group that keeps its position, and in STEP_SPLIT_ROWS computes it */
    int32_t index; /* of the sequence among those of the batch */
    int64_t out;   /* index among the wanted logits of the batch, or -1 */
    int64_t place; /* among the positions of its sequence that the owner keeps; set by step_commit */
} step_row;

/* The rows of one sequence among those of one group. */
typedef struct step_job {
    int32_t sequence;
    size_t first, rows; /* in step.rows */
} step_job;

typedef struct step {
    step_mode mode;
    size_t n_rows, n_sequences;
    size_t n_out; /* wanted logits of the batch */
    /* All rows of this part of the batch, ordered by group (one group of all in STEP_SPLIT_WEIGHTS), then sequence,
     * then position. */
    step_row *rows;      /* [n_rows] */
    step_row *unsorted;  /* [n_rows] in the order of the batch */
    size_t *group_first; /* [groups + 1] first row of each group in rows */
    /* Jobs of all groups, every group with one for each sequence of the batch (perhaps with no rows). */
    step_job *jobs;     /* [groups][n_sequences] */
    int64_t *new_owned; /* [n_sequences][groups] positions that each group will get */
    int32_t *sequences; /* [n_sequences] in order of first appearance */
    int32_t *index_of;  /* [max_sequences] sequence -> index in `sequences`, or -1 */
    size_t *counts;     /* [2][max_sequences] tokens of a sequence in the batch; those that have been read */
    memory_plan plan;   /* of all these */
    memory_region tables;
} step;

/* A zeroed step is empty. */
void step_close(step *s);

/* Checks the batch against the configuration and the room in the table, and fills the plan of a part of it, when the
 * parts before have been committed. Changes nothing but *s. split_min: fewest rows of a batch that are split over the
 * groups. */
qwen3_status step_plan(step *s, const sequence_table *table, const qwen3_config *config, const qwen3_batch *batch,
                       step_part part, int64_t split_min, qwen3_error *err);
/* Books the positions, for which there must be room; cannot fail. */
void step_commit(step *s, sequence_table *table);

/* Positions of the sequence with index q that `group` gets. */
static inline int64_t step_new_owned(const step *s, size_t q, int groups, int group)
{
    return s->new_owned[q * (size_t)groups + (size_t)group];
}

/* The rows that a rank of `group` computes: [*first, *first + result) of rows. */
static inline size_t step_rows_of(const step *s, int group, size_t *first)
{
    int g = s->mode == STEP_SPLIT_ROWS ? group : 0;
    *first = s->group_first[g];
    return s->group_first[g + 1] - s->group_first[g];
}

#endif
