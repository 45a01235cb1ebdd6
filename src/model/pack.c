/* pack.c - writes a packed model (packed.h), one matrix at a time. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "io/checkpoint.h"
#include "io/gguf.h"
#include "io/new_dir.h"
#include "io/utf8.h"
#include "model/packed.h"
#include "model/weights.h"

/* Everything but the weights that belongs to a published model; what is not there is not missed. */
static const char *const copied_files[] = {
    "config.json", "generation_config.json",  "tokenizer.json",    "tokenizer_config.json", "vocab.json",
    "merges.txt",  "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",   GGUF_METADATA_FILE,
};

/* A tensor of the file, in its order: matrices first, so that their data are aligned. */
typedef struct entry {
    size_t tensor;
    size_t bytes;
} entry;

typedef struct packing {
    const source *src;
    weight_format format;
    const char *spec;
    packers by;
    entry *entries; /* [n] */
    size_t n;
    int file;
    checksum sum;       /* of the chunk that is being written */
    char *digits, *end; /* of the checksums of all chunks, and behind those that are known */
} packing;

static const tensor *entry_tensor(const packing *p, const entry *e)
{
    return source_tensor(p->src, e->tensor);
}

/* ---- The header -------------------------------------------------------------------------------- */

static const char *entry_type(const packing *p, const entry *e)
{
    const tensor_kind kind = entry_tensor(p, e)->kind;
    const bool short_rows = kind == TENSOR_EMBEDDING && strcmp(source_stored_type(p->src, e->tensor), "BF16") == 0;
    return tensor_is_packed(kind) ? "U8" : short_rows ? "BF16" : "F32"; /* F16 is widened, exactly */
}

static void add_entry(packing *p, size_t number)
{
    entry e = {number, 0};
    const tensor *t = entry_tensor(p, &e);
    if (tensor_is_packed(t->kind))
        e.bytes = packed_tensor_bytes(p->format.nr, weight_format_gemm(&p->format, number, 0)->storage, t);
    else
        e.bytes = (size_t)(t->rows * t->cols) * (strcmp(entry_type(p, &e), "F32") == 0 ? 4 : 2);
    p->entries[p->n++] = e;
}

static bool is_missing_head(const packing *p, size_t number)
{
    return source_tensor(p->src, number)->kind == TENSOR_HEAD && source_config(p->src)->no_output_head;
}

static qwen3_status list_entries(packing *p, qwen3_error *err)
{
    p->entries = calloc(source_tensors(p->src), sizeof *p->entries);
    if (!p->entries)
        return fail(err, QWEN3_ERR_MEMORY, "%s: no memory for the list of tensors", p->spec);
    for (int packed = 1; packed >= 0; packed--)
        for (size_t i = 0; i < source_tensors(p->src); i++)
            if (tensor_is_packed(source_tensor(p->src, i)->kind) == packed && !is_missing_head(p, i))
                add_entry(p, i);
    return QWEN3_OK;
}

/* Zeros, until the data are written. */
static qwen3_status make_digits(packing *p, qwen3_error *err)
{
    size_t chunks = 0;
    for (size_t i = 0; i < p->n; i++)
        chunks += packed_chunks(p->entries[i].bytes);
    p->digits = p->end = malloc(chunks * PACKED_DIGITS + 1);
    if (!p->digits)
        return fail(err, QWEN3_ERR_MEMORY, "%s: no memory for the checksums of %zu parts", p->spec, chunks);
    memset(p->digits, '0', chunks * PACKED_DIGITS);
    p->digits[chunks * PACKED_DIGITS] = '\0';
    return QWEN3_OK;
}

static json_t *describe_entry(const packing *p, const entry *e, size_t begin)
{
    const tensor *t = entry_tensor(p, e);
    json_t *shape = tensor_is_packed(t->kind)   ? json_pack("[I]", (json_int_t)e->bytes)
                    : tensor_is_vector(t->kind) ? json_pack("[I]", (json_int_t)t->rows)
                                                : json_pack("[I, I]", (json_int_t)t->rows, (json_int_t)t->cols);
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", entry_type(p, e), "shape", shape, "data_offsets",
                     (json_int_t)begin, (json_int_t)begin + (json_int_t)e->bytes);
}

/* The types of all matrices by number, separated by commas; owned by the caller. NULL without memory. */
static char *list_types(const packing *p)
{
    const size_t room = 16 * source_tensors(p->src) + 1;
    char *text = calloc(room, 1);
    size_t used = 0;
    for (size_t i = 0; text && i < source_tensors(p->src); i++)
        if (tensor_is_packed(source_tensor(p->src, i)->kind))
            used += (size_t)snprintf(text + used, room - used, "%s%s", used ? "," : "",
                                     weight_type_name(weight_format_gemm(&p->format, i, 0)->storage));
    return text;
}

/* The name of the source is for readers only: bytes of it that are not UTF-8 become U+FFFD. */
static json_t *describe_format(const packing *p, qwen3_error *err)
{
    char nr[16], config[PACKED_CONFIG_MAX];
    text_buffer name = {0};
    json_t *root = NULL;
    snprintf(nr, sizeof nr, "%d", p->format.nr);
    packed_describe_config(source_config(p->src), config);
    char *types = p->format.types ? list_types(p) : NULL;
    if (!utf8_append_valid(&name, (const unsigned char *)p->spec, strlen(p->spec), NULL, err) &&
        !types == !p->format.types)
        root = json_pack("{s:{s:s, s:s, s:s, s:s*, s:s, s:s, s:s, s:s%, s:s}}", "__metadata__", "header_checksum",
                         "0000000000000000", "format", PACKED_FORMAT, "dtype",
                         types ? PACKED_STORED : qwen3_dtype_name(p->format.dtype), "types", types, "nr", nr, "isa",
                         p->format.kernels->name, "config", config, "source", (const char *)name.data, name.n,
                         "data_checksums", p->digits);
    free(types);
    text_buffer_free(&name);
    return root;
}

/* At the beginning of the file; the same number of bytes whatever the checksums are. */
static qwen3_status write_header(const packing *p, qwen3_error *err)
{
    json_t *root = describe_format(p, err);
    size_t begin = 0;
    int failed = root == NULL;
    for (size_t i = 0; i < p->n && !failed; i++) {
        json_t *value = describe_entry(p, &p->entries[i], begin);
        failed = json_object_set_new(root, entry_tensor(p, &p->entries[i])->name, value);
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
        const checksum sum = packed_header_checksum(header, whole);
        packed_write_digits(&sum, header + sizeof length + strlen(PACKED_HEADER));
        status = new_dir_write(p->file, PACKED_FILE, header, whole, err);
    } else {
        status = fail(err, QWEN3_ERR_MEMORY, "%s: no memory for the header of %s", p->spec, PACKED_FILE);
    }
    free(header);
    free(text);
    return status;
}

/* ---- The data ---------------------------------------------------------------------------------- */

static void end_chunk(packing *p)
{
    packed_write_digits(&p->sum, p->end);
    p->end += PACKED_DIGITS;
    p->sum = (checksum){0};
}

/* The next bytes of a tensor: a multiple of CHECKSUM_STEP, but for the last. */
static qwen3_status write_data(packing *p, const void *data, size_t bytes, qwen3_error *err)
{
    const char *at = data;
    for (size_t left = bytes, n; left > 0; at += n, left -= n) {
        const size_t room = PACKED_CHUNK - (size_t)p->sum.bytes;
        n = left < room ? left : room;
        checksum_add(&p->sum, at, n);
        if (n == room)
            end_chunk(p);
    }
    return new_dir_write(p->file, PACKED_FILE, data, bytes, err);
}

static qwen3_status write_matrix(packing *p, const entry *e, qwen3_error *err)
{
    void *data;
    qwen3_status status = memory_alloc(&data, e->bytes, "a packed matrix", err);
    if (!status)
        status = weights_pack_matrix(p->src, weight_format_gemm(&p->format, e->tensor, 0), e->tensor, data, p->by, err);
    if (!status)
        status = write_data(p, data, e->bytes, err);
    memory_free(data, e->bytes);
    return status;
}

static bool all_finite(const tensor_view *v, size_t n)
{
    bool finite = true;
    for (size_t i = 0; i < n; i++)
        finite &= isfinite(view_value(v, i)) != 0;
    return finite;
}

#define ROWS_AT_ONCE 256
_Static_assert(ROWS_AT_ONCE * sizeof(bf16) % CHECKSUM_STEP == 0, "rows must be whole steps of a checksum");

/* Vectors and routers, widened to F32, and the embedding. */
static qwen3_status write_rows(packing *p, const entry *e, qwen3_error *err)
{
    const tensor *t = entry_tensor(p, e);
    float *scratch = malloc(2 * (size_t)(ROWS_AT_ONCE * t->cols) * sizeof *scratch);
    qwen3_status status = scratch ? QWEN3_OK : fail(err, QWEN3_ERR_MEMORY, "tensor %s: no memory for rows", t->name);
    for (int64_t row = 0, n; row < t->rows && !status; row += n) {
        n = t->rows - row < ROWS_AT_ONCE ? t->rows - row : ROWS_AT_ONCE;
        size_t count = (size_t)(n * t->cols); /* stride is cols: parts of whole rows are contiguous */
        tensor_view v = source_part(p->src, &(tensor_part){e->tensor, {row, row + n}, {0, t->cols}}, scratch);
        if (!all_finite(&v, count)) {
            status =
                fail(err, QWEN3_ERR_FORMAT, "tensor %s: NaN or infinite value near row %lld; expected finite weights",
                     t->name, (long long)row);
        } else if (t->kind != TENSOR_EMBEDDING) {
            float *wide = scratch + count;
            for (size_t i = 0; i < count; i++)
                wide[i] = view_value(&v, i);
            v = (tensor_view){wide, QWEN3_DTYPE_F32, (size_t)t->cols};
        }
        if (!status)
            status = write_data(p, v.data, count * dtype_size(v.type), err);
        work_done(p->by.work, count * dtype_size(v.type));
        work_tell(p->by.work);
    }
    free(scratch);
    return status;
}

/* Without the zeros at the ends of matrices. */
static uint64_t data_bytes(const packing *p)
{
    uint64_t bytes = 0;
    for (const entry *e = p->entries; e < p->entries + p->n; e++) {
        const tensor *t = entry_tensor(p, e);
        bytes += tensor_is_packed(t->kind)
                     ? gemm_packed_bytes(weight_format_gemm(&p->format, e->tensor, 0), (size_t)t->rows, (size_t)t->cols)
                     : e->bytes;
    }
    return bytes;
}

static qwen3_status write_file(packing *p, const new_dir *dir, qwen3_error *err)
{
    qwen3_status status = list_entries(p, err);
    if (!status)
        status = make_digits(p, err);
    if (!status)
        status = new_dir_file(dir, PACKED_FILE, &p->file, err);
    if (status)
        return status;
    status = write_header(p, err);
    work_begin(p->by.work, QWEN3_STAGE_PACK, data_bytes(p));
    for (size_t i = 0; i < p->n && !status; i++) {
        status = tensor_is_packed(entry_tensor(p, &p->entries[i])->kind) ? write_matrix(p, &p->entries[i], err)
                                                                         : write_rows(p, &p->entries[i], err);
        if (p->sum.bytes > 0)
            end_chunk(p);
    }
    if (!status)
        status = new_dir_rewind(p->file, PACKED_FILE, err);
    if (!status)
        status = write_header(p, err);
    if (!status)
        work_end(p->by.work);
    qwen3_status closed = new_dir_close(p->file, PACKED_FILE, err);
    return status ? status : closed;
}

/* Of a GGUF file: its keys and values, and whether the embedding is the output head, which its tensors say. */
static qwen3_status write_metadata(const packing *p, const new_dir *dir, qwen3_error *err)
{
    gguf_file file;
    gguf_text text = {0}, data;
    char key[64];
    qwen3_status status = gguf_file_open(p->spec, &file, err);
    if (!status)
        status = gguf_read_text(&(gguf_section){&file, "general.", err}, "architecture", &text);
    if (!status) {
        snprintf(key, sizeof key, "%.*s.tie_word_embeddings", (int)(text.bytes < 32 ? text.bytes : 32), text.data);
        status = gguf_metadata(&file, key, source_config(p->src)->tie_word_embeddings, &data, err);
    }
    if (!status) {
        status = new_dir_put(dir, GGUF_METADATA_FILE, data.data, data.bytes, err);
        free((char *)data.data);
    }
    gguf_file_close(&file);
    return status;
}

/* That of the source, and what --dtype says. */
static qwen3_status choose_format(packing *p, const kernels *k, qwen3_dtype dtype, qwen3_error *err)
{
    const packed_format *packed = source_format(p->src);
    if (packed && dtype != QWEN3_DTYPE_AUTO && packed->dtype != dtype)
        return fail(err, QWEN3_ERR_ARGUMENT, "dtype %s: %s is packed as %s already; expected %s, or a checkpoint",
                    qwen3_dtype_name(dtype), p->spec, packed_type_name(packed), packed_type_name(packed));
    p->format = source_weight_format(p->src, k, dtype);
    return QWEN3_OK;
}

qwen3_status pack_model(const source *src, const pack_options *options, qwen3_error *err)
{
    packing p = {.src = src, .spec = options->spec, .by = {options->threads, options->work}};
    new_dir dir = {0};
    qwen3_status status = choose_format(&p, options->kernels, options->dtype, err);
    if (!status && !(status = new_dir_begin(options->output, &dir, err))) {
        for (size_t i = 0; i < sizeof copied_files / sizeof *copied_files && !status; i++)
            status = new_dir_copy(&dir, p.spec, copied_files[i], err);
        if (!status && gguf_is_path(p.spec))
            status = write_metadata(&p, &dir, err);
        if (!status)
            status = write_file(&p, &dir, err);
        status = new_dir_finish(&dir, status);
    }
    free(p.entries);
    free(p.digits);
    return status;
}
