/* tokenizer_encode.c - from text to ids. */
#include <stdlib.h>
#include <string.h>

#include "io/nfc.h"
#include "io/tokenizer.h"

typedef struct encoder {
    const qwen3_tokenizer *t;
    nfc_work nfc;
    merge_work merge;
    int32_t *ids; /* [room], n of them set */
    size_t n, room;
} encoder;

static qwen3_status reserve_ids(encoder *e, size_t more, qwen3_error *err)
{
    if (e->n + more <= e->room)
        return QWEN3_OK;
    size_t room = e->n + more > 2 * e->room ? e->n + more : 2 * e->room;
    int32_t *ids = realloc(e->ids, room * sizeof *ids);
    if (!ids)
        return fail(err, QWEN3_ERR_MEMORY, "text: cannot allocate %zu token ids", room);
    e->ids = ids;
    e->room = room;
    return QWEN3_OK;
}

/* Most pieces are the bytes of a token, and merging these nearly always yields that token; whether it does is found out
 * once. */
static qwen3_status encode_piece(encoder *e, const unsigned char *piece, size_t bytes, qwen3_error *err)
{
    const qwen3_tokenizer *t = e->t;
    int32_t id = bytes <= t->longest ? vocabulary_find(t, piece, bytes) : NO_ID;
    int known = id == NO_ID ? WHOLE_NO : atomic_load_explicit(&t->whole[id], memory_order_relaxed);
    if (known == WHOLE_YES) {
        e->ids[e->n++] = id;
        return QWEN3_OK;
    }
    size_t n;
    int32_t *ids = e->ids + e->n;
    qwen3_status status = merge_piece(t, &e->merge, piece, bytes, ids, &n, err);
    if (status)
        return status;
    if (known == WHOLE_UNKNOWN)
        atomic_store_explicit(&t->whole[id], n == 1 && ids[0] == id ? WHOLE_YES : WHOLE_NO, memory_order_relaxed);
    e->n += n;
    return QWEN3_OK;
}

/* Text without added tokens. */
static qwen3_status encode_stretch(encoder *e, const unsigned char *text, size_t bytes, qwen3_error *err)
{
    const unsigned char *normal;
    size_t n;
    qwen3_status status = nfc_normalise(&e->nfc, text, bytes, &normal, &n, err);
    for (size_t at = 0, piece; at < n && status == QWEN3_OK; at += piece) {
        piece = split_piece(normal + at, n - at, e->t->marks);
        status = reserve_ids(e, piece, err);
        if (status == QWEN3_OK)
            status = encode_piece(e, normal + at, piece, err);
    }
    return status;
}

/* The id of the next added token that begins in [*at, end), and *at where it begins; NO_ID and *at = end if there is
 * none. */
static int32_t next_added(const qwen3_tokenizer *t, const unsigned char *text, size_t *at, size_t end)
{
    for (; *at < end; ++*at) {
        if (!t->added_begins[text[*at]])
            continue;
        int32_t id = added_match(t, text + *at, end - *at);
        if (id != NO_ID)
            return id;
    }
    return NO_ID;
}

static qwen3_status encode_text(encoder *e, const qwen3_encode_args *args, qwen3_error *err)
{
    const unsigned char *text = (const unsigned char *)args->text;
    const qwen3_text_range *plain = args->plain;
    const size_t length = args->length, n_plain = args->n_plain;
    size_t begin = 0, at = 0, range = 0; /* text from `begin` on is not encoded yet */
    qwen3_status status = QWEN3_OK;
    while (at < length && status == QWEN3_OK) {
        size_t end = range < n_plain ? plain[range].begin : length;
        int32_t id = next_added(e->t, text, &at, end);
        if (id == NO_ID) {
            at = range < n_plain ? plain[range++].end : length;
            continue;
        }
        status = encode_stretch(e, text + begin, at - begin, err);
        if (status == QWEN3_OK)
            status = reserve_ids(e, 1, err);
        if (status == QWEN3_OK)
            e->ids[e->n++] = id;
        at += e->t->tokens[id].bytes;
        begin = at;
    }
    if (status == QWEN3_OK && begin < length)
        status = encode_stretch(e, text + begin, length - begin, err);
    return status;
}

static qwen3_status check_text(const qwen3_encode_args *args, qwen3_error *err)
{
    if (args->length > TEXT_LONGEST)
        return fail(err, QWEN3_ERR_ARGUMENT, "text: has %zu bytes, expected at most %d", args->length, TEXT_LONGEST);
    if ((args->length > 0 && missing(args->text, "text", err)) ||
        (args->n_plain > 0 && missing(args->plain, "plain", err)))
        return err->status;
    size_t at = 0;
    for (size_t i = 0; i < args->n_plain; i++) {
        const qwen3_text_range r = args->plain[i];
        if (r.begin < at || r.end < r.begin || r.end > args->length)
            return fail(err, QWEN3_ERR_ARGUMENT,
                        "text: plain range %zu is [%zu, %zu), expected ascending ranges within %zu bytes", i, r.begin,
                        r.end, args->length);
        at = r.end;
    }
    return QWEN3_OK;
}

qwen3_status qwen3_tokenizer_encode(const qwen3_tokenizer *tokenizer, const qwen3_encode_args *args, int32_t **ids,
                                    size_t *n, qwen3_error *err)
{
    qwen3_error local;
    encoder e = {.t = tokenizer};
    err = error_begin(err, &local);
    if (missing(ids, "ids", err) || missing(n, "n", err))
        return err->status;
    *ids = NULL;
    *n = 0;
    if (missing(tokenizer, "tokenizer", err) || missing(args, "args", err))
        return err->status;
    qwen3_status status = check_text(args, err);
    if (status == QWEN3_OK)
        status = reserve_ids(&e, args->length / 4 + 16, err); /* English has about 4.5 bytes a token */
    if (status == QWEN3_OK)
        status = encode_text(&e, args, err);
    nfc_work_free(&e.nfc);
    merge_work_free(&e.merge);
    if (status) {
        free(e.ids);
        return status;
    }
    *ids = e.ids;
    *n = e.n;
    return QWEN3_OK;
}
