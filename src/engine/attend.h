/* attend.h - the attention of one layer, by the movement that the step calls for. Internal to the forward pass. */
#ifndef QWEN3_ENGINE_ATTEND_H
#define QWEN3_ENGINE_ATTEND_H

#include "engine/session.h"

/* b.qkv (the products of this rank's part) -> norm, rotation, queries and cache -> attention over the keys of all
 * ranks -> b.attended [rows, part of heads * head_dim]. Called by all threads; begins and ends with a barrier. */
void attend(team *t, qwen3_session *s, const layer_weights *w, int64_t layer);

#endif
