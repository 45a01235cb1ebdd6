/* tiny_tokenizer.h - a tokenizer.json in the published layout that tests make for themselves: a token for each
 * byte (ids 0 to 255), one for each merge, and added tokens. */
#ifndef TESTS_TINY_TOKENIZER_H
#define TESTS_TINY_TOKENIZER_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

/* Merges in ASCII; '_' stands for the space of a token. Overlapping ones, chains, and a rank order in which
 * the longest token is not always found. */
static const char *const tiny_merges[][2] = {
    {"_", "t"}, {"h", "e"},   {"_t", "he"},   {"i", "n"},  {"a", "a"},  {"aa", "aa"},   {"aa", "a"},
    {"r", "e"}, {"in", "g"},  {"a", "b"},     {"ab", "a"}, {"b", "a"},  {"ba", "b"},    {"_", "_"},
    {"'", "s"}, {"ab", "ab"}, {"ab", "aaaa"}, {"-", "-"},  {"--", "-"}, {"_the", "re"},
};
enum { TINY_MERGES = sizeof tiny_merges / sizeof *tiny_merges, TINY_TOKENS = 256 + TINY_MERGES };

static const struct {
    const char *content;
    int special;
} tiny_added[] = {{"<|end|>", 1}, {"<|end", 0}, {"<think>", 0}, {"<|start|>", 1}};
enum { TINY_ADDED = sizeof tiny_added / sizeof *tiny_added };

/* The character that stands for a byte in byte-level vocabularies, with a zero behind it. */
static inline const char *tiny_alphabet(int byte, char *out)
{
    int code_point = byte;
    if (byte < '!' || (byte > '~' && byte < 0xA1) || byte == 0xAD) {
        code_point = 0x100;
        for (int b = 0; b < byte; b++)
            code_point += b < '!' || (b > '~' && b < 0xA1) || b == 0xAD;
    }
    size_t n = 0;
    if (code_point >= 0x80)
        out[n++] = (char)(0xC0 | code_point >> 6);
    out[n++] = (char)(code_point < 0x80 ? code_point : 0x80 | (code_point & 63));
    out[n] = '\0';
    return out;
}

static inline void tiny_symbol(const char *ascii, char *out)
{
    char one[4];
    out[0] = '\0';
    for (; *ascii; ascii++)
        strcat(out, *ascii == '_' ? tiny_alphabet(' ', one) : tiny_alphabet((unsigned char)*ascii, one));
}

/* To be changed by the test and given back with json_decref. */
static inline json_t *tiny_tokenizer(void)
{
    json_t *vocab = json_object(), *merges = json_array(), *added = json_array();
    char left[64], right[64], both[128];
    for (int b = 0; b < 256; b++)
        json_object_set_new(vocab, tiny_alphabet(b, left), json_integer(b));
    for (int i = 0; i < TINY_MERGES; i++) {
        tiny_symbol(tiny_merges[i][0], left);
        tiny_symbol(tiny_merges[i][1], right);
        strcat(strcpy(both, left), right);
        json_object_set_new(vocab, both, json_integer(256 + i));
        json_array_append_new(merges, json_pack("[ss]", left, right));
    }
    for (int i = 0; i < TINY_ADDED; i++)
        json_array_append_new(added, json_pack("{si,ss,sb,sb,sb,sb,sb}", "id", TINY_TOKENS + i, "content",
                                               tiny_added[i].content, "single_word", 0, "lstrip", 0, "rstrip", 0,
                                               "normalized", 0, "special", tiny_added[i].special));
    static const char pattern[] =
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+"
        "[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    json_t *split = json_pack("{ss,s{ss},ss,sb}", "type", "Split", "pattern", "Regex", pattern, "behavior", "Isolated",
                              "invert", 0);
    json_t *bytes =
        json_pack("{ss,sb,sb,sb}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 0, "use_regex", 0);
    return json_pack("{ss,sn,sn,so,s{ss},s{ss,s[oO]},sO,so,s{ss,sn,sn,ss,ss,sb,sb,sb,so,so}}", "version", "1.0",
                     "truncation", "padding", "added_tokens", added, "normalizer", "type", "NFC", "pre_tokenizer",
                     "type", "Sequence", "pretokenizers", split, bytes, "post_processor", bytes, "decoder", bytes,
                     "model", "type", "BPE", "dropout", "unk_token", "continuing_subword_prefix", "",
                     "end_of_word_suffix", "", "fuse_unk", 0, "byte_fallback", 0, "ignore_merges", 0, "vocab", vocab,
                     "merges", merges);
}

#endif
