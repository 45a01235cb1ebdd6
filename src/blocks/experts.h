/* experts.h - norm and a mixture of experts: gated feed-forward networks, of which a router chooses a few for each row
 * (Shazeer et al. 2017).
 *
 *     p = softmax(x Wrouter^T)        y = sum over the chosen e: p_e (silu(x Wgate_e^T) * (x Wup_e^T)) Wdown_e^T
 *
 * Every rank computes the router whole and in f32, and so makes the same choices. Each expert is split over ranks as
 * the gated MLP is: all ranks read an equal part of every chosen expert, and no token travels.
 */
#ifndef QWEN3_BLOCKS_EXPERTS_H
#define QWEN3_BLOCKS_EXPERTS_H

#include "blocks/block.h"

/* What it declares for each expert, in this order: expert e has the matrices from EXPERT_MATRICES * e on. */
enum {
    EXPERT_GATE, /* [part of the expert's intermediate size, hidden] */
    EXPERT_UP,   /* the same */
    EXPERT_DOWN, /* [hidden, part] */
    EXPERT_MATRICES,
};
enum {
    EXPERTS_INPUT_NORM = BLOCK_NORM, /* vector [hidden] */
    EXPERTS_ROUTER,                  /* [experts, hidden], whole on every rank */
};

extern const block block_experts;

#endif
