/* source.h - where weights come from, tensor by tensor and block by block: a checkpoint or a seeded
 * generator. Each rank asks only for the blocks it keeps. */
#ifndef QWEN3_MODEL_SOURCE_H
#define QWEN3_MODEL_SOURCE_H

#include "base/status.h"
#include "kernels/kernels.h"

/* The tensors of the model, in the order of the published checkpoints. */
typedef enum tensor_role {
    TENSOR_EMBED,
    TENSOR_LM_HEAD,
    TENSOR_FINAL_NORM,
    TENSOR_INPUT_NORM, /* from here on one per layer */
    TENSOR_Q,
    TENSOR_K,
    TENSOR_V,
    TENSOR_O,
    TENSOR_Q_NORM,
    TENSOR_K_NORM,
    TENSOR_POST_NORM,
    TENSOR_GATE,
    TENSOR_UP,
    TENSOR_DOWN,
    TENSOR_ROLES,
} tensor_role;

#define TENSOR_NAME_MAX 96

/* Name and shape that `config` demands; layer is ignored for roles before TENSOR_INPUT_NORM. Vectors have
 * cols = 1 and are stored with one dimension. name[TENSOR_NAME_MAX]. */
void tensor_describe(const qwen3_config *config, tensor_role role, int64_t layer, char *name, int64_t *rows,
                     int64_t *cols);

bool tensor_is_vector(tensor_role role);

/* Place of a tensor in a table of all of them, and the size of such a table. */
static inline size_t tensor_index(tensor_role role, int64_t layer)
{
    size_t per_layer = role < TENSOR_INPUT_NORM ? 0 : (size_t)layer * (TENSOR_ROLES - TENSOR_INPUT_NORM);
    return per_layer + (size_t)role;
}

static inline size_t tensor_count(const qwen3_config *config)
{
    return tensor_index(TENSOR_INPUT_NORM, config->num_layers);
}

typedef struct source source;

/* How the matrices of a packed model (packed.h) are packed; the fields are those of gemm_kernel. */
typedef struct packed_format {
    qwen3_dtype dtype;
    int nr, kr, group_bytes;
} packed_format;

/* spec as in qwen3_model_open. Reads and checks config.json and, for a checkpoint, that every tensor the
 * configuration demands is there with its shape and a supported type (TENSOR_LM_HEAD is not demanded,
 * and ignored, where embeddings are tied). Unknown extra tensors are an error only if they are named like
 * a layer beyond num_layers or like a bias or an expert of a known one. On failure *out is NULL and *config
 * zeroed. Not collective. */
qwen3_status source_open(const char *spec, uint64_t seed, source **out, qwen3_config *config, qwen3_error *err);
void source_close(source *s);

/* A block of rows [row0, row0 + rows) x columns [col0, col0 + cols) of a tensor. *data, *type and *stride
 * (elements) describe it: either in place in the mapped file, or, converted or generated, in `scratch`
 * (of at least rows * cols * 4 bytes, aligned to 4). TENSOR_LM_HEAD of a model with tied embeddings is
 * TENSOR_EMBED. Values of a synthetic tensor are exactly representable in BF16 and
 * depend on (seed, role, layer, row, column) alone. Thread-safe. Not collective. */
void source_block(const source *s, tensor_role role, int64_t layer, int64_t row0, int64_t rows, int64_t col0,
                  int64_t cols, void *scratch, const void **data, qwen3_dtype *type, size_t *stride);

/* NULL where the source is not a packed model, whose matrices source_block does not give but source_packed does. */
const packed_format *source_format(const source *s);
/* A whole packed matrix in the mapped file, aligned to PACKED_ALIGNMENT. TENSOR_EMBED is the output head. */
packed_matrix source_packed(const source *s, tensor_role role, int64_t layer);

/* The type name as stored ("BF16", "F32", "F16"; "BF16" for synthetic tensors; "bf16", "q8", "q4", "f32" for packed
 * ones); "" where the tensor is not stored, as TENSOR_LM_HEAD of a model with tied embeddings. */
const char *source_stored_type(const source *s, tensor_role role, int64_t layer);

#endif
