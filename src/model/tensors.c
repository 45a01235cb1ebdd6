/* tensors.c - names and shapes of the tensors that a configuration demands. */
#include <inttypes.h>
#include <stdio.h>

#include "model/source.h"

void tensor_describe(const qwen3_config *c, tensor_role role, int64_t layer, char *name, int64_t *rows, int64_t *cols)
{
    int64_t hidden = c->hidden_size, inter = c->intermediate_size;
    int64_t q = c->num_heads * c->head_dim, kv = c->num_kv_heads * c->head_dim;
    const struct shape {
        const char *name;
        int64_t rows, cols;
    } table[TENSOR_ROLES] = {
        [TENSOR_EMBED] = {"model.embed_tokens.weight", c->vocab_size, hidden},
        [TENSOR_LM_HEAD] = {"lm_head.weight", c->vocab_size, hidden},
        [TENSOR_FINAL_NORM] = {"model.norm.weight", hidden, 1},
        [TENSOR_INPUT_NORM] = {"input_layernorm.weight", hidden, 1},
        [TENSOR_Q] = {"self_attn.q_proj.weight", q, hidden},
        [TENSOR_K] = {"self_attn.k_proj.weight", kv, hidden},
        [TENSOR_V] = {"self_attn.v_proj.weight", kv, hidden},
        [TENSOR_O] = {"self_attn.o_proj.weight", hidden, q},
        [TENSOR_Q_NORM] = {"self_attn.q_norm.weight", c->head_dim, 1},
        [TENSOR_K_NORM] = {"self_attn.k_norm.weight", c->head_dim, 1},
        [TENSOR_POST_NORM] = {"post_attention_layernorm.weight", hidden, 1},
        [TENSOR_GATE] = {"mlp.gate_proj.weight", inter, hidden},
        [TENSOR_UP] = {"mlp.up_proj.weight", inter, hidden},
        [TENSOR_DOWN] = {"mlp.down_proj.weight", hidden, inter},
    };
    const struct shape *t = &table[role];
    if (role < TENSOR_INPUT_NORM)
        snprintf(name, TENSOR_NAME_MAX, "%s", t->name);
    else
        snprintf(name, TENSOR_NAME_MAX, "model.layers.%" PRId64 ".%s", layer, t->name);
    *rows = t->rows;
    *cols = t->cols;
}

bool tensor_is_vector(tensor_role role)
{
    return role == TENSOR_FINAL_NORM || role == TENSOR_INPUT_NORM || role == TENSOR_Q_NORM || role == TENSOR_K_NORM ||
           role == TENSOR_POST_NORM;
}
