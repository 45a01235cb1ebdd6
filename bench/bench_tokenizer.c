/* bench_tokenizer.c - how fast a tokenizer is opened, and text becomes ids and ids text, on one core.
 *
 *   bench_tokenizer MODEL [FILE]...      MODEL: a directory with tokenizer.json, or that file; FILE: text to encode
 *
 * Behind the files come made-up texts that are bad for tokenizers: one character over and over, no spaces, characters
 * without order, bytes that are no text. The best of TURNS counts.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/random.h"
#include "qwen3.h"
#include "usage.h"

#define TURNS 5
#define TEXT_BYTES ((size_t)1 << 20)
#define FILE_BYTES ((size_t)64 << 20) /* that are read of a file */

static int end(const qwen3_error *err)
{
    fprintf(stderr, "%s\n", err->message);
    return EXIT_FAILURE;
}

static qwen3_status measure(const qwen3_tokenizer *t, const char *name, const char *text, size_t bytes,
                            qwen3_error *err)
{
    const qwen3_encode_args args = {.text = text, .length = bytes};
    double encode = INFINITY, decode = INFINITY;
    size_t n = 0, length = 0;
    for (int i = 0; i < TURNS; i++) {
        int32_t *ids;
        char *back;
        const double begin = seconds_now();
        if (qwen3_tokenizer_encode(t, &args, &ids, &n, err) != QWEN3_OK)
            return err->status;
        const double middle = seconds_now();
        qwen3_status status = qwen3_tokenizer_decode(t, ids, n, false, &back, &length, err);
        encode = fmin(encode, middle - begin);
        decode = fmin(decode, seconds_now() - middle);
        free(ids);
        if (status != QWEN3_OK)
            return status;
        free(back);
    }
    printf("%-32.32s %9zu bytes %9zu ids   encode %7.1f MB/s   decode %7.1f MB/s\n", name, bytes, n,
           (double)bytes / encode / 1e6, (double)length / decode / 1e6);
    return QWEN3_OK;
}

/* Characters of `alphabet` in any order; an empty one: any bytes. */
static void fill(char *text, const char *alphabet)
{
    const size_t n = strlen(alphabet);
    for (size_t i = 0; i < TEXT_BYTES; i++) {
        const uint64_t random = mix64(1 + i * GOLDEN_GAMMA);
        text[i] = n > 0 ? alphabet[random % n] : (char)(unsigned char)random;
    }
}

static const char usage[] = "Usage: bench_tokenizer MODEL [FILE]...\n\n"
                            "How fast a tokenizer is opened, and text becomes ids and ids text, on one core.\n\n"
                            "  MODEL   a directory with tokenizer.json, or that file\n"
                            "  FILE    text to encode; made-up texts that are bad for tokenizers follow\n";

int main(int argc, char **argv)
{
    static const char *const made[][2] = {
        {"a", "a"},           {"spaces", " "},           {"newlines", "\n"},
        {"digits", "7"},      {"bytes 0x80", "\x80"},    {"letters", "abcdefghijklmnopqrstuvwxyz"},
        {"white", " \t\n\r"}, {"signs", "!#$%&()*+,-/"}, {"any bytes", ""},
    };
    qwen3_tokenizer *t = NULL;
    qwen3_error err = {0};
    double open = INFINITY, first = 0;
    int status;
    if (usage_ends(argc, argv, usage, &status))
        return status;
    char *text = malloc(FILE_BYTES);
    if (argc < 2 || !text) {
        fputs(usage, stderr);
        return EXIT_FAILURE;
    }
    for (int i = 0; i < TURNS; i++) {
        qwen3_tokenizer_close(t);
        const double begin = seconds_now();
        if (qwen3_tokenizer_open(argv[1], &t, &err) != QWEN3_OK)
            return end(&err);
        open = fmin(open, seconds_now() - begin);
        first = i == 0 ? open : first;
    }
    printf("opened in %.1f ms, the first time in %.1f ms\n", 1e3 * open, 1e3 * first);
    for (int i = 2; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        const size_t bytes = file ? fread(text, 1, FILE_BYTES, file) : 0;
        if (file)
            fclose(file);
        if (bytes == 0)
            fprintf(stderr, "%s: nothing to read\n", argv[i]);
        else if (measure(t, argv[i], text, bytes, &err) != QWEN3_OK)
            return end(&err);
    }
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        fill(text, made[i][1]);
        if (measure(t, made[i][0], text, TEXT_BYTES, &err) != QWEN3_OK)
            return end(&err);
    }
    qwen3_tokenizer_close(t);
    free(text);
    return EXIT_SUCCESS;
}
