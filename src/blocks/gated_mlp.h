/* gated_mlp.h - norm and the gated feed-forward network, silu(x Wgate^T) * (x Wup^T) Wdown^T (Shazeer 2020). */
#ifndef QWEN3_BLOCKS_GATED_MLP_H
#define QWEN3_BLOCKS_GATED_MLP_H

#include "blocks/block.h"

/* What it declares, in this order. */
enum {
    GATED_MLP_GATE, /* [intermediate part, hidden] */
    GATED_MLP_UP,   /* the same */
    GATED_MLP_DOWN, /* [hidden, intermediate part] */
};
enum { GATED_MLP_INPUT_NORM = BLOCK_NORM }; /* vector [hidden] */

extern const block block_gated_mlp;

/* The part of an intermediate dimension that a place in the grid keeps; what of it is computed there (block.inputs). */
range gated_mlp_part(int64_t intermediate, int64_t grain, grid_place place);
range gated_mlp_inputs(int64_t intermediate, int64_t grain, bool split_weights, grid_place place);

#endif
