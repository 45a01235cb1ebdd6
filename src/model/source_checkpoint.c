/* source_checkpoint.c - weights from a model directory: in place in the mapped files where type and
 * alignment allow, otherwise copied or, for F16, widened to f32 (exactly). */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint.h"
#include "model/packed.h"
#include "model/source_backend.h"

#define LAYER_PREFIX "model.layers."

typedef struct checkpoint_source {
    source base;
    checkpoint files;
    const stored_tensor **tensors; /* [tensor_count], by tensor_index; NULL where not stored */
} checkpoint_source;

/* ---- Opening ----------------------------------------------------------------------------------- */

static qwen3_status check_shape(const checkpoint *c, const stored_tensor *t, bool vector, int64_t rows, int64_t cols,
                                qwen3_error *err)
{
    if (t->rank == (vector ? 1 : 2) && t->shape[0] == rows && (vector || t->shape[1] == cols))
        return QWEN3_OK;
    char got[96] = "";
    for (int i = 0; i < t->rank && i < 4; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%" PRId64, i ? ", " : "", t->shape[i]);
    char expected[48];
    snprintf(expected, sizeof expected, vector ? "%" PRId64 : "%" PRId64 ", %" PRId64, rows, cols);
    return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %s: got shape [%s%s], config.json demands [%s]",
                checkpoint_path_of(c, t), t->name, got, t->rank > 4 ? ", ..." : "", expected);
}

static qwen3_status check_packed(const checkpoint_source *s, tensor_role role, int64_t layer, const stored_tensor *t,
                                 qwen3_error *err)
{
    const char *path = checkpoint_path_of(&s->files, t);
    size_t expected = packed_tensor_bytes(&s->base.config, &s->base.format, role, layer);
    if (strcmp(t->type_name, "U8") != 0 || t->bytes != expected)
        return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %s: got %zu bytes of type %s, expected %zu of U8", path, t->name,
                    t->bytes, t->type_name, expected);
    if ((uintptr_t)t->data % PACKED_ALIGNMENT != 0)
        return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %s: does not begin at a multiple of %zu bytes", path, t->name,
                    PACKED_ALIGNMENT);
    return QWEN3_OK;
}

static qwen3_status find_tensor(checkpoint_source *s, tensor_role role, int64_t layer, qwen3_error *err)
{
    char name[TENSOR_NAME_MAX];
    int64_t rows, cols;
    tensor_describe(&s->base.config, role, layer, name, &rows, &cols);
    const stored_tensor *t = checkpoint_find(&s->files, name);
    const bool packed = source_format(&s->base) && packed_role(role);
    if (role == TENSOR_LM_HEAD && s->base.config.tie_word_embeddings && !packed)
        return QWEN3_OK; /* the embeddings are the head, even where the file stores one */
    if (!t)
        return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %s is missing", s->files.dir, name);
    s->tensors[tensor_index(role, layer)] = t;
    if (packed)
        return check_packed(s, role, layer, t, err);
    if (!t->supported)
        return fail(err, QWEN3_ERR_UNSUPPORTED, "%s: tensor %s: got type %s, expected BF16, F16 or F32",
                    checkpoint_path_of(&s->files, t), name, t->type_name);
    return check_shape(&s->files, t, tensor_is_vector(role), rows, cols, err);
}

/* A tensor that nobody asked for is harmless (a stored rotation table), unless it says that the model is
 * another one than config.json describes. */
static qwen3_status check_extra(const checkpoint_source *s, const stored_tensor *t, qwen3_error *err)
{
    const char *path = checkpoint_path_of(&s->files, t), *suffix = strrchr(t->name, '.');
    if (strncmp(t->name, "model.", 6) != 0 && strncmp(t->name, "lm_head.", 8) != 0)
        return QWEN3_OK;
    if (suffix && strcmp(suffix, ".bias") == 0)
        return fail(err, QWEN3_ERR_UNSUPPORTED, "%s: tensor %.200s: biases are not supported", path, t->name);
    if (strncmp(t->name, LAYER_PREFIX, strlen(LAYER_PREFIX)) != 0)
        return QWEN3_OK;
    char *rest;
    errno = 0;
    long long layer = strtoll(t->name + strlen(LAYER_PREFIX), &rest, 10);
    if (*rest != '.')
        return QWEN3_OK;
    if (errno || layer < 0 || layer >= s->base.config.num_layers)
        return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %.200s: config.json has num_hidden_layers = %" PRId64, path,
                    t->name, s->base.config.num_layers);
    if (strncmp(rest, ".mlp.experts.", 13) == 0 || strcmp(rest, ".mlp.gate.weight") == 0)
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
    for (tensor_role role = 0; role < TENSOR_INPUT_NORM && !status; role++)
        status = find_tensor(s, role, 0, err);
    for (int64_t layer = 0; layer < s->base.config.num_layers; layer++)
        for (tensor_role role = TENSOR_INPUT_NORM; role < TENSOR_ROLES && !status; role++)
            status = find_tensor(s, role, layer, err);
    return status;
}

/* ---- Blocks ------------------------------------------------------------------------------------ */

/* IEEE 754 binary16 to binary32, exactly; integer arithmetic, so that it does not depend on whether the
 * thread flushes denormals. */
static inline float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = h & 0x7fff;
    uint32_t bits = (magnitude << 13) + (UINT32_C(112) << 23); /* exponent bias 15 to 127 */
    if (magnitude >= 0x7c00)
        bits += UINT32_C(112) << 23; /* infinity and NaN */
    float small = (float)(int32_t)magnitude * 0x1p-24f, result;
    if (magnitude < 0x0400)
        memcpy(&bits, &small, sizeof bits); /* zero and denormals */
    bits |= sign;
    memcpy(&result, &bits, sizeof result);
    return result;
}

static void widen_f16(const unsigned char *src, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, sizeof h);
        out[i] = f16_to_f32(h);
    }
}

static void checkpoint_block(const source *base, tensor_role role, int64_t layer, int64_t row0, int64_t rows,
                             int64_t col0, int64_t cols, void *scratch, const void **data, qwen3_dtype *type,
                             size_t *stride)
{
    const checkpoint_source *s = (const checkpoint_source *)base;
    const stored_tensor *t = s->tensors[tensor_index(role, layer)];
    size_t size = stored_type_size(t->type), row_elements = t->rank == 2 ? (size_t)t->shape[1] : 1;
    size_t row_bytes = row_elements * size, block_bytes = (size_t)cols * size;
    const unsigned char *src = (const unsigned char *)t->data + (size_t)row0 * row_bytes + (size_t)col0 * size;
    *type = t->type == STORED_BF16 ? QWEN3_DTYPE_BF16 : QWEN3_DTYPE_F32;
    if (t->type != STORED_F16 && (uintptr_t)src % size == 0) {
        *data = src;
        *stride = row_elements;
        return;
    }
    for (int64_t row = 0; row < rows; row++, src += row_bytes) {
        if (t->type == STORED_F16)
            widen_f16(src, cols, (float *)scratch + row * cols);
        else
            memcpy((unsigned char *)scratch + (size_t)row * block_bytes, src, block_bytes);
    }
    *data = scratch;
    *stride = (size_t)cols;
}

static const char *checkpoint_stored_type(const source *base, tensor_role role, int64_t layer)
{
    const stored_tensor *t = ((const checkpoint_source *)base)->tensors[tensor_index(role, layer)];
    if (t && source_format(base) && packed_role(role))
        return qwen3_dtype_name(base->format.dtype);
    return t ? t->type_name : "";
}

static const void *checkpoint_packed(const source *base, tensor_role role, int64_t layer)
{
    return ((const checkpoint_source *)base)->tensors[tensor_index(role, layer)]->data;
}

static void checkpoint_source_close(source *base)
{
    checkpoint_source *s = (checkpoint_source *)base;
    checkpoint_close(&s->files);
    free(s->tensors);
    free(s);
}

qwen3_status source_open_checkpoint(const char *dir, const qwen3_config *config, source **out, qwen3_error *err)
{
    static const source_backend backend = {checkpoint_block, checkpoint_stored_type, checkpoint_packed,
                                           checkpoint_source_close};
    *out = NULL;
    checkpoint_source *s = calloc(1, sizeof *s);
    if (!s)
        return fail(err, QWEN3_ERR_MEMORY, "%s: no memory for %zu bytes", dir, sizeof *s);
    s->base = (source){&backend, *config, {0}};
    s->tensors = calloc(tensor_count(config), sizeof(const stored_tensor *));
    qwen3_status status;
    if (!s->tensors)
        status = fail(err, QWEN3_ERR_MEMORY, "%s: no memory for the tensor table", dir);
    else if (!(status = checkpoint_open(dir, &s->files, err)))
        status = check_tensors(s, err);
    if (status)
        checkpoint_source_close(&s->base);
    else
        *out = &s->base;
    return status;
}
