/* rope.h - rotation angles (Su et al. 2021), with YaRN (Peng et al. 2023). */
#ifndef QWEN3_MODEL_ROPE_H
#define QWEN3_MODEL_ROPE_H

#include "qwen3.h"

/* Radians per position for each pair: out [head_dim / 2]. Returns what cos and sin are multiplied by. */
double rope_frequencies(const qwen3_config *config, double *out);
/* cosines, sines [head_dim / 2] of one position. Angles are taken in double: at position 40,000 an f32
 * angle is off by 2e-3 radians. */
void rope_angles(const qwen3_config *config, const double *frequencies, double scale, int32_t position, float *cosines,
                 float *sines);

#endif
