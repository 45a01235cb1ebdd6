#include "blocks/gated_mlp.h"

range gated_mlp_intermediate(const qwen3_config *config, const gemm_kernel *gemm, grid_place place)
{
    /* No panel is split, nor a group of columns of `down`. */
    return partition(config->intermediate_size, gemm_grain(gemm), place.h_groups, place.h);
}

static void declare(declaration *d)
{
    const qwen3_config *c = d->config;
    const int64_t grain = gemm_grain(d->gemm);
    const range hidden = {0, c->hidden_size}, part = gated_mlp_intermediate(c, d->gemm, d->place);

    declare_norm(d, "post_attention_layernorm.weight", c->hidden_size);
    const size_t gate = declare_tensor(d, TENSOR_MATRIX, "mlp.gate_proj.weight", c->intermediate_size, c->hidden_size);
    const size_t up = declare_tensor(d, TENSOR_MATRIX, "mlp.up_proj.weight", c->intermediate_size, c->hidden_size);
    const size_t down = declare_tensor(d, TENSOR_MATRIX, "mlp.down_proj.weight", c->hidden_size, c->intermediate_size);
    declare_matrix(d, (matrix_declaration){.parts = {{gate, part, hidden}}, .n_parts = 1, .grain = grain});
    declare_matrix(d, (matrix_declaration){.parts = {{up, part, hidden}}, .n_parts = 1, .grain = grain});
    declare_matrix(d, (matrix_declaration){.parts = {{down, hidden, part}}, .n_parts = 1, .grain = d->gemm->nr});
}

const block block_gated_mlp = {.name = "gated MLP", .declare = declare};
