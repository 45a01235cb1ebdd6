/* test_stop_strings.c - text in pieces against a search in the whole text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "qwen3/stop_strings.h"

enum { CASES = 20000, LONGEST = 40, MOST_STRINGS = 3, LONGEST_STRING = 5 };

static unsigned state = 20240917;

static size_t draw(size_t n)
{
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % n;
}

/* Few different characters, so that strings overlap and begin again within themselves. */
static void draw_text(char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        text[i] = (char)('a' + draw(2));
    text[n] = '\0';
}

/* The place of the first string in the text, its length where there is none. */
static size_t first_place(const char *text, const text_list *strings)
{
    size_t place = strlen(text);
    for (size_t i = 0; i < strings->n; i++) {
        const char *found = strstr(text, strings->texts[i]);
        if (found && (size_t)(found - text) < place)
            place = (size_t)(found - text);
    }
    return place;
}

static int begins_one(const text_buffer *held, const text_list *strings)
{
    for (size_t i = 0; i < strings->n; i++)
        if (held->n < strlen(strings->texts[i]) && memcmp(held->data, strings->texts[i], held->n) == 0)
            return 1;
    return held->n == 0;
}

/* Gives the text in pieces and collects what is released; true where a string was found. */
static int stream(const char *text, const text_list *strings, text_buffer *shown)
{
    stop_strings stop = {.strings = strings};
    qwen3_error err = {0};
    int found = -1;
    for (size_t at = 0, n = strlen(text), last = 0; found < 0 && !last;) {
        size_t piece = draw(4), released;
        piece = piece < n - at ? piece : n - at;
        last = at + piece == n && draw(2);
        assert_int_equal(stop_strings_take(&stop, text + at, piece, last, &released, &found, &err), QWEN3_OK);
        text_append(shown, released ? stop.held.data : "", released, &err);
        text_drop(&stop.held, released);
        assert_true(found >= 0 || begins_one(&stop.held, strings)); /* nothing is held longer than it must be */
        assert_true(found >= 0 || !last || stop.held.n == 0);
        at += piece;
    }
    if (found >= 0)
        assert_int_equal(strncmp(stop.held.data, strings->texts[found], strlen(strings->texts[found])), 0);
    text_free(&stop.held);
    return found >= 0;
}

static void test_pieces(void **unused)
{
    char texts[MOST_STRINGS][LONGEST_STRING + 1], text[LONGEST + 1];
    int with = 0;
    (void)unused;
    printf("seed %u\n", state);
    for (int i = 0; i < CASES; i++) {
        text_list strings = {.n = draw(MOST_STRINGS + 1)};
        text_buffer shown = {0};
        qwen3_error err = {0};
        for (size_t k = 0; k < strings.n; k++) {
            draw_text(texts[k], 1 + draw(LONGEST_STRING));
            strings.texts[k] = texts[k];
        }
        draw_text(text, draw(LONGEST + 1));
        text_append(&shown, "", 0, &err);
        size_t place = first_place(text, &strings);
        int found = stream(text, &strings, &shown);
        assert_int_equal(found, place < strlen(text));
        assert_int_equal(shown.n, place);
        assert_memory_equal(shown.data, text, place);
        text_free(&shown);
        with += found;
    }
    assert_in_range(with, CASES / 4, 3 * CASES / 4 + CASES / 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pieces)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
