/* roofline.c - what a phase must do at the least, and the fraction of the machine's limits reached with it.
 *
 * Prefill is bound by multiply-adds: the linear layers of every token, causal attention, the output head for the
 * rows whose logits are made. Decode is bound by reads: the weights once per step, and every sequence's keys and
 * values. (Williams, Waterman & Patterson 2009) */
#include <math.h>

#include "benchmark.h"

double prefill_flops(const qwen3_config *c, double batch, double prompt)
{
    double hidden = (double)c->hidden_size, inter = (double)c->intermediate_size, layers = (double)c->num_layers;
    double q = (double)(c->num_heads * c->head_dim), kv = (double)(c->num_kv_heads * c->head_dim);
    double linear = 2 * (hidden * (q + 2 * kv) + q * hidden + 3 * hidden * inter);
    double attention = 4 * q * (prompt + 1) / 2; /* scores and sums over the mean number of visible keys */
    double head = 2 * hidden * (double)c->vocab_size;
    return batch * (prompt * layers * (linear + attention) + head);
}

double decode_kv_bytes(const qwen3_config *c, qwen3_dtype dtype, double batch, double prompt, double generate)
{
    double bytes = dtype == QWEN3_DTYPE_F32 ? 4 : 2;
    double per_token = 2 * (double)c->num_layers * (double)(c->num_kv_heads * c->head_dim) * bytes;
    return batch * per_token * (prompt + (generate + 1) / 2);
}

void roofline_keep_larger(qwen3_roofline *best, const qwen3_roofline *other)
{
    best->read_bytes_per_second = fmax(best->read_bytes_per_second, other->read_bytes_per_second);
    best->f32_flops = fmax(best->f32_flops, other->f32_flops);
    best->bf16_flops = fmax(best->bf16_flops, other->bf16_flops);
}

void roofline_fractions(benchmark_result *r, const qwen3_roofline *limits, qwen3_dtype dtype)
{
    r->read_bandwidth = limits->read_bytes_per_second;
    r->peak_flops = dtype == QWEN3_DTYPE_F32 ? limits->f32_flops : limits->bf16_flops;
    r->prefill_fraction = r->prefill_flops / (1e-3 * r->prefill.ms) / r->peak_flops;
    r->decode_fraction = r->decode_bytes / (1e-3 * r->ms_per_step) / r->read_bandwidth;
}
