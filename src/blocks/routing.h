/* routing.h - which experts the rows of a step go to: the router's softmax, the best of it, and the rows of each
 * expert. Every rank comes to the same decisions, from the same scores.
 */
#ifndef QWEN3_BLOCKS_ROUTING_H
#define QWEN3_BLOCKS_ROUTING_H

#include "base/memory_plan.h"
#include "kernels/kernels.h"

/* A pair is a row and one of the experts that it has chosen. Pairs are ordered by expert, then by row. */
typedef struct routing {
    size_t rows, experts, chosen; /* chosen: experts of each row */
    bool normalise;               /* weights of a row are divided by their sum */
    float *scores;                /* [rows, experts] of the router; overwritten by routing_choose */
    int32_t *choices;             /* [rows, chosen] experts of each row, the best first */
    float *choice_weights;        /* [rows, chosen] */
    size_t *first;                /* [experts + 1] the pairs of expert e: [first[e], first[e + 1]) */
    size_t *places;               /* [experts] scratch */
    int32_t *pair_rows;           /* [rows * chosen] */
    float *pair_weights;          /* [rows * chosen] */
    int32_t *active;              /* [experts] those that have pairs, in their order: */
    size_t n_active;
    size_t *first_tile; /* [n_active + 1] of the tiles, at most `tile_rows` rows each, that the pairs of each are in */
    size_t tile_rows;
} routing;

/* Adds the tables to a plan. The sizes, `normalise` and tile_rows are set. They live in phases [input, output], the
 * scores in `input`. */
void routing_plan(routing *r, memory_plan *m, int input, int output);

/* The choices of a row, from its scores s: the experts with the largest ones, of equal ones the first, weighted by
 * softmax(s). Where a score is not finite, all weights are NaN. */
void routing_choose(routing *r, const kernels *k, size_t row);

/* The pairs of all rows, once these have chosen. One thread. */
void routing_sort(routing *r);

/* Pairs of the busiest expert over the mean of all experts; 0 without rows. */
double routing_load(const routing *r);

/* The pairs of an expert whose rows are in [row, end): [*first, *first + result). */
size_t routing_pairs(const routing *r, int32_t expert, size_t row, size_t end, size_t *first);

/* A tile: pairs [pair, pair + n) of an expert, the index of which among the active ones is given. */
typedef struct routing_tile {
    size_t index, pair, n;
} routing_tile;

routing_tile routing_tile_at(const routing *r, size_t tile);

#endif
