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

/* The part of the intermediate dimension of a place in the grid. */
range gated_mlp_intermediate(const qwen3_config *config, const gemm_kernel *gemm, grid_place place);

#endif
