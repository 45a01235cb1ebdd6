#include "blocks/attention.h"

head_shard attention_heads(const qwen3_config *config, grid_place place)
{
    return partition_heads(config->num_heads, config->num_kv_heads, place.h_groups, place.h);
}

int64_t attention_grain(const gemm_kernel *gemm, int64_t head_dim)
{
    int64_t grain = gemm->nr;
    while (grain % head_dim != 0)
        grain += gemm->nr;
    return grain;
}

static range scaled(range r, int64_t factor)
{
    return (range){r.begin * factor, r.end * factor};
}

static void declare(declaration *d)
{
    const qwen3_config *c = d->config;
    const int64_t dim = c->head_dim, q_rows = c->num_heads * dim, kv_rows = c->num_kv_heads * dim;
    const head_shard shard = attention_heads(c, d->place);
    const range hidden = {0, c->hidden_size}, heads = scaled(shard.heads, dim), kv_heads = scaled(shard.kv_heads, dim);

    declare_norm(d, "input_layernorm.weight", c->hidden_size);
    const size_t q = declare_tensor(d, TENSOR_MATRIX, "self_attn.q_proj.weight", q_rows, c->hidden_size);
    const size_t k = declare_tensor(d, TENSOR_MATRIX, "self_attn.k_proj.weight", kv_rows, c->hidden_size);
    const size_t v = declare_tensor(d, TENSOR_MATRIX, "self_attn.v_proj.weight", kv_rows, c->hidden_size);
    const size_t o = declare_tensor(d, TENSOR_MATRIX, "self_attn.o_proj.weight", c->hidden_size, q_rows);
    declare_matrix(d, (matrix_declaration){.parts = {{q, heads, hidden}, {k, kv_heads, hidden}, {v, kv_heads, hidden}},
                                           .n_parts = 3,
                                           .grain = attention_grain(d->gemm, dim)});
    declare_matrix(d, (matrix_declaration){.parts = {{o, hidden, heads}}, .n_parts = 1, .grain = d->gemm->nr});
    if (c->qk_norm) {
        declare_norm(d, "self_attn.q_norm.weight", dim);
        declare_norm(d, "self_attn.k_norm.weight", dim);
    }
}

const block block_attention = {.name = "attention", .declare = declare};
