/* packed.c - the metadata and sizes of a packed model. */
#include "model/packed.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/digest.h"
#include "base/memory.h"
#include "base/team.h"

void packed_describe_config(const qwen3_config *c, char text[PACKED_CONFIG_MAX])
{
    snprintf(text, PACKED_CONFIG_MAX,
             "vocab %" PRId64 " hidden %" PRId64 " inter %" PRId64 " layers %" PRId64 " heads %" PRId64 " kv %" PRId64
             " head_dim %" PRId64 " positions %" PRId64 " eps %.17g theta %.17g yarn %.17g %.17g %.17g %.17g %" PRId64
             " tied %d",
             c->vocab_size, c->hidden_size, c->intermediate_size, c->num_layers, c->num_heads, c->num_kv_heads,
             c->head_dim, c->max_positions, c->rms_norm_eps, c->rope_theta, c->yarn_factor, c->yarn_beta_fast,
             c->yarn_beta_slow, c->yarn_attention_factor, c->yarn_original_positions, c->tie_word_embeddings);
    /* Qwen3's own text is that of packed models from before there was a choice. */
    const size_t n = strlen(text);
    if (!c->qk_norm || c->attention_bias)
        snprintf(text + n, PACKED_CONFIG_MAX - n, " qk_norm %d bias %d", c->qk_norm, c->attention_bias);
    else if (c->num_experts)
        snprintf(text + n, PACKED_CONFIG_MAX - n,
                 " experts %" PRId64 " chosen %" PRId64 " inter %" PRId64 " norm %d layers %016" PRIx64, c->num_experts,
                 c->num_experts_per_token, c->moe_intermediate_size, c->norm_topk_prob,
                 digest_bytes(0, c->expert_layers, sizeof c->expert_layers));
}

size_t packed_tensor_bytes(int nr, weight_type type, const tensor *t)
{
    gemm_kernel layout =
        kernels_get(QWEN3_ISA_C)->gemm[type]; /* all levels have the same, but for the height of panels */
    layout.nr = nr;
    return round_up(gemm_packed_bytes(&layout, (size_t)t->rows, (size_t)t->cols), PACKED_ALIGNMENT);
}

/* ---- Checksums --------------------------------------------------------------------------------- */

void packed_write_digits(const checksum *sum, char *digits)
{
    uint64_t value = checksum_value(sum);
    for (int i = PACKED_DIGITS; i-- > 0; value >>= 4)
        digits[i] = "0123456789abcdef"[value & 15];
}

checksum packed_header_checksum(char *header, size_t bytes)
{
    checksum sum = {0};
    memset(header + sizeof(uint64_t) + strlen(PACKED_HEADER), '0', PACKED_DIGITS);
    checksum_add(&sum, header, bytes);
    return sum;
}

/* Where the data begin. */
static size_t header_bytes(const safetensors *file)
{
    uint64_t length;
    memcpy(&length, file->map, sizeof length);
    return sizeof length + (size_t)length;
}

static qwen3_status check_header(const safetensors *file, qwen3_error *err)
{
    const size_t bytes = header_bytes(file), at = sizeof(uint64_t) + strlen(PACKED_HEADER);
    const char *stored = file->map;
    char *header = malloc(bytes), digits[PACKED_DIGITS] = "";
    if (!header)
        return fail(err, QWEN3_ERR_MEMORY, "%s: no memory for its header", file->path);
    memcpy(header, stored, bytes);
    const bool there =
        bytes > at + PACKED_DIGITS && memcmp(stored + sizeof(uint64_t), PACKED_HEADER, strlen(PACKED_HEADER)) == 0;
    if (there) {
        const checksum sum = packed_header_checksum(header, bytes);
        packed_write_digits(&sum, digits);
    }
    free(header);
    if (!there || memcmp(digits, stored + at, PACKED_DIGITS) != 0)
        return fail(err, QWEN3_ERR_FORMAT,
                    "%s: the header is damaged: it has not the checksum that it was packed with; copy the file or pack "
                    "the model again",
                    file->path);
    return QWEN3_OK;
}

static size_t count_chunks(const safetensors *file)
{
    size_t n = 0;
    for (size_t i = 0; i < file->n_tensors; i++)
        n += packed_chunks(file->tensors[i].bytes);
    return n;
}

/* Chunks [next, end) are still to be read. */
typedef struct verification {
    const safetensors *file;
    const char *digits;      /* of all chunks */
    atomic_size_t next, bad; /* bad: the first one that is damaged, or the number of chunks */
    size_t end;
    work *work;
} verification;

/* The tensor of a chunk, and the bytes of it that come before. */
static const stored_tensor *chunk_tensor(const safetensors *file, size_t chunk, size_t *before)
{
    const stored_tensor *t = file->tensors;
    for (; chunk >= packed_chunks(t->bytes); t++)
        chunk -= packed_chunks(t->bytes);
    *before = chunk * PACKED_CHUNK;
    return t;
}

static size_t chunk_bytes(const stored_tensor *t, size_t before)
{
    const size_t left = t->bytes - before;
    return left < PACKED_CHUNK ? left : PACKED_CHUNK;
}

static uint64_t bytes_of_chunks(const safetensors *file, size_t begin, size_t end)
{
    uint64_t bytes = 0;
    size_t chunk = 0;
    for (const stored_tensor *t = file->tensors; t < file->tensors + file->n_tensors; t++)
        for (size_t before = 0; before < t->bytes; before += PACKED_CHUNK, chunk++)
            bytes += chunk >= begin && chunk < end ? chunk_bytes(t, before) : 0;
    return bytes;
}

static bool chunk_is_good(const verification *v, size_t chunk)
{
    size_t before;
    const stored_tensor *t = chunk_tensor(v->file, chunk, &before);
    checksum sum = {0};
    char digits[PACKED_DIGITS];
    checksum_add(&sum, (const char *)t->data + before, chunk_bytes(t, before));
    packed_write_digits(&sum, digits);
    work_done(v->work, chunk_bytes(t, before));
    return memcmp(digits, v->digits + chunk * PACKED_DIGITS, PACKED_DIGITS) == 0;
}

static void verify_body(team *t, void *arg)
{
    verification *v = arg;
    for (size_t chunk; (chunk = atomic_fetch_add(&v->next, 1)) < v->end;) {
        const bool good = chunk_is_good(v, chunk);
        if (t->tid == 0)
            work_tell(v->work);
        if (good)
            continue;
        size_t bad = atomic_load(&v->bad);
        while (chunk < bad && !atomic_compare_exchange_weak(&v->bad, &bad, chunk))
            ;
    }
}

qwen3_status packed_verify(const safetensors *file, const source_share *share, qwen3_error *err)
{
    const size_t chunks = count_chunks(file);
    verification v = {.file = file, .digits = safetensors_metadata(file, "data_checksums"), .work = share->work};
    if (strlen(v.digits) != chunks * PACKED_DIGITS)
        return fail(err, QWEN3_ERR_FORMAT, "%s: metadata: data_checksums: got %zu digits, expected %zu", file->path,
                    strlen(v.digits), chunks * PACKED_DIGITS);
    v.next = chunks * (size_t)share->part / (size_t)share->parts;
    v.end = chunks * ((size_t)share->part + 1) / (size_t)share->parts;
    v.bad = chunks;
    work_begin(share->work, QWEN3_STAGE_VERIFY, bytes_of_chunks(file, v.next, v.end));
    team_run(share->threads, verify_body, &v);
    if (v.bad == chunks) {
        work_end(share->work);
        return QWEN3_OK;
    }
    size_t before;
    const stored_tensor *t = chunk_tensor(file, v.bad, &before);
    return fail(
        err, QWEN3_ERR_FORMAT,
        "%s: tensor %s: is damaged: its data have not the checksum that they were packed with (from byte %zu of "
        "the file on); copy the file or pack the model again",
        file->path, t->name, (size_t)((const char *)t->data - (const char *)file->map) + before);
}

/* ---- The format -------------------------------------------------------------------------------- */

qwen3_status packed_read_format(const safetensors *file, const qwen3_config *config, packed_format *format,
                                qwen3_error *err)
{
    const char *version = safetensors_metadata(file, "format"), *dtype = safetensors_metadata(file, "dtype");
    const char *nr = safetensors_metadata(file, "nr");
    char expected[PACKED_CONFIG_MAX];
    if (strcmp(version, PACKED_FORMAT) != 0)
        return fail(err, QWEN3_ERR_FORMAT, "%s: metadata: format: got \"%.64s\", expected \"%s\"; pack the model again",
                    file->path, version, PACKED_FORMAT);
    const qwen3_status status = check_header(file, err);
    if (status)
        return status;
    if (strcmp(dtype, PACKED_STORED) == 0)
        format->dtype = QWEN3_DTYPE_AUTO;
    else if (!qwen3_dtype_parse(dtype, &format->dtype) || format->dtype < 0)
        return fail(err, QWEN3_ERR_FORMAT, "%s: metadata: dtype: got \"%.64s\", expected bf16, q8, q4, f32 or %s",
                    file->path, dtype, PACKED_STORED);
    format->nr = atoi(nr);
    if (format->nr < 1 || format->nr > 64 || 64 % format->nr != 0)
        return fail(err, QWEN3_ERR_FORMAT, "%s: metadata: nr: got \"%.64s\", expected a power of 2 up to 64",
                    file->path, nr);
    packed_describe_config(config, expected);
    if (strcmp(safetensors_metadata(file, "config"), expected) != 0)
        return fail(err, QWEN3_ERR_CONFIG,
                    "%s: was packed with another config.json than the one beside it (\"%.500s\", now \"%s\"); pack the "
                    "model again",
                    file->path, safetensors_metadata(file, "config"), expected);
    return QWEN3_OK;
}

qwen3_status packed_read_types(const safetensors *file, const tensor *tensors, size_t n, weight_type *types,
                               qwen3_error *err)
{
    const char *at = safetensors_metadata(file, "types");
    for (size_t i = 0; i < n; i++) {
        char name[16] = "";
        const size_t length = strcspn(at, ",");
        types[i] = QWEN3_DTYPE_F32;
        if (!tensor_is_packed(tensors[i].kind))
            continue;
        if (length < sizeof name)
            memcpy(name, at, length);
        if (!weight_type_parse(name, &types[i]))
            return fail(err, QWEN3_ERR_FORMAT, "%s: metadata: types: got \"%.16s\" for %s, expected a type of weights",
                        file->path, at, tensors[i].name);
        const int64_t kr = kernels_get(QWEN3_ISA_C)->gemm[types[i]].kr;
        if (types[i] >= DTYPE_COUNT && tensors[i].cols % kr != 0)
            return fail(err, QWEN3_ERR_FORMAT,
                        "%s: metadata: types: got %s for %s, whose rows of %lld are no blocks of it", file->path, name,
                        tensors[i].name, (long long)tensors[i].cols);
        at += length + (at[length] == ',');
    }
    if (*at)
        return fail(err, QWEN3_ERR_FORMAT, "%s: metadata: types: got \"%.16s\" after those of all tensors", file->path,
                    at);
    return QWEN3_OK;
}
