/* source_backend.h - what source.c needs of a kind of source. */
#ifndef QWEN3_MODEL_SOURCE_BACKEND_H
#define QWEN3_MODEL_SOURCE_BACKEND_H

#include "model/source.h"

typedef struct source_backend {
    /* As source_block and source_stored_type; role is never TENSOR_LM_HEAD where embeddings are tied. */
    void (*block)(const source *s, tensor_role role, int64_t layer, int64_t row0, int64_t rows, int64_t col0,
                  int64_t cols, void *scratch, const void **data, qwen3_dtype *type, size_t *stride);
    const char *(*stored_type)(const source *s, tensor_role role, int64_t layer);
    /* As source_packed; NULL where no source of the kind is a packed model. */
    const void *(*packed)(const source *s, tensor_role role, int64_t layer);
    void (*close)(source *s);
} source_backend;

/* First member of every kind of source. */
struct source {
    const source_backend *backend;
    qwen3_config config;
    packed_format format; /* nr = 0: not a packed model */
};

/* The configuration has been read. *out is owned by the caller, who ends it with backend->close. */
qwen3_status source_open_synthetic(const qwen3_config *config, uint64_t seed, source **out, qwen3_error *err);
qwen3_status source_open_checkpoint(const char *dir, const qwen3_config *config, source **out, qwen3_error *err);

#endif
