#include "model/rope.h"

#include <math.h>

/* The pair whose wavelength fits `rotations` times into the original context (Peng et al. 2023, eq. 12). */
static double pair_of_rotations(const qwen3_config *c, double rotations)
{
    return (double)c->head_dim * log((double)c->yarn_original_positions / (rotations * 2.0 * M_PI)) /
           (2.0 * log(c->rope_theta));
}

double rope_frequencies(const qwen3_config *c, double *out)
{
    int64_t half = c->head_dim / 2;
    for (int64_t i = 0; i < half; i++)
        out[i] = pow(c->rope_theta, -2.0 * (double)i / (double)c->head_dim);
    if (c->yarn_factor == 0)
        return 1.0;
    double low = floor(pair_of_rotations(c, c->yarn_beta_fast));
    double high = ceil(pair_of_rotations(c, c->yarn_beta_slow));
    low = fmax(low, 0.0);
    high = fmin(high, (double)c->head_dim - 1.0);
    if (low == high)
        high += 0.001;
    for (int64_t i = 0; i < half; i++) {
        /* 0: many rotations, keep the frequency; 1: few, interpolate. */
        double ramp = fmin(fmax(((double)i - low) / (high - low), 0.0), 1.0);
        out[i] = out[i] * (1.0 - ramp) + out[i] / c->yarn_factor * ramp;
    }
    if (c->yarn_attention_factor != 0)
        return c->yarn_attention_factor;
    return c->yarn_factor > 1.0 ? 0.1 * log(c->yarn_factor) + 1.0 : 1.0;
}

void rope_angles(const qwen3_config *config, const double *frequencies, double scale, int32_t position, float *cosines,
                 float *sines)
{
    for (int64_t i = 0; i < config->head_dim / 2; i++) {
        double angle = (double)position * frequencies[i];
        cosines[i] = (float)(cos(angle) * scale);
        sines[i] = (float)(sin(angle) * scale);
    }
}
