/* attention.h - norm, projections to queries, keys and values, attention, projection back (Vaswani et al. 2017; query
 * heads that share a KV head: Ainslie et al. 2023).
 *
 * What it keeps of a sequence is its keys and values (kv_cache.h). Queries and keys of several ranks meet by a movement
 * (attention/movement.h), chosen for each step.
 */
#ifndef QWEN3_BLOCKS_ATTENTION_H
#define QWEN3_BLOCKS_ATTENTION_H

#include "blocks/block.h"
#include "model/kv_cache.h"

/* What it declares, in this order. */
enum {
    ATTENTION_QKV, /* matrix [(heads + 2 kv_heads) * head_dim, hidden]: q rows, then k, then v */
    ATTENTION_O,   /* matrix [hidden, heads * head_dim] */
};
enum {
    ATTENTION_INPUT_NORM = BLOCK_NORM, /* vector [hidden] */
    ATTENTION_Q_NORM,                  /* vector [head_dim], for all heads; NULL without config.qk_norm */
    ATTENTION_K_NORM,
    ATTENTION_QKV_BIAS, /* vector: of the outputs of ATTENTION_QKV; NULL without config.attention_bias */
};

extern const block block_attention;

/* The heads of a place in the grid. */
head_shard attention_heads(const qwen3_config *config, grid_place place);
/* Rows of the q-k-v matrix are divided in multiples of this: whole panels and whole heads. */
int64_t attention_grain(int64_t nr, int64_t head_dim);

/* The keys and values that a state of block_attention keeps. */
const kv_cache *attention_cache(const void *state);

#endif
