/* pack.c - writes a packed model (packed.h), one matrix at a time. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/memory.h"
#include "io/checkpoint.h"
#include "io/new_dir.h"
#include "model/config.h"
#include "model/packed.h"
#include "model/weights.h"

/* Everything but the weights that belongs to a published model; what is not there is not missed. */
static const char *const copied_files[] = {
    "config.json", "generation_config.json",  "tokenizer.json",    "tokenizer_config.json", "vocab.json",
    "merges.txt",  "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
};

/* A tensor of the file, in its order: matrices first, so that their data are aligned. */
typedef struct entry {
    tensor_role role;
    int64_t layer;
    size_t bytes;
} entry;

typedef struct packing {
    const source *src;
    const qwen3_config *config;
    const gemm_kernel *gemm;
    const char *spec;
    packed_format format;
    int threads;
    entry *entries; /* [n] */
    size_t n;
    int file;
} packing;

/* ---- The header -------------------------------------------------------------------------------- */

static const char *entry_type(const packing *p, const entry *e)
{
    const bool short_rows = e->role == TENSOR_EMBED && strcmp(source_stored_type(p->src, e->role, 0), "BF16") == 0;
    return packed_role(e->role) ? "U8" : short_rows ? "BF16" : "F32"; /* F16 is widened, exactly */
}

static void add_entry(packing *p, tensor_role role, int64_t layer)
{
    entry e = {role, layer, 0};
    char name[TENSOR_NAME_MAX];
    int64_t rows, cols;
    tensor_describe(p->config, role, layer, name, &rows, &cols);
    if (packed_role(role))
        e.bytes = packed_tensor_bytes(p->config, &p->format, role, layer);
    else
        e.bytes = (size_t)(rows * cols) * (strcmp(entry_type(p, &e), "F32") == 0 ? 4 : 2);
    p->entries[p->n++] = e;
}

static qwen3_status list_entries(packing *p, qwen3_error *err)
{
    p->entries = calloc(tensor_count(p->config), sizeof *p->entries);
    if (!p->entries)
        return fail(err, QWEN3_ERR_MEMORY, "%s: no memory for the list of tensors", p->spec);
    for (int packed = 1; packed >= 0; packed--) {
        for (tensor_role role = 0; role < TENSOR_INPUT_NORM; role++)
            if (packed_role(role) == packed)
                add_entry(p, role, 0);
        for (int64_t layer = 0; layer < p->config->num_layers; layer++)
            for (tensor_role role = TENSOR_INPUT_NORM; role < TENSOR_ROLES; role++)
                if (packed_role(role) == packed)
                    add_entry(p, role, layer);
    }
    return QWEN3_OK;
}

static json_t *describe_entry(const packing *p, const entry *e, size_t begin, char *name)
{
    int64_t rows, cols;
    tensor_describe(p->config, e->role, e->layer, name, &rows, &cols);
    json_t *shape = packed_role(e->role)        ? json_pack("[I]", (json_int_t)e->bytes)
                    : tensor_is_vector(e->role) ? json_pack("[I]", (json_int_t)rows)
                                                : json_pack("[I, I]", (json_int_t)rows, (json_int_t)cols);
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", entry_type(p, e), "shape", shape, "data_offsets",
                     (json_int_t)begin, (json_int_t)begin + (json_int_t)e->bytes);
}

static qwen3_status write_header(const packing *p, const kernels *k, qwen3_error *err)
{
    char nr[16], config[PACKED_CONFIG_MAX], name[TENSOR_NAME_MAX];
    snprintf(nr, sizeof nr, "%d", p->format.nr);
    packed_describe_config(p->config, config);
    json_t *root =
        json_pack("{s:{s:s, s:s, s:s, s:s, s:s, s:s}}", "__metadata__", "format", PACKED_FORMAT, "dtype",
                  qwen3_dtype_name(p->format.dtype), "nr", nr, "isa", k->name, "config", config, "source", p->spec);
    size_t begin = 0;
    int failed = root == NULL;
    for (size_t i = 0; i < p->n && !failed; i++) {
        json_t *value = describe_entry(p, &p->entries[i], begin, name);
        failed = json_object_set_new(root, name, value);
        begin += p->entries[i].bytes;
    }
    char *text = failed ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    uint64_t length = text ? strlen(text) : 0, whole = round_up(sizeof length + length, PACKED_ALIGNMENT);
    char *header = text ? malloc(whole + 1) : NULL;
    qwen3_status status;
    if (header) {
        length = whole - sizeof length;
        memcpy(header, &length, sizeof length);
        snprintf(header + sizeof length, length + 1, "%-*s", (int)length, text); /* spaces up to the data */
        status = new_dir_write(p->file, PACKED_FILE, header, whole, err);
    } else {
        status = fail(err, QWEN3_ERR_MEMORY, "%s: no memory for the header of %s, or its name is not UTF-8", p->spec,
                      PACKED_FILE);
    }
    free(header);
    free(text);
    return status;
}

/* ---- The data ---------------------------------------------------------------------------------- */

static qwen3_status write_matrix(const packing *p, const entry *e, qwen3_error *err)
{
    void *data;
    qwen3_status status = memory_alloc(&data, e->bytes, "a packed matrix", err);
    if (!status)
        status = weights_pack_matrix(p->src, p->config, p->gemm, e->role, e->layer, data, p->threads, err);
    if (!status)
        status = new_dir_write(p->file, PACKED_FILE, data, e->bytes, err);
    memory_free(data, e->bytes);
    return status;
}

static bool all_finite(const void *data, qwen3_dtype type, size_t n)
{
    bool finite = true;
    for (size_t i = 0; i < n; i++)
        finite &=
            isfinite(type == QWEN3_DTYPE_F32 ? ((const float *)data)[i] : bf16_to_f32(((const bf16 *)data)[i])) != 0;
    return finite;
}

#define ROWS_AT_ONCE 256

/* Norms, widened to F32, and the embedding. */
static qwen3_status write_rows(const packing *p, const entry *e, qwen3_error *err)
{
    char name[TENSOR_NAME_MAX];
    int64_t rows, cols;
    tensor_describe(p->config, e->role, e->layer, name, &rows, &cols);
    float *scratch = malloc(2 * (size_t)(ROWS_AT_ONCE * cols) * sizeof *scratch);
    qwen3_status status = scratch ? QWEN3_OK : fail(err, QWEN3_ERR_MEMORY, "tensor %s: no memory for rows", name);
    for (int64_t row = 0, n; row < rows && !status; row += n) {
        n = rows - row < ROWS_AT_ONCE ? rows - row : ROWS_AT_ONCE;
        const void *data;
        qwen3_dtype type;
        size_t stride, count = (size_t)(n * cols); /* stride is cols: blocks of whole rows are contiguous */
        source_block(p->src, e->role, e->layer, row, n, 0, cols, scratch, &data, &type, &stride);
        if (!all_finite(data, type, count)) {
            status =
                fail(err, QWEN3_ERR_FORMAT, "tensor %s: NaN or infinite value near row %lld; expected finite weights",
                     name, (long long)row);
        } else if (tensor_is_vector(e->role) && type != QWEN3_DTYPE_F32) {
            float *wide = scratch + count;
            for (size_t i = 0; i < count; i++)
                wide[i] = bf16_to_f32(((const bf16 *)data)[i]);
            data = wide;
            type = QWEN3_DTYPE_F32;
        }
        if (!status)
            status = new_dir_write(p->file, PACKED_FILE, data, count * dtype_size(type), err);
    }
    free(scratch);
    return status;
}

static qwen3_status write_file(packing *p, const new_dir *dir, const kernels *k, qwen3_error *err)
{
    qwen3_status status = list_entries(p, err);
    if (!status)
        status = new_dir_file(dir, PACKED_FILE, &p->file, err);
    if (status)
        return status;
    status = write_header(p, k, err);
    for (size_t i = 0; i < p->n && !status; i++)
        status =
            packed_role(p->entries[i].role) ? write_matrix(p, &p->entries[i], err) : write_rows(p, &p->entries[i], err);
    qwen3_status closed = new_dir_close(p->file, PACKED_FILE, err);
    return status ? status : closed;
}

static qwen3_status check_dtype(const packing *p, qwen3_error *err)
{
    const packed_format *packed = source_format(p->src);
    if (packed && packed->dtype != p->format.dtype)
        return fail(err, QWEN3_ERR_ARGUMENT, "dtype %s: %s is packed as %s already; expected %s, or a checkpoint",
                    qwen3_dtype_name(p->format.dtype), p->spec, qwen3_dtype_name(packed->dtype),
                    qwen3_dtype_name(packed->dtype));
    return QWEN3_OK;
}

qwen3_status pack_model(const char *spec, qwen3_dtype dtype, const kernels *k, int threads, const char *output,
                        qwen3_error *err)
{
    source *src;
    qwen3_config config;
    if (strncmp(spec, SYNTHETIC_PREFIX, strlen(SYNTHETIC_PREFIX)) == 0)
        return fail(err, QWEN3_ERR_ARGUMENT, "%s: has no files to pack; expected the directory of a checkpoint", spec);
    qwen3_status status = source_open(spec, 0, &src, &config, err);
    if (status)
        return status;
    const packed_format *packed = source_format(src);
    if (dtype == QWEN3_DTYPE_AUTO)
        dtype = packed ? packed->dtype : QWEN3_DTYPE_BF16;
    const gemm_kernel *g = &k->gemm[dtype];
    packing p = {.src = src,
                 .config = &config,
                 .gemm = g,
                 .spec = spec,
                 .threads = threads,
                 .format = {dtype, g->nr, g->kr, g->group_bytes}};
    new_dir dir = {0};
    status = check_dtype(&p, err);
    if (!status && !(status = new_dir_begin(output, &dir, err))) {
        for (size_t i = 0; i < sizeof copied_files / sizeof *copied_files && !status; i++)
            status = new_dir_copy(&dir, spec, copied_files[i], err);
        if (!status)
            status = write_file(&p, &dir, k, err);
        status = new_dir_finish(&dir, status, err);
    }
    free(p.entries);
    source_close(src);
    return status;
}
