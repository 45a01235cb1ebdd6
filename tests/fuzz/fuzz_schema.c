/* fuzz_schema.c - libFuzzer target: JSON schemas and regular expressions of clients. Parts of the input: a schema, and
 * bytes. A schema is refused with a message, or compiled; then bytes are followed as far as they are allowed, and a
 * mask agrees with single tokens. Where a text is a whole value it is JSON. */
#include <jansson.h>

#include "fuzz/fuzz.h"
#include "io/grammar.h"
#include "io/vocabulary.h"

enum { TOKENS = 256, TEXT = 256 };

/* A token for each byte. */
static const qwen3_vocabulary *byte_vocabulary(void)
{
    static unsigned char bytes[TOKENS];
    static vocabulary_token tokens[TOKENS];
    static int32_t places[TOKENS];
    static qwen3_vocabulary v = {.tokens = tokens, .n = TOKENS, .n_ids = TOKENS, .places = places, .longest = 1};
    for (int32_t i = 0; i < TOKENS; i++) {
        bytes[i] = (unsigned char)i;
        tokens[i] = (vocabulary_token){.bytes = &bytes[i], .n = 1, .id = i};
        places[i] = v.first[i] = i;
    }
    v.first[TOKENS] = TOKENS;
    return &v;
}

static void check_value(const char *text, size_t n)
{
    json_t *value = json_loadb(text, n, JSON_DECODE_ANY, NULL);
    demand(value != NULL);
    json_decref(value);
}

static void follow(qwen3_matcher *m, fuzz_part bytes)
{
    char text[TEXT];
    size_t n = 0;
    for (size_t i = 0; i < bytes.size && n < TEXT; i++) {
        uint64_t mask[TOKENS / 64] = {0};
        const unsigned char byte = bytes.data[i];
        qwen3_matcher_mask(m, mask, TOKENS);
        const bool allowed = mask[byte / 64] >> byte % 64 & 1;
        demand(allowed == qwen3_matcher_allows(m, byte) && allowed == qwen3_matcher_accept(m, byte));
        if (allowed)
            text[n++] = (char)byte;
        if (allowed && qwen3_matcher_complete(m))
            check_value(text, n);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_part rest = {data, size};
    const fuzz_part schema = next_part(&rest);
    qwen3_error err = {0};
    qwen3_grammar *g;
    qwen3_matcher *m;
    if (succeeded(qwen3_grammar_open((const char *)schema.data, schema.size, &g, &err), &err)) {
        demand(qwen3_matcher_open(g, byte_vocabulary(), &m, &err) == QWEN3_OK);
        follow(m, rest);
        qwen3_matcher_close(m);
    }
    qwen3_grammar_close(g);
    return 0;
}
