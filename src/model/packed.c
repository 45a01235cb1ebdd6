/* packed.c - the metadata and sizes of a packed model. */
#include "model/packed.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"

void packed_describe_config(const qwen3_config *c, char text[PACKED_CONFIG_MAX])
{
    snprintf(text, PACKED_CONFIG_MAX,
             "vocab %" PRId64 " hidden %" PRId64 " inter %" PRId64 " layers %" PRId64 " heads %" PRId64 " kv %" PRId64
             " head_dim %" PRId64 " positions %" PRId64 " eps %.17g theta %.17g yarn %.17g %.17g %.17g %.17g %" PRId64
             " tied %d",
             c->vocab_size, c->hidden_size, c->intermediate_size, c->num_layers, c->num_heads, c->num_kv_heads,
             c->head_dim, c->max_positions, c->rms_norm_eps, c->rope_theta, c->yarn_factor, c->yarn_beta_fast,
             c->yarn_beta_slow, c->yarn_attention_factor, c->yarn_original_positions, c->tie_word_embeddings);
    /* Qwen3's own text is that of packed models from before there was a choice. */
    const size_t n = strlen(text);
    if (!c->qk_norm || c->attention_bias)
        snprintf(text + n, PACKED_CONFIG_MAX - n, " qk_norm %d bias %d", c->qk_norm, c->attention_bias);
}

size_t packed_tensor_bytes(const packed_format *format, const tensor *t)
{
    const gemm_kernel layout = {.nr = format->nr, .kr = format->kr, .group_bytes = format->group_bytes};
    return round_up(gemm_packed_bytes(&layout, (size_t)t->rows, (size_t)t->cols), PACKED_ALIGNMENT);
}

qwen3_status packed_read_format(const safetensors *file, const qwen3_config *config, packed_format *format,
                                qwen3_error *err)
{
    const char *version = safetensors_metadata(file, "format"), *dtype = safetensors_metadata(file, "dtype");
    const char *nr = safetensors_metadata(file, "nr");
    char expected[PACKED_CONFIG_MAX];
    if (strcmp(version, PACKED_FORMAT) != 0)
        return fail(err, QWEN3_ERR_FORMAT, "%s: metadata: format: got \"%.64s\", expected \"%s\"; pack the model again",
                    file->path, version, PACKED_FORMAT);
    if (!qwen3_dtype_parse(dtype, &format->dtype) || format->dtype < 0)
        return fail(err, QWEN3_ERR_FORMAT, "%s: metadata: dtype: got \"%.64s\", expected bf16, q8, q4 or f32",
                    file->path, dtype);
    /* What plain C has for a type is what all levels have, but for the height of panels. */
    const gemm_kernel *g = &kernels_get(QWEN3_ISA_C)->gemm[format->dtype];
    format->kr = g->kr;
    format->group_bytes = g->group_bytes;
    format->nr = atoi(nr);
    if (format->nr < 1 || format->nr > 64 || 64 % format->nr != 0)
        return fail(err, QWEN3_ERR_FORMAT, "%s: metadata: nr: got \"%.64s\", expected a power of 2 up to 64",
                    file->path, nr);
    packed_describe_config(config, expected);
    if (strcmp(safetensors_metadata(file, "config"), expected) != 0)
        return fail(err, QWEN3_ERR_CONFIG,
                    "%s: was packed with another config.json than the one beside it (\"%.500s\", now \"%s\"); pack the "
                    "model again",
                    file->path, safetensors_metadata(file, "config"), expected);
    return QWEN3_OK;
}
