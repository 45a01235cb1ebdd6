/* source_backend.h - what source.c needs of a kind of source. */
#ifndef QWEN3_MODEL_SOURCE_BACKEND_H
#define QWEN3_MODEL_SOURCE_BACKEND_H

#include "model/source.h"

typedef struct source_backend {
    /* As source_part and source_stored_type; never for a tensor whose values are those of another. */
    tensor_view (*part)(const source *s, tensor_part part, void *scratch);
    const char *(*stored_type)(const source *s, size_t number);
    /* The values of a tensor in the mapped file; NULL if they are those of another, or in no file. */
    const void *(*stored)(const source *s, size_t number, size_t *bytes);
    /* As source_stored_part, of a tensor whose blocks are made of several tensors; NULL where those are in place. */
    stored_part (*blocks)(const source *s, tensor_part part, weight_type type, void *scratch);
    /* As source_file. */
    bool (*file)(const source *s, size_t number, source_file_info *info);
    /* As source_verify; NULL where nothing has checksums. */
    qwen3_status (*verify)(const source *s, const source_share *share, qwen3_error *err);
    /* All but the source's tensors. */
    void (*close)(source *s);
} source_backend;

/* First member of every kind of source. */
struct source {
    const source_backend *backend;
    qwen3_config config;
    const char *prefix; /* of the names of tensors */
    tensor *tensors;    /* [n_tensors]; the declaration's until it is opened */
    size_t n_tensors;
    packed_format format; /* nr = 0: not a packed model */
    weight_type *types;   /* as source_types, owned */
};

/* What every kind of source begins with: d lends its tensors. */
source source_begin(const source_backend *backend, const declaration *d);

/* *out is owned by the caller, who ends it with backend->close. */
qwen3_status source_open_synthetic(uint64_t seed, const declaration *d, source **out, qwen3_error *err);
qwen3_status source_open_checkpoint(const char *dir, const declaration *d, source **out, qwen3_error *err);
qwen3_status source_open_gguf(const char *path, const declaration *d, source **out, qwen3_error *err);

#endif
