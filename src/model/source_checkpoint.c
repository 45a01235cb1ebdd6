/* source_checkpoint.c - weights from a model directory: in place in the mapped files where type and
 * alignment allow, otherwise copied or, for F16 and F8, widened to f32 (F16 exactly).
 *
 * A matrix X.weight of type F8_E4M3 [rows, cols] has scales X.weight_scale_inv [ceil(rows / 128), ceil(cols / 128)],
 * called X.weight_scale by some programs. Each value is multiplied by the scale of its block of 128 x 128, whatever the
 * name says. (Micikevicius et al. 2022; DeepSeek-V3) */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/half.h"
#include "io/checkpoint.h"
#include "model/config.h"
#include "model/packed.h"
#include "model/source_backend.h"

typedef struct checkpoint_source {
    source base;
    checkpoint files;
    const stored_tensor **stored; /* [n_tensors]; NULL where the values are those of another, or there are none */
    const stored_tensor **scales; /* [n_tensors] of those of type F8; NULL for others */
    bool bare;                    /* names lack the prefix: a decoder was saved without its output head */
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

/* The text after a prefix, or NULL where it does not begin with it. */
static const char *after(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0 ? text + strlen(prefix) : NULL;
}

static const stored_tensor *find_stored(const checkpoint_source *s, const char *name)
{
    const char *bare = s->bare ? after(name, s->base.prefix) : NULL;
    return checkpoint_find(&s->files, bare ? bare : name);
}

enum { SCALE_BLOCK = QUANTISED_BLOCK };

static int64_t blocks_of(int64_t n)
{
    return (n + SCALE_BLOCK - 1) / SCALE_BLOCK;
}

/* The scales of a tensor of type F8. */
static qwen3_status find_scales(checkpoint_source *s, size_t number, qwen3_error *err)
{
    static const char *const suffixes[] = {"_scale_inv", "_scale"};
    const tensor *expected = &s->base.tensors[number];
    const stored_tensor *t = NULL;
    char name[TENSOR_NAME_MAX + 16];
    for (size_t i = 0; i < 2 && !t; i++) {
        snprintf(name, sizeof name, "%s%s", expected->name, suffixes[i]);
        t = find_stored(s, name);
    }
    if (!t)
        return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %s: is of type F8_E4M3 and has no scales %s_scale_inv",
                    checkpoint_path_of(&s->files, s->stored[number]), expected->name, expected->name);
    if (!t->supported || t->type == STORED_F8)
        return fail(err, QWEN3_ERR_UNSUPPORTED, "%s: tensor %s: got type %s, expected BF16, F16 or F32",
                    checkpoint_path_of(&s->files, t), t->name, t->type_name);
    const tensor blocks = {.rows = blocks_of(expected->rows), .cols = blocks_of(expected->cols), .kind = TENSOR_MATRIX};
    s->scales[number] = t;
    return check_shape(&s->files, t, &blocks, err);
}

static qwen3_status find_tensor(checkpoint_source *s, size_t number, qwen3_error *err)
{
    const tensor *expected = &s->base.tensors[number];
    const stored_tensor *t = find_stored(s, expected->name);
    const bool packed = source_format(&s->base) && tensor_is_packed(expected->kind);
    if (expected->same_as != number && !packed)
        return QWEN3_OK; /* even where the file stores it */
    if (!t && expected->kind == TENSOR_HEAD && !s->base.config.tie_word_embeddings && (s->bare || packed)) {
        s->base.config.no_output_head = true;
        return QWEN3_OK;
    }
    if (!t)
        return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %s is missing", s->files.dir, expected->name);
    s->stored[number] = t;
    if (packed)
        return check_packed(s, t, expected, err);
    if (!t->supported)
        return fail(err, QWEN3_ERR_UNSUPPORTED, "%s: tensor %s: got type %s, expected BF16, F16, F32 or F8_E4M3",
                    checkpoint_path_of(&s->files, t), expected->name, t->type_name);
    qwen3_status status = check_shape(&s->files, t, expected, err);
    return status || t->type != STORED_F8 ? status : find_scales(s, number, err);
}

static bool is_declared_bias(const checkpoint_source *s, const stored_tensor *t)
{
    for (size_t i = 0; i < s->base.n_tensors; i++)
        if (s->base.tensors[i].kind == TENSOR_BIAS && find_stored(s, s->base.tensors[i].name) == t)
            return true;
    return false;
}

/* A tensor that is not declared is harmless (a stored rotation table), unless it says that the model is another one
 * than config.json describes. */
static qwen3_status check_extra(const checkpoint_source *s, const stored_tensor *t, qwen3_error *err)
{
    const char *path = checkpoint_path_of(&s->files, t), *suffix = strrchr(t->name, '.');
    const char *name = after(t->name, s->bare ? "" : s->base.prefix);
    if (!name && !after(t->name, "lm_head."))
        return QWEN3_OK;
    if (suffix && strcmp(suffix, ".bias") == 0 && !is_declared_bias(s, t))
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
    const char *expert = after(rest, ".mlp.experts.");
    const bool experts = qwen3_config_has_experts(&s->base.config, layer);
    if (!experts && (expert || strcmp(rest, ".mlp.gate.weight") == 0))
        return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %.200s: config.json has no experts in this layer", path,
                    t->name);
    errno = 0;
    if (expert && *expert >= '0' && *expert <= '9' &&
        (strtoll(expert, NULL, 10) >= s->base.config.num_experts || errno))
        return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %.200s: config.json has num_experts = %" PRId64, path, t->name,
                    s->base.config.num_experts);
    return QWEN3_OK;
}

/* Whether the embedding is there without the prefix of its name, and not with it. */
static bool is_bare(const checkpoint_source *s)
{
    for (size_t i = 0; i < s->base.n_tensors; i++) {
        const char *name = s->base.tensors[i].name, *bare = after(name, s->base.prefix);
        if (s->base.tensors[i].kind == TENSOR_EMBEDDING)
            return bare && !checkpoint_find(&s->files, name) && checkpoint_find(&s->files, bare);
    }
    return false;
}

static qwen3_status check_tensors(checkpoint_source *s, qwen3_error *err)
{
    qwen3_status status = QWEN3_OK;
    s->bare = is_bare(s);
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

/* 4 bits of exponent, 3 of mantissa, no infinity. */
static inline float e4m3_to_f32(unsigned char b)
{
    const uint32_t sign = (uint32_t)(b & 0x80) << 24, exponent = b >> 3 & 15, mantissa = b & 7;
    uint32_t bits = (exponent + 120) << 23 | mantissa << 20; /* exponent bias 7 to 127 */
    float small = (float)(int32_t)mantissa * 0x1p-9f, result;
    if (exponent == 0)
        memcpy(&bits, &small, sizeof bits);
    if ((b & 0x7f) == 0x7f)
        bits = UINT32_C(0x7fc00000); /* NaN */
    bits |= sign;
    memcpy(&result, &bits, sizeof result);
    return result;
}

static float scale_at(const stored_tensor *scales, int64_t row, int64_t col)
{
    const unsigned char *at =
        (const unsigned char *)scales->data + (size_t)(row * scales->shape[1] + col) * stored_type_size(scales->type);
    float value;
    uint16_t half;
    if (scales->type == STORED_F32) {
        memcpy(&value, at, sizeof value);
        return value;
    }
    memcpy(&half, at, sizeof half);
    return scales->type == STORED_F16 ? f16_to_f32(half) : bf16_to_f32(half);
}

/* A part of a matrix of type F8, times its scales. out [rows of the part, columns] */
static void widen_f8(const stored_tensor *t, const stored_tensor *scales, const tensor_part *part, float *out)
{
    const unsigned char *data = t->data;
    for (int64_t row = part->rows.begin; row < part->rows.end; row++)
        for (int64_t col = part->cols.begin, end; col < part->cols.end; col = end) {
            const float scale = scale_at(scales, row / SCALE_BLOCK, col / SCALE_BLOCK);
            end = (col / SCALE_BLOCK + 1) * SCALE_BLOCK;
            end = end < part->cols.end ? end : part->cols.end;
            for (int64_t i = col; i < end; i++)
                *out++ = e4m3_to_f32(data[row * t->shape[1] + i]) * scale;
        }
}

static tensor_view checkpoint_part(const source *base, tensor_part part, void *scratch)
{
    const stored_tensor *t = ((const checkpoint_source *)base)->stored[part.tensor];
    if (t->type == STORED_F8) {
        widen_f8(t, ((const checkpoint_source *)base)->scales[part.tensor], &part, scratch);
        return (tensor_view){scratch, QWEN3_DTYPE_F32, (size_t)range_size(part.cols)};
    }
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
    const stored_tensor *t = ((const checkpoint_source *)base)->stored[number];
    if (t && source_format(base) && tensor_is_packed(base->tensors[number].kind))
        return qwen3_dtype_name(base->format.dtype);
    return t ? t->type_name : "";
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
    free(s->scales);
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
    s->scales = calloc(d->n_tensors, sizeof *s->scales);
    qwen3_status status;
    if (!s->stored || !s->scales)
        status = fail(err, QWEN3_ERR_MEMORY, "%s: no memory for the tensor table", dir);
    else if (!(status = checkpoint_open(dir, &s->files, err)))
        status = check_tensors(s, err);
    if (status)
        checkpoint_source_close(&s->base);
    else
        *out = &s->base;
    return status;
}
