/* source.c - opens a source by its spec and passes calls on to its kind. */
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "model/source_backend.h"

qwen3_status source_open(const char *spec, uint64_t seed, source **out, qwen3_config *config, qwen3_error *err)
{
    *out = NULL;
    qwen3_status status = config_read(spec, config, err);
    if (status)
        return status;
    if (strncmp(spec, SYNTHETIC_PREFIX, strlen(SYNTHETIC_PREFIX)) == 0)
        status = source_open_synthetic(config, seed, out, err);
    else
        status = source_open_checkpoint(spec, config, out, err);
    if (status)
        memset(config, 0, sizeof *config);
    return status;
}

void source_close(source *s)
{
    if (s)
        s->backend->close(s);
}

void source_block(const source *s, tensor_role role, int64_t layer, int64_t row0, int64_t rows, int64_t col0,
                  int64_t cols, void *scratch, const void **data, qwen3_dtype *type, size_t *stride)
{
    if (role == TENSOR_LM_HEAD && s->config.tie_word_embeddings)
        role = TENSOR_EMBED;
    s->backend->block(s, role, layer, row0, rows, col0, cols, scratch, data, type, stride);
}

const packed_format *source_format(const source *s)
{
    return s->format.nr ? &s->format : NULL;
}

packed_matrix source_packed(const source *s, tensor_role role, int64_t layer)
{
    if (role == TENSOR_EMBED)
        role = TENSOR_LM_HEAD;
    char name[TENSOR_NAME_MAX];
    int64_t rows, cols;
    tensor_describe(&s->config, role, layer, name, &rows, &cols);
    return (packed_matrix){s->backend->packed(s, role, layer), (size_t)s->format.nr, (size_t)cols};
}

const char *source_stored_type(const source *s, tensor_role role, int64_t layer)
{
    if (role == TENSOR_LM_HEAD && s->config.tie_word_embeddings)
        return "";
    return s->backend->stored_type(s, role, layer);
}

/* ---- The list for users ------------------------------------------------------------------------ */

static void describe(const source *s, const qwen3_config *config, tensor_role role, int64_t layer,
                     qwen3_tensor_info *info)
{
    tensor_describe(config, role, layer, info->name, &info->rows, &info->cols);
    const char *type = source_stored_type(s, role, layer);
    info->stored = *type != '\0';
    strncpy(info->dtype, type, sizeof info->dtype - 1);
}

qwen3_status qwen3_model_tensors(const char *spec, qwen3_tensor_info **tensors, size_t *n, qwen3_error *err)
{
    error_clear(err);
    if (!spec || !tensors || !n)
        return fail(err, QWEN3_ERR_ARGUMENT, "qwen3_model_tensors: spec, tensors and n must not be NULL");
    *tensors = NULL;
    *n = 0;
    source *s;
    qwen3_config config;
    qwen3_status status = source_open(spec, 0, &s, &config, err);
    if (status)
        return status;
    qwen3_tensor_info *list = calloc(tensor_count(&config), sizeof *list);
    if (list) {
        for (tensor_role role = 0; role < TENSOR_INPUT_NORM; role++)
            if (role != TENSOR_LM_HEAD || !config.tie_word_embeddings)
                describe(s, &config, role, 0, &list[(*n)++]);
        for (int64_t layer = 0; layer < config.num_layers; layer++)
            for (tensor_role role = TENSOR_INPUT_NORM; role < TENSOR_ROLES; role++)
                describe(s, &config, role, layer, &list[(*n)++]);
        *tensors = list;
    } else {
        status = fail(err, QWEN3_ERR_MEMORY, "%s: no memory for the list of tensors", spec);
    }
    source_close(s);
    return status;
}
