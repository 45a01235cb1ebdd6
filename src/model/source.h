/* source.h - where weights come from, tensor by tensor and part by part: a checkpoint, a GGUF file or a seeded
 * generator. Each rank reads only the parts it keeps. */
#ifndef QWEN3_MODEL_SOURCE_H
#define QWEN3_MODEL_SOURCE_H

#include "base/work.h"
#include "kernels/stored.h"
#include "model/declaration.h"

typedef struct source source;

/* How the matrices of a packed model (packed.h) are packed: their type, AUTO where each has its own (source_types), and
 * the height of panels. */
typedef struct packed_format {
    qwen3_dtype dtype;
    int nr;
} packed_format;

/* Values as a source holds them: rows of `type`, F32 or BF16, whose starts are `stride` elements apart. */
typedef struct tensor_view {
    const void *data;
    qwen3_dtype type;
    size_t stride;
} tensor_view;

static inline float view_value(const tensor_view *v, size_t i)
{
    return v->type == QWEN3_DTYPE_F32 ? ((const float *)v->data)[i] : bf16_to_f32(((const bf16 *)v->data)[i]);
}

/* spec as in qwen3_model_open; d declares the tensors of its configuration, which move to the source: d has none after
 * success. For a GGUF file, checks that it has every tensor, with its shape, and no other. For a checkpoint, checks
 * that every tensor is there with its shape and a supported type; one whose values are those of another is not
 * demanded, and ignored. Names may lack the prefix of the architecture; then there need be no output head, and
 * no_output_head of the source's configuration says whether there is one. Unknown extra tensors are an error only if
 * they are named like a layer beyond num_layers, or like a bias or an expert that the configuration does not have. On
 * failure *out is NULL. Not collective. */
qwen3_status source_open(const char *spec, uint64_t seed, declaration *d, source **out, qwen3_error *err);
void source_close(source *s);

const qwen3_config *source_config(const source *s);
/* The tensors, by number, and how many they are. */
const tensor *source_tensor(const source *s, size_t number);
size_t source_tensors(const source *s);

/* A part of a tensor: either in place in the mapped file, or, converted or generated, in `scratch` (of at least rows *
 * cols * 4 bytes, aligned to 4). Values of a synthetic tensor are exactly representable in BF16 and depend on (seed,
 * number, row, column) alone. Thread-safe. Not collective. */
tensor_view source_part(const source *s, const tensor_part *part, void *scratch);

/* NULL where the source is not a packed model, whose matrices source_part does not give but source_packed does. */
const packed_format *source_format(const source *s);
/* A whole packed matrix in the mapped file, aligned to PACKED_ALIGNMENT. */
packed_matrix source_packed(const source *s, size_t number);

/* The type of each tensor that products read, by number, where the source has any in a stored type: that type, BF16 or
 * F32; a tensor has that of the one which is stored in its place. NULL where it has none. */
const weight_type *source_types(const source *s);
/* The format that a dtype means for a source: AUTO is that of a packed model, or the stored types, or BF16. */
weight_format source_weight_format(const source *s, const kernels *k, qwen3_dtype dtype);
/* A part of a tensor in a stored type, of a source that is not packed: as it is in the file, or in `scratch` as in
 * source_part. `type` is that of the tensor, or G4_32 where that is G4_128 (weight_format.h). */
stored_part source_stored_part(const source *s, const tensor_part *part, weight_type type, void *scratch);

/* What one of several ranks does of a task, its threads, and who is told how far it is, or NULL. */
typedef struct source_share {
    int part, parts, threads;
    work *work;
} source_share;

/* Reads a share of what is stored with checksums, the data of a packed model, and names the first tensor that is
 * damaged. Not collective. */
qwen3_status source_verify(const source *s, const source_share *share, qwen3_error *err);

/* The type name as stored ("BF16", "F32", "F16"; also "Q4_K" and others of gguf_types.h; "BF16" for synthetic tensors;
 * "bf16", "q8", "q4", "f32" for packed ones); "" where the values are those of another tensor, or there are none. */
const char *source_stored_type(const source *s, size_t number);

/* For ranks that compare what they read. */
typedef struct source_file_info {
    const char *path;
    size_t bytes;
    uint64_t header; /* its digest */
} source_file_info;
/* The files by number; false where there are no more. */
bool source_file(const source *s, size_t number, source_file_info *info);
/* The digest of the stored values of a tensor: of all of a vector, and of a sample of a matrix, which reads few pages.
 * 0 where they are those of another or generated. */
uint64_t source_digest(const source *s, size_t number);

#endif
