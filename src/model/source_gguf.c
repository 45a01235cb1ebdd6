/* source_gguf.c - weights from a GGUF file: in place in the mapped file where they are F32 or BF16, otherwise expanded
 * to f32, exactly (io/gguf_types.h). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "io/gguf.h"
#include "model/source_backend.h"

/* Where the values of a declared tensor are. */
typedef struct stored_rows {
    const gguf_tensor *tensor; /* NULL: its values are those of another */
    const unsigned char *data; /* the first row */
} stored_rows;

typedef struct gguf_source {
    source base;
    gguf files;
    stored_rows *stored; /* [n_tensors] */
} gguf_source;

/* ---- Names --------------------------------------------------------------------------------------- */

/* What is before ".weight" or ".bias", of a layer or of the whole model. */
typedef struct name_pair {
    const char *ours, *theirs;
} name_pair;

static const name_pair layer_names[] = {
    {"input_layernorm", "attn_norm"},    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},      {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"}, {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_norm", "attn_k_norm"}, {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},       {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},       {"mlp.gate", "ffn_gate_inp"},
};

/* Of one expert; the tensor of the file has those of all experts of a layer, one after the other. */
static const name_pair expert_names[] = {
    {"gate_proj", "ffn_gate_exps"},
    {"up_proj", "ffn_up_exps"},
    {"down_proj", "ffn_down_exps"},
};

static const name_pair model_names[] = {
    {"embed_tokens", "token_embd"},
    {"norm", "output_norm"},
    {"lm_head", "output"},
};

/* The text after a prefix, or NULL where it does not begin with it. */
static const char *after(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0 ? text + strlen(prefix) : NULL;
}

/* What a declared tensor is called in a file. */
typedef struct stored_name {
    char text[GGUF_NAME_MAX]; /* "" where the format has no name for it */
    int64_t expert;           /* of those in the tensor; -1: the tensor is no stack of them */
} stored_name;

static const char *their_name(const name_pair *pairs, size_t n, const char *stem, size_t length)
{
    for (size_t i = 0; i < n; i++)
        if (length == strlen(pairs[i].ours) && after(stem, pairs[i].ours))
            return pairs[i].theirs;
    return NULL;
}

#define NAMES(pairs) pairs, sizeof(pairs) / sizeof *(pairs)

static stored_name gguf_name(const source *s, const char *name)
{
    stored_name out = {"", -1};
    const char *inner = after(name, s->prefix), *layers = inner ? after(inner, "layers.") : NULL;
    const char *suffix = strrchr(name, '.'), *theirs;
    if (!layers) {
        const char *stem = inner ? inner : name;
        if ((theirs = their_name(NAMES(model_names), stem, (size_t)(suffix - stem))))
            snprintf(out.text, sizeof out.text, "%s%s", theirs, suffix);
        return out;
    }
    char *rest;
    const long layer = strtol(layers, &rest, 10);
    const char *stem = rest + 1, *expert = after(stem, "mlp.experts.");
    if (expert) {
        out.expert = strtol(expert, &rest, 10);
        stem = rest + 1;
        theirs = their_name(NAMES(expert_names), stem, (size_t)(suffix - stem));
    } else {
        theirs = their_name(NAMES(layer_names), stem, (size_t)(suffix - stem));
    }
    if (theirs)
        snprintf(out.text, sizeof out.text, "blk.%ld.%s%s", layer, theirs, suffix);
    return out;
}

/* ---- Opening ------------------------------------------------------------------------------------- */

/* experts: in the tensor; 1 where it is no stack of them. */
static qwen3_status check_shape(const gguf_tensor *t, const tensor *expected, int64_t experts, qwen3_error *err)
{
    const bool vector = tensor_is_vector(expected->kind);
    const int64_t cols = vector ? expected->rows : expected->cols, rows = vector ? 1 : expected->rows;
    if (t->dims[0] == cols && t->dims[1] == rows && t->dims[2] == experts && t->dims[3] == 1)
        return QWEN3_OK;
    char got[96] = "", demanded[72];
    for (int i = 0; i < t->n_dims; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%" PRId64, i ? ", " : "", t->dims[i]);
    int n = snprintf(demanded, sizeof demanded, "%" PRId64, cols);
    if (!vector)
        n += snprintf(demanded + n, sizeof demanded - (size_t)n, ", %" PRId64, rows);
    if (experts != 1)
        snprintf(demanded + n, sizeof demanded - (size_t)n, ", %" PRId64, experts);
    return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %s: got dimensions [%s], the keys of the file demand [%s]", t->path,
                t->name, got, demanded);
}

static size_t row_bytes(const gguf_type *type, int64_t cols)
{
    return (size_t)(cols / type->block * type->bytes);
}

static qwen3_status find_tensor(gguf_source *s, size_t number, qwen3_error *err)
{
    const tensor *expected = &s->base.tensors[number];
    const char *path = s->files.files[0].path;
    if (expected->same_as != number)
        return QWEN3_OK;
    const stored_name name = gguf_name(&s->base, expected->name);
    if (!name.text[0])
        return fail(err, QWEN3_ERR_UNSUPPORTED, "%s: tensor %s: has no known name in GGUF files", path, expected->name);
    const gguf_tensor *t = gguf_find_tensor(&s->files, name.text);
    if (!t)
        return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %s is missing", path, name.text);
    if (tensor_is_vector(expected->kind) && t->type->block != 1)
        return fail(err, QWEN3_ERR_UNSUPPORTED, "%s: tensor %s: got type %s, expected F32, F16 or BF16", t->path,
                    name.text, t->type->name);
    qwen3_status status = check_shape(t, expected, name.expert < 0 ? 1 : s->base.config.num_experts, err);
    const size_t before = name.expert < 0 ? 0 : (size_t)(name.expert * expected->rows);
    if (!status)
        s->stored[number] = (stored_rows){t, t->data + before * row_bytes(t->type, t->dims[0])};
    return status;
}

static bool is_used(const gguf_source *s, const gguf_tensor *t)
{
    for (size_t i = 0; i < s->base.n_tensors; i++)
        if (s->stored[i].tensor == t)
            return true;
    return false;
}

/* A tensor that is not declared says that the model is another one than we compute: a bias, a scale, a layer more. */
static qwen3_status check_extra(const gguf_source *s, qwen3_error *err)
{
    for (size_t i = 0; i < s->files.n_tensors; i++) {
        const gguf_tensor *t = s->files.tensors[i];
        if (!is_used(s, t))
            return fail(err, QWEN3_ERR_UNSUPPORTED, "%s: tensor %s: is no part of a %s model of %" PRId64 " layers",
                        t->path, t->name, s->base.config.architecture, s->base.config.num_layers);
    }
    return QWEN3_OK;
}

/* The types of matrices, where one is stored. */
static qwen3_status list_types(gguf_source *s, qwen3_error *err)
{
    source *base = &s->base;
    bool any = false;
    base->types = calloc(base->n_tensors, sizeof *base->types);
    if (!base->types)
        return fail(err, QWEN3_ERR_MEMORY, "%s: no memory for the types of tensors", s->files.files[0].path);
    for (size_t i = 0; i < base->n_tensors; i++) {
        const char *name = s->stored[base->tensors[i].same_as].tensor->type->name;
        base->types[i] = strcmp(name, "BF16") == 0 ? QWEN3_DTYPE_BF16 : QWEN3_DTYPE_F32;
        if (tensor_is_packed(base->tensors[i].kind))
            any |= stored_type_parse(name, &base->types[i]);
    }
    if (!any) {
        free(base->types);
        base->types = NULL;
    }
    return QWEN3_OK;
}

/* ---- Parts --------------------------------------------------------------------------------------- */

/* Values [begin, end) of a row. */
static void expand_columns(const gguf_type *type, const unsigned char *row, size_t begin, size_t end, float *out)
{
    const size_t block = (size_t)type->block;
    float whole[GGUF_LONGEST_BLOCK];
    for (size_t n; begin < end; begin += n, out += n) {
        const unsigned char *at = row + begin / block * (size_t)type->bytes;
        const size_t skip = begin % block, blocks = (end - begin) / block;
        if (skip == 0 && blocks > 0) {
            n = blocks * block;
            type->expand(at, blocks, out);
        } else {
            n = block - skip < end - begin ? block - skip : end - begin;
            type->expand(at, 1, whole);
            memcpy(out, whole + skip, n * sizeof *out);
        }
    }
}

static tensor_view gguf_part(const source *base, tensor_part part, void *scratch)
{
    const stored_rows *stored = &((const gguf_source *)base)->stored[part.tensor];
    const gguf_type *type = stored->tensor->type;
    const size_t rows = (size_t)range_size(part.rows), cols = (size_t)range_size(part.cols);
    const size_t whole = (size_t)base->tensors[part.tensor].cols, begin = (size_t)part.cols.begin;
    const size_t stride = row_bytes(type, (int64_t)whole);
    const unsigned char *row = stored->data + (size_t)part.rows.begin * stride;
    if (!type->expand)
        return (tensor_view){row + begin * (size_t)type->bytes,
                             type->bytes == sizeof(float) ? QWEN3_DTYPE_F32 : QWEN3_DTYPE_BF16, whole};
    for (size_t i = 0; i < rows; i++, row += stride)
        expand_columns(type, row, begin, begin + cols, (float *)scratch + i * cols);
    return (tensor_view){scratch, QWEN3_DTYPE_F32, cols};
}

static const char *gguf_stored_type(const source *base, size_t number)
{
    return ((const gguf_source *)base)->stored[number].tensor->type->name;
}

/* The blocks of a matrix as they are in the file, rows one after the other. */
static const void *gguf_stored(const source *base, size_t number, size_t *bytes)
{
    const stored_rows *stored = &((const gguf_source *)base)->stored[number];
    const tensor *t = &base->tensors[number];
    *bytes = 0;
    if (stored->tensor)
        *bytes = (size_t)(t->rows * t->cols / stored->tensor->type->block * stored->tensor->type->bytes);
    return stored->data;
}

static bool gguf_source_file(const source *base, size_t number, source_file_info *info)
{
    const gguf *g = &((const gguf_source *)base)->files;
    if (number >= g->n_files)
        return false;
    const gguf_file *f = &g->files[number];
    *info = (source_file_info){f->path, f->map_bytes, digest_bytes(0, f->map, f->header_bytes)};
    return true;
}

static void gguf_source_close(source *base)
{
    gguf_source *s = (gguf_source *)base;
    gguf_close(&s->files);
    free(s->stored);
    free(s);
}

qwen3_status source_open_gguf(const char *path, const declaration *d, source **out, qwen3_error *err)
{
    static const source_backend backend = {.part = gguf_part,
                                           .stored_type = gguf_stored_type,
                                           .stored = gguf_stored,
                                           .file = gguf_source_file,
                                           .close = gguf_source_close};
    *out = NULL;
    gguf_source *s = calloc(1, sizeof *s);
    if (!s)
        return fail(err, QWEN3_ERR_MEMORY, "%s: no memory for %zu bytes", path, sizeof *s);
    s->base = source_begin(&backend, d);
    s->stored = calloc(d->n_tensors, sizeof *s->stored);
    qwen3_status status = s->stored ? gguf_open(path, &s->files, err)
                                    : fail(err, QWEN3_ERR_MEMORY, "%s: no memory for the tensor table", path);
    for (size_t i = 0; i < d->n_tensors && !status; i++)
        status = find_tensor(s, i, err);
    if (!status)
        status = check_extra(s, err);
    if (!status)
        status = list_types(s, err);
    if (status)
        gguf_source_close(&s->base);
    else
        *out = &s->base;
    return status;
}
