/* attend.h - the attention of one layer, by the movement that the step calls for. Internal to the forward pass. */
#ifndef QWEN3_ENGINE_ATTEND_H
#define QWEN3_ENGINE_ATTEND_H

#include "engine/session.h"

/* Whether heads of q, k and v go from their products to their places at once, so that b.qkv is never stored: rows are
 * many and all here, and a head is a number of whole panels. */
bool attend_projects(const qwen3_session *s);

/* Prepares the jobs of a layer. Thread 0 calls it, after the attention of the layer before and a barrier ahead of
 * attend(). */
void attend_plan(const team *t, qwen3_session *s, int64_t layer);

/* b.normed, or b.qkv (the products of this rank's part) where heads are not projected here -> norm, rotation, queries
 * and cache -> attention over the keys of all ranks -> b.attended [rows, part of heads * head_dim]. Called by all
 * threads, after a barrier; ends with one. */
void attend(team *t, qwen3_session *s, const layer_weights *w, int64_t layer);

#endif
