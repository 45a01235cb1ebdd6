/* source_checkpoint.c - weights from a model directory: in place in the mapped files where type and
 * alignment allow, otherwise copied or, for F16, widened to f32, exactly; matrices that are quantised are expanded by
 * quantised.c. */
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
#include "model/quantised.h"
#include "model/source_backend.h"

typedef struct checkpoint_source {
    source base;
    checkpoint files;
    stored_values *stored;     /* [n_tensors] */
    quantization quantization; /* once a matrix in groups was found */
    bool bare;                 /* names lack the prefix: a decoder was saved without its output head */
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

/* The type that a packed model holds a matrix in. */
static weight_type packed_type(const source *s, size_t number)
{
    return s->types ? s->types[number] : s->format.dtype;
}

static qwen3_status check_packed(const checkpoint_source *s, const stored_tensor *t, const tensor *expected,
                                 qwen3_error *err)
{
    const char *path = checkpoint_path_of(&s->files, t);
    size_t bytes =
        packed_tensor_bytes(s->base.format.nr, packed_type(&s->base, (size_t)(expected - s->base.tensors)), expected);
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

/* As checkpoint_find, of a tensor that is called as the declared one, but for its ending. */
static const stored_tensor *find_beside(const checkpoint_source *s, size_t number, const char *ending)
{
    const char *name = s->base.tensors[number].name;
    const char *end = ending[0] == '.' ? strrchr(name, '.') : name + strlen(name);
    char beside[TENSOR_NAME_MAX + 16];
    snprintf(beside, sizeof beside, "%.*s%s", (int)(end - name), name, ending);
    return find_stored(s, beside);
}

/* Scales [rows, cols] of a matrix. */
static qwen3_status check_scales(const checkpoint_source *s, const stored_tensor *t, int64_t rows, int64_t cols,
                                 qwen3_error *err)
{
    const tensor expected = {.rows = rows, .cols = cols, .kind = TENSOR_MATRIX};
    if (!t->supported || t->type == STORED_F8)
        return fail(err, QWEN3_ERR_UNSUPPORTED, "%s: tensor %s: got type %s, expected BF16, F16 or F32",
                    checkpoint_path_of(&s->files, t), t->name, t->type_name);
    return check_shape(&s->files, t, &expected, err);
}

static int64_t blocks_of(int64_t n, int64_t block)
{
    return (n + block - 1) / block;
}

/* The scales of a tensor of type F8. */
static qwen3_status find_f8_scales(checkpoint_source *s, size_t number, qwen3_error *err)
{
    const tensor *expected = &s->base.tensors[number];
    stored_values *stored = &s->stored[number];
    stored->scales = find_beside(s, number, "_scale_inv");
    if (!stored->scales)
        stored->scales = find_beside(s, number, "_scale");
    if (!stored->scales)
        return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %s: is of type F8_E4M3 and has no scales %s_scale_inv",
                    checkpoint_path_of(&s->files, stored->values), expected->name, expected->name);
    return check_scales(s, stored->scales, blocks_of(expected->rows, F8_BLOCK), blocks_of(expected->cols, F8_BLOCK),
                        err);
}

/* ---- Matrices in groups ------------------------------------------------------------------------ */

/* Words [rows, cols] of 32 bits, or [rows] where cols is 0. */
static qwen3_status check_words(const checkpoint_source *s, const stored_tensor *t, int64_t rows, int64_t cols,
                                qwen3_error *err)
{
    const tensor expected = {.rows = rows, .cols = cols, .kind = cols ? TENSOR_MATRIX : TENSOR_BIAS};
    if (strcmp(t->type_name, "I32") != 0)
        return fail(err, QWEN3_ERR_UNSUPPORTED, "%s: tensor %s: got type %s, expected I32",
                    checkpoint_path_of(&s->files, t), t->name, t->type_name);
    return check_shape(&s->files, t, &expected, err);
}

/* config.json beside the files, which has been checked. */
static qwen3_status read_quantization(checkpoint_source *s, qwen3_error *err)
{
    char *path;
    json_t *root = NULL;
    if (asprintf(&path, "%s/config.json", s->files.dir) < 0)
        return fail(err, QWEN3_ERR_MEMORY, "%s: no memory for the name of config.json", s->files.dir);
    qwen3_status status = json_file_load(path, &root, err);
    if (!status)
        status = quantization_read(&(json_section){path, "", root, err}, &s->quantization);
    json_decref(root);
    free(path);
    return status;
}

static qwen3_status check_groups(const checkpoint_source *s, size_t number, int64_t groups, qwen3_error *err)
{
    const stored_values *stored = &s->stored[number];
    const tensor *expected = &s->base.tensors[number];
    qwen3_status status = stored->groups ? check_words(s, stored->groups, expected->cols, 0, err) : QWEN3_OK;
    for (int64_t col = 0; col < expected->cols && stored->groups && !status; col++) {
        const int64_t group = quantised_group(stored, &s->quantization, col);
        if (group < 0 || group >= groups)
            status = fail(err, QWEN3_ERR_FORMAT,
                          "%s: tensor %s: got group %" PRId64 " for column %" PRId64 ", expected 0 to %" PRId64,
                          checkpoint_path_of(&s->files, stored->groups), stored->groups->name, group, col, groups - 1);
    }
    return status;
}

/* A matrix that is stored as qweight, of GPTQ or AWQ. */
static qwen3_status find_groups(checkpoint_source *s, size_t number, qwen3_error *err)
{
    const tensor *expected = &s->base.tensors[number];
    stored_values *stored = &s->stored[number];
    quantization *q = &s->quantization;
    const char *path = checkpoint_path_of(&s->files, stored->values), *name = stored->values->name;
    qwen3_status status = q->method ? QWEN3_OK : read_quantization(s, err);
    if (status)
        return status;
    if (q->method != QUANTIZATION_GPTQ && q->method != QUANTIZATION_AWQ)
        return fail(err, QWEN3_ERR_CONFIG,
                    "%s: tensor %s: config.json has no quantization_config of quant_method \"gptq\" or \"awq\"", path,
                    name);
    const int64_t rows = expected->rows, cols = expected->cols, per = 32 / q->bits;
    const bool awq = q->method == QUANTIZATION_AWQ;
    const int64_t groups = q->group_size > 0 ? blocks_of(cols, q->group_size) : 1;
    stored->scales = find_beside(s, number, ".scales");
    stored->zeros = find_beside(s, number, ".qzeros");
    stored->groups = awq ? NULL : find_beside(s, number, ".g_idx");
    if (!stored->scales || !stored->zeros || (q->act_order && !stored->groups))
        return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %s: has no %s beside it", path, name,
                    !stored->scales  ? "scales"
                    : !stored->zeros ? "qzeros"
                                     : "g_idx, and config.json says desc_act");
    if (rows % per != 0 || (!awq && cols % per != 0))
        return fail(err, QWEN3_ERR_UNSUPPORTED,
                    "%s: tensor %s: a matrix of %" PRId64 " x %" PRId64 " is not whole words of %d codes", path, name,
                    rows, cols, (int)per);
    if ((status = check_words(s, stored->values, awq ? cols : cols / per, awq ? rows / per : rows, err)) ||
        (status = check_words(s, stored->zeros, groups, rows / per, err)) ||
        (status = check_scales(s, stored->scales, groups, rows, err)))
        return status;
    return check_groups(s, number, groups, err);
}

/* ---- All tensors ------------------------------------------------------------------------------- */

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
    const bool grouped = !t && !packed && expected->kind != TENSOR_EMBEDDING && !tensor_is_vector(expected->kind) &&
                         (t = find_beside(s, number, ".qweight"));
    if (!t)
        return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %s is missing", s->files.dir, expected->name);
    s->stored[number].values = t;
    if (grouped)
        return find_groups(s, number, err);
    if (packed)
        return check_packed(s, t, expected, err);
    if (!t->supported)
        return fail(err, QWEN3_ERR_UNSUPPORTED, "%s: tensor %s: got type %s, expected BF16, F16, F32 or F8_E4M3",
                    checkpoint_path_of(&s->files, t), expected->name, t->type_name);
    qwen3_status status = check_shape(&s->files, t, expected, err);
    return status || t->type != STORED_F8 ? status : find_f8_scales(s, number, err);
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

/* How a packed model is packed. */
static qwen3_status read_packing(checkpoint_source *s, qwen3_error *err)
{
    source *base = &s->base;
    const safetensors *file = &s->files.files[0];
    if (packed_read_format(file, &base->config, &base->format, err) || base->format.dtype != QWEN3_DTYPE_AUTO)
        return err->status;
    base->types = calloc(base->n_tensors, sizeof *base->types);
    if (!base->types)
        return fail(err, QWEN3_ERR_MEMORY, "%s: no memory for the types of tensors", file->path);
    return packed_read_types(file, base->tensors, base->n_tensors, base->types, err);
}

/* The types of matrices, where groups of one are kept. */
static qwen3_status list_types(checkpoint_source *s, qwen3_error *err)
{
    source *base = &s->base;
    if (s->quantization.method == QUANTIZATION_NONE)
        return QWEN3_OK;
    bool any = false;
    base->types = calloc(base->n_tensors, sizeof *base->types);
    if (!base->types)
        return fail(err, QWEN3_ERR_MEMORY, "%s: no memory for the types of tensors", s->files.dir);
    for (size_t i = 0; i < base->n_tensors; i++) {
        const stored_values *stored = &s->stored[base->tensors[i].same_as];
        base->types[i] = QWEN3_DTYPE_F32;
        if (stored->zeros)
            base->types[i] = quantised_stored_type(stored, &s->quantization, &base->tensors[i]);
        else if (stored->values && stored->values->type == STORED_BF16)
            base->types[i] = QWEN3_DTYPE_BF16;
        any |= base->types[i] >= DTYPE_COUNT;
    }
    if (!any) {
        free(base->types);
        base->types = NULL;
    }
    return QWEN3_OK;
}

static qwen3_status check_tensors(checkpoint_source *s, qwen3_error *err)
{
    qwen3_status status = QWEN3_OK;
    s->bare = is_bare(s);
    if (s->files.packed)
        status = read_packing(s, err);
    for (size_t f = 0; f < s->files.n_files; f++)
        for (size_t t = 0; t < s->files.files[f].n_tensors && !status; t++)
            status = check_extra(s, &s->files.files[f].tensors[t], err);
    for (size_t i = 0; i < s->base.n_tensors && !status; i++)
        status = find_tensor(s, i, err);
    return status ? status : list_types(s, err);
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
    const checkpoint_source *s = (const checkpoint_source *)base;
    const stored_values *stored = &s->stored[part.tensor];
    const stored_tensor *t = stored->values;
    if (stored->scales) {
        if (stored->zeros)
            expand_groups(stored, &s->quantization, &part, scratch);
        else
            expand_f8(stored, &part, scratch);
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

static stored_part checkpoint_blocks(const source *base, tensor_part part, weight_type type, void *scratch)
{
    const checkpoint_source *s = (const checkpoint_source *)base;
    const stored_format f = stored_format_of(type);
    const size_t n = (size_t)range_size(part.rows), k = (size_t)range_size(part.cols);
    pack_groups(&s->stored[part.tensor], &s->quantization, &part, type, scratch);
    return (stored_part){scratch, k / (size_t)stored_file_values(f) * (size_t)f.file_bytes, n, 0, k};
}

static const char *checkpoint_stored_type(const source *base, size_t number)
{
    const checkpoint_source *s = (const checkpoint_source *)base;
    const stored_tensor *t = s->stored[number].values;
    if (s->stored[number].zeros)
        return quantization_name(&s->quantization);
    if (t && source_format(base) && tensor_is_packed(base->tensors[number].kind))
        return weight_type_name(packed_type(base, number));
    return t ? t->type_name : "";
}

static const void *checkpoint_stored(const source *base, size_t number, size_t *bytes)
{
    const stored_tensor *t = ((const checkpoint_source *)base)->stored[number].values;
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
    static const source_backend backend = {.part = checkpoint_part,
                                           .stored_type = checkpoint_stored_type,
                                           .stored = checkpoint_stored,
                                           .blocks = checkpoint_blocks,
                                           .file = checkpoint_file,
                                           .verify = checkpoint_verify,
                                           .close = checkpoint_source_close};
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
    if (status) {
        free(s->base.types);
        checkpoint_source_close(&s->base);
    } else {
        *out = &s->base;
    }
    return status;
}
