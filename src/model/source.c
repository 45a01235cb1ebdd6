/* source.c - opens a source by its spec and passes calls on to its kind. */
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "model/config.h"
#include "model/source_backend.h"

source source_begin(const source_backend *backend, const declaration *d)
{
    return (source){.backend = backend,
                    .config = *d->config,
                    .prefix = d->model_prefix,
                    .tensors = d->tensors,
                    .n_tensors = d->n_tensors};
}

qwen3_status source_open(const char *spec, uint64_t seed, declaration *d, source **out, qwen3_error *err)
{
    *out = NULL;
    qwen3_status status;
    if (strncmp(spec, SYNTHETIC_PREFIX, strlen(SYNTHETIC_PREFIX)) == 0)
        status = source_open_synthetic(seed, d, out, err);
    else if (gguf_is_path(spec))
        status = source_open_gguf(spec, d, out, err);
    else
        status = source_open_checkpoint(spec, d, out, err);
    if (!status) {
        d->tensors = NULL;
        d->n_tensors = 0;
    }
    return status;
}

void source_close(source *s)
{
    if (!s)
        return;
    free(s->tensors);
    free(s->types);
    s->backend->close(s);
}

const qwen3_config *source_config(const source *s)
{
    return &s->config;
}

const tensor *source_tensor(const source *s, size_t number)
{
    return &s->tensors[number];
}

size_t source_tensors(const source *s)
{
    return s->n_tensors;
}

tensor_view source_part(const source *s, const tensor_part *part, void *scratch)
{
    tensor_part stored = *part;
    stored.tensor = s->tensors[part->tensor].same_as;
    return s->backend->part(s, stored, scratch);
}

const packed_format *source_format(const source *s)
{
    return s->format.nr ? &s->format : NULL;
}

packed_matrix source_packed(const source *s, size_t number)
{
    size_t bytes;
    const void *data = s->backend->stored(s, number, &bytes);
    return (packed_matrix){data, (size_t)s->format.nr, (size_t)s->tensors[number].cols};
}

const weight_type *source_types(const source *s)
{
    return s->types;
}

weight_format source_weight_format(const source *s, const kernels *k, qwen3_dtype dtype)
{
    if (dtype != QWEN3_DTYPE_AUTO)
        return weight_format_of(k, dtype);
    if (s->types)
        return weight_format_stored(k, s->types, s->n_tensors);
    return weight_format_of(k, s->format.nr ? s->format.dtype : QWEN3_DTYPE_BF16);
}

stored_part source_stored_part(const source *s, const tensor_part *part, weight_type type, void *scratch)
{
    const size_t number = s->tensors[part->tensor].same_as;
    if (s->backend->blocks)
        return s->backend->blocks(s, (tensor_part){number, part->rows, part->cols}, type, scratch);
    stored_part found = {
        .n = (size_t)range_size(part->rows), .col = (size_t)part->cols.begin, .k = (size_t)range_size(part->cols)};
    found.data = s->backend->stored(s, number, &found.stride);
    found.stride /= (size_t)s->tensors[number].rows;
    found.data += (size_t)part->rows.begin * found.stride;
    return found;
}

bool source_file(const source *s, size_t number, source_file_info *info)
{
    return s->backend->file(s, number, info);
}

/* Of a matrix: pieces of so many bytes, the first one at its beginning and the last one at its end. */
enum { DIGEST_PIECES = 4, DIGEST_PIECE_BYTES = 64 };

uint64_t source_digest(const source *s, size_t number)
{
    size_t bytes;
    const unsigned char *data = s->backend->stored(s, number, &bytes);
    if (!data)
        return 0;
    if (tensor_is_vector(s->tensors[number].kind) || bytes <= DIGEST_PIECES * DIGEST_PIECE_BYTES)
        return digest_bytes(0, data, bytes);
    uint64_t digest = 0;
    const size_t step = (bytes - DIGEST_PIECE_BYTES) / (DIGEST_PIECES - 1);
    for (size_t i = 0; i < DIGEST_PIECES; i++)
        digest = digest_bytes(digest, data + (i < DIGEST_PIECES - 1 ? i * step : bytes - DIGEST_PIECE_BYTES),
                              DIGEST_PIECE_BYTES);
    return digest;
}

qwen3_status source_verify(const source *s, const source_share *share, qwen3_error *err)
{
    return s->backend->verify ? s->backend->verify(s, share, err) : QWEN3_OK;
}

const char *source_stored_type(const source *s, size_t number)
{
    return s->tensors[number].same_as == number ? s->backend->stored_type(s, number) : "";
}
