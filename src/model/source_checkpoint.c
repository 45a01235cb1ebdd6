/* source_checkpoint.c - weights from a model directory: in place in the mapped files where type and
 * alignment allow, otherwise copied or, for F16, widened to f32 (exactly). */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/half.h"
#include "io/checkpoint.h"
#include "model/packed.h"
#include "model/source_backend.h"

typedef struct checkpoint_source {
    source base;
    checkpoint files;
    const stored_tensor **stored; /* [n_tensors]; NULL where the values are those of another */
} checkpoint_source;

/* ---- Opening ----------------------------------------------------------------------------------- */

static qwen3_status check_shape(const checkpoint *c, const stored_tensor *t, const tensor *expected, qwen3_error *err)
{
    const bool vector = tensor_is_vector(expected->kind);
    if (t->rank == (vector ? 1 : 2) && t->shape[0] == expected->rows && (vector || t->shape[1] == expected->cols))
        return QWEN3_OK;
    char got[96] = "";
    for (int i = 0; i < t->rank && i < 4; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%" PRId64, i ? ", " : "", t->shape[i]);
    char demanded[48];
    snprintf(demanded, sizeof demanded, vector ? "%" PRId64 : "%" PRId64 ", %" PRId64, expected->rows, expected->cols);
    return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %s: got shape [%s%s], config.json demands [%s]",
                checkpoint_path_of(c, t), t->name, got, t->rank > 4 ? ", ..." : "", demanded);
}

static qwen3_status check_packed(const checkpoint_source *s, const stored_tensor *t, const tensor *expected,
                                 qwen3_error *err)
{
    const char *path = checkpoint_path_of(&s->files, t);
    size_t bytes = packed_tensor_bytes(&s->base.format, expected);
    if (strcmp(t->type_name, "U8") != 0 || t->bytes != bytes)
        return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %s: got %zu bytes of type %s, expected %zu of U8", path, t->name,
                    t->bytes, t->type_name, bytes);
    if ((uintptr_t)t->data % PACKED_ALIGNMENT != 0)
        return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %s: does not begin at a multiple of %zu bytes", path, t->name,
                    PACKED_ALIGNMENT);
    return QWEN3_OK;
}

static qwen3_status find_tensor(checkpoint_source *s, size_t number, qwen3_error *err)
{
    const tensor *expected = &s->base.tensors[number];
    const stored_tensor *t = checkpoint_find(&s->files, expected->name);
    const bool packed = source_format(&s->base) && tensor_is_packed(expected->kind);
    if (expected->same_as != number && !packed)
        return QWEN3_OK; /* even where the file stores it */
    if (!t)
        return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %s is missing", s->files.dir, expected->name);
    s->stored[number] = t;
    if (packed)
        return check_packed(s, t, expected, err);
    if (!t->supported)
        return fail(err, QWEN3_ERR_UNSUPPORTED, "%s: tensor %s: got type %s, expected BF16, F16 or F32",
                    checkpoint_path_of(&s->files, t), expected->name, t->type_name);
    return check_shape(&s->files, t, expected, err);
}

static bool is_declared_bias(const source *s, const char *name)
{
    for (size_t i = 0; i < s->n_tensors; i++)
        if (s->tensors[i].kind == TENSOR_BIAS && strcmp(s->tensors[i].name, name) == 0)
            return true;
    return false;
}

/* The text after a prefix, or NULL where it does not begin with it. */
static const char *after(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0 ? text + strlen(prefix) : NULL;
}

/* A tensor that is not declared is harmless (a stored rotation table), unless it says that the model is another one
 * than config.json describes. */
static qwen3_status check_extra(const checkpoint_source *s, const stored_tensor *t, qwen3_error *err)
{
    const char *path = checkpoint_path_of(&s->files, t), *suffix = strrchr(t->name, '.');
    const char *name = after(t->name, s->base.prefix);
    if (!name && !after(t->name, "lm_head."))
        return QWEN3_OK;
    if (suffix && strcmp(suffix, ".bias") == 0 && !is_declared_bias(&s->base, t->name))
        return fail(err, QWEN3_ERR_UNSUPPORTED, "%s: tensor %.200s: biases are not supported", path, t->name);
    const char *index = name ? after(name, "layers.") : NULL;
    if (!index)
        return QWEN3_OK;
    char *rest;
    errno = 0;
    long long layer = strtoll(index, &rest, 10);
    if (*rest != '.')
        return QWEN3_OK;
    if (errno || layer < 0 || layer >= s->base.config.num_layers)
        return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %.200s: config.json has num_hidden_layers = %" PRId64, path,
                    t->name, s->base.config.num_layers);
    if (after(rest, ".mlp.experts.") || strcmp(rest, ".mlp.gate.weight") == 0)
        return fail(err, QWEN3_ERR_UNSUPPORTED, "%s: tensor %.200s: mixtures of experts are not supported yet", path,
                    t->name);
    return QWEN3_OK;
}

static qwen3_status check_tensors(checkpoint_source *s, qwen3_error *err)
{
    qwen3_status status = QWEN3_OK;
    if (s->files.packed)
        status = packed_read_format(&s->files.files[0], &s->base.config, &s->base.format, err);
    for (size_t f = 0; f < s->files.n_files; f++)
        for (size_t t = 0; t < s->files.files[f].n_tensors && !status; t++)
            status = check_extra(s, &s->files.files[f].tensors[t], err);
    for (size_t i = 0; i < s->base.n_tensors && !status; i++)
        status = find_tensor(s, i, err);
    return status;
}

/* ---- Parts ------------------------------------------------------------------------------------- */

static void widen_f16(const unsigned char *src, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, sizeof h);
        out[i] = f16_to_f32(h);
    }
}

static tensor_view checkpoint_part(const source *base, tensor_part part, void *scratch)
{
    const stored_tensor *t = ((const checkpoint_source *)base)->stored[part.tensor];
    const size_t size = stored_type_size(t->type), row_elements = t->rank == 2 ? (size_t)t->shape[1] : 1;
    const size_t rows = (size_t)range_size(part.rows), cols = (size_t)range_size(part.cols);
    const size_t row_bytes = row_elements * size;
    const unsigned char *src =
        (const unsigned char *)t->data + (size_t)part.rows.begin * row_bytes + (size_t)part.cols.begin * size;
    const qwen3_dtype type = t->type == STORED_BF16 ? QWEN3_DTYPE_BF16 : QWEN3_DTYPE_F32;
    if (t->type != STORED_F16 && (uintptr_t)src % size == 0)
        return (tensor_view){src, type, row_elements};
    for (size_t row = 0; row < rows; row++, src += row_bytes) {
        if (t->type == STORED_F16)
            widen_f16(src, (int64_t)cols, (float *)scratch + row * cols);
        else
            memcpy((unsigned char *)scratch + row * cols * size, src, cols * size);
    }
    return (tensor_view){scratch, type, cols};
}

static const char *checkpoint_stored_type(const source *base, size_t number)
{
    if (source_format(base) && tensor_is_packed(base->tensors[number].kind))
        return qwen3_dtype_name(base->format.dtype);
    return ((const checkpoint_source *)base)->stored[number]->type_name;
}

static const void *checkpoint_stored(const source *base, size_t number, size_t *bytes)
{
    const stored_tensor *t = ((const checkpoint_source *)base)->stored[number];
    *bytes = t ? t->bytes : 0;
    return t ? t->data : NULL;
}

static bool checkpoint_file(const source *base, size_t number, source_file_info *info)
{
    const checkpoint *c = &((const checkpoint_source *)base)->files;
    if (number >= c->n_files)
        return false;
    const safetensors *f = &c->files[number];
    *info = (source_file_info){f->path, f->map_bytes, digest_bytes(0, f->map, f->header_bytes)};
    return true;
}

static qwen3_status checkpoint_verify(const source *base, const source_share *share, qwen3_error *err)
{
    const checkpoint *files = &((const checkpoint_source *)base)->files;
    return files->packed ? packed_verify(&files->files[0], share, err) : QWEN3_OK;
}

static void checkpoint_source_close(source *base)
{
    checkpoint_source *s = (checkpoint_source *)base;
    checkpoint_close(&s->files);
    free(s->stored);
    free(s);
}

qwen3_status source_open_checkpoint(const char *dir, const declaration *d, source **out, qwen3_error *err)
{
    static const source_backend backend = {checkpoint_part, checkpoint_stored_type, checkpoint_stored,
                                           checkpoint_file, checkpoint_verify,      checkpoint_source_close};
    *out = NULL;
    checkpoint_source *s = calloc(1, sizeof *s);
    if (!s)
        return fail(err, QWEN3_ERR_MEMORY, "%s: no memory for %zu bytes", dir, sizeof *s);
    s->base = source_begin(&backend, d);
    s->stored = calloc(d->n_tensors, sizeof *s->stored);
    qwen3_status status;
    if (!s->stored)
        status = fail(err, QWEN3_ERR_MEMORY, "%s: no memory for the tensor table", dir);
    else if (!(status = checkpoint_open(dir, &s->files, err)))
        status = check_tensors(s, err);
    if (status)
        checkpoint_source_close(&s->base);
    else
        *out = &s->base;
    return status;
}
