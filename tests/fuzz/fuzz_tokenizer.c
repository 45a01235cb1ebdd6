/* fuzz_tokenizer.c - libFuzzer target: what begins with '{' as a tokenizer.json, anything else as text. A file that
 * is accepted must encode text and give it back; text must come back in form C, whole and token by token. */
#include <utf8proc.h>

#include "fuzz/fuzz.h"
#include "io/tokenizer.h"
#include "support/tiny_tokenizer.h"

/* NULL: refused, with a message. */
static qwen3_tokenizer *open_bytes(const void *bytes, size_t size)
{
    qwen3_tokenizer *t;
    qwen3_error err = {0};
    fuzz_file file = open_memory_file(bytes, size);
    if (!succeeded(qwen3_tokenizer_open(file.path, &t, &err), &err))
        demand(!t);
    close(file.descriptor);
    return t;
}

/* What must come back. Free with free(). */
static unsigned char *form_c(const uint8_t *text, size_t size, size_t *n)
{
    text_buffer valid = {0};
    unsigned char *out = NULL;
    demand(utf8_append_valid(&valid, text, size, NULL, NULL) == QWEN3_OK);
    utf8proc_ssize_t bytes =
        utf8proc_map(valid.data, (utf8proc_ssize_t)valid.n, &out, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    demand(bytes >= 0);
    *n = (size_t)bytes;
    text_buffer_free(&valid);
    return out;
}

static void round_trip(const qwen3_tokenizer *t, const uint8_t *text, size_t size, bool plain)
{
    const qwen3_text_range whole = {0, size};
    qwen3_error err = {0};
    qwen3_text_stream *stream;
    int32_t *ids;
    char *decoded;
    const char *part;
    size_t n, n_decoded, n_expected, at = 0, length;
    unsigned char *expected = form_c(text, size, &n_expected);
    const qwen3_encode_args args = {(const char *)text, size, &whole, plain};
    demand(qwen3_tokenizer_encode(t, &args, &ids, &n, &err) == QWEN3_OK);
    demand(qwen3_tokenizer_decode(t, ids, n, false, &decoded, &n_decoded, &err) == QWEN3_OK);
    /* An added token cuts text where form C could join: then only the form C of both is the same. */
    unsigned char *again = form_c((const uint8_t *)decoded, n_decoded, &length);
    demand(length == n_expected && memcmp(again, expected, length) == 0);
    demand(!plain || (n_decoded == n_expected && memcmp(decoded, expected, n_decoded) == 0));
    demand(qwen3_text_stream_open(t, false, &stream, &err) == QWEN3_OK);
    for (size_t i = 0; i < n; i++, at += length) {
        demand(qwen3_text_stream_push(stream, ids[i], &part, &length, &err) == QWEN3_OK);
        demand(at + length <= n_decoded && memcmp(decoded + at, part, length) == 0);
    }
    qwen3_text_stream_finish(stream, &part, &length);
    demand(at == n_decoded && length == 0);
    qwen3_text_stream_close(stream);
    free(again);
    free(expected);
    free(decoded);
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static qwen3_tokenizer *tiny;
    static const uint8_t text[] = "it's there aaaaaaabababa-----\n\n <think><|end|>e\xCC\x81\xFF";
    if (!tiny) {
        json_t *json = tiny_tokenizer();
        char *dumped = json_dumps(json, JSON_COMPACT);
        tiny = open_bytes(dumped, strlen(dumped));
        demand(tiny != NULL);
        json_decref(json);
        free(dumped);
    }
    if (size > 0 && data[0] == '{') {
        qwen3_tokenizer *t = open_bytes(data, size);
        if (t)
            round_trip(t, text, sizeof text - 1, true);
        qwen3_tokenizer_close(t);
    } else {
        round_trip(tiny, data, size, true);
        round_trip(tiny, data, size, false);
    }
    return 0;
}
