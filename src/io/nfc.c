/* nfc.c - see nfc.h. Most text is already in form C: it is scanned and not copied. Otherwise only parts are normalised:
 * from the last starter before a character that may change to the next character that cannot. */
#include "io/nfc.h"

#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

/* Below this, no character combines with the one before it, and each is its own form C. */
#define FIRST_COMBINING 0x300
/* Runs of marks up to this length are sorted by insertion. */
#define SHORT_RUN 16

static bool jamo_vowel_or_tail(int32_t c)
{
    return (c >= 0x1161 && c <= 0x1175) || (c >= 0x11A8 && c <= 0x11C2);
}

/* A sufficient test for a starter that is its own form C and never changes with the text before it. utf8proc numbers
 * the second characters of compositions from 0x8000. */
static bool is_stable(int32_t c)
{
    if (c < FIRST_COMBINING)
        return true;
    const utf8proc_property_t *p = utf8proc_get_property(c);
    bool second = p->comb_index != UINT16_MAX && p->comb_index >= 0x8000;
    bool decomposes = p->decomp_seqindex != UINT16_MAX && p->decomp_type == 0;
    return p->combining_class == 0 && !second && !decomposes && !jamo_vowel_or_tail(c);
}

/* Number of leading ASCII bytes. */
static size_t ascii_run(const unsigned char *text, size_t bytes)
{
    size_t at = 0;
    for (uint64_t word; at + sizeof word <= bytes; at += sizeof word) {
        memcpy(&word, text + at, sizeof word);
        if (word & UINT64_C(0x8080808080808080))
            break;
    }
    while (at < bytes && text[at] < 0x80)
        at++;
    return at;
}

/* Where the first character begins that is not stable or not well-formed. *starter = where the character
 * before it begins. */
static size_t stable_run(const unsigned char *text, size_t bytes, size_t *starter)
{
    size_t at = 0, length;
    *starter = 0;
    while (at < bytes) {
        size_t ascii = ascii_run(text + at, bytes - at);
        if (ascii) {
            at += ascii;
            *starter = at - 1;
            continue;
        }
        int32_t c = utf8_decode(text + at, bytes - at, &length);
        if (c < 0 || !is_stable(c))
            break;
        *starter = at;
        at += length;
    }
    return at;
}

static qwen3_status add_decomposed(nfc_work *work, int32_t code_point, qwen3_error *err)
{
    enum { LONGEST = 8 }; /* canonical decompositions have at most 4 characters */
    int boundary = 0;
    if (work->room - work->n < LONGEST) {
        size_t room = work->room ? 2 * work->room : 64;
        int32_t *points = realloc(work->points, room * sizeof *points);
        if (points)
            work->points = points;
        int32_t *sorted = realloc(work->sorted, room * sizeof *sorted);
        if (sorted)
            work->sorted = sorted;
        if (!points || !sorted)
            return fail(err, QWEN3_ERR_MEMORY, "text: cannot allocate %zu code points", room);
        work->room = room;
    }
    work->n +=
        (size_t)utf8proc_decompose_char(code_point, work->points + work->n, LONGEST, UTF8PROC_DECOMPOSE, &boundary);
    return QWEN3_OK;
}

/* Stable sort of points [n] by combining class, none of which is 0. */
static void sort_marks(int32_t *points, int32_t *sorted, size_t n)
{
    if (n <= SHORT_RUN) {
        for (size_t i = 1; i < n; i++) {
            int32_t c = points[i];
            size_t j = i;
            for (; j > 0 &&
                   utf8proc_get_property(points[j - 1])->combining_class > utf8proc_get_property(c)->combining_class;
                 j--)
                points[j] = points[j - 1];
            points[j] = c;
        }
        return;
    }
    size_t places[256] = {0}, place = 0;
    for (size_t i = 0; i < n; i++)
        places[utf8proc_get_property(points[i])->combining_class & 255]++;
    for (size_t k = 0; k < 256; k++) {
        size_t count = places[k];
        places[k] = place;
        place += count;
    }
    for (size_t i = 0; i < n; i++)
        sorted[places[utf8proc_get_property(points[i])->combining_class & 255]++] = points[i];
    memcpy(points, sorted, n * sizeof *points);
}

/* Canonical order: each run of non-starters by combining class. */
static void reorder(nfc_work *work)
{
    for (size_t begin = 0; begin < work->n;) {
        size_t end = begin;
        while (end < work->n && utf8proc_get_property(work->points[end])->combining_class != 0)
            end++;
        sort_marks(work->points + begin, work->sorted, end - begin);
        begin = end + 1;
    }
}

/* Normalises from text[0] up to the next stable character after the first one; *used bytes. */
static qwen3_status normalise_stretch(nfc_work *work, const unsigned char *text, size_t bytes, size_t *used,
                                      qwen3_error *err)
{
    size_t at = 0, length;
    qwen3_status status = QWEN3_OK;
    work->n = 0;
    do {
        int32_t c = utf8_decode(text + at, bytes - at, &length);
        if (c >= 0 && at > 0 && is_stable(c))
            break;
        status = add_decomposed(work, c < 0 ? UTF8_REPLACEMENT : c, err);
        at += length;
    } while (at < bytes && status == QWEN3_OK);
    *used = at;
    if (status)
        return status;
    reorder(work);
    utf8proc_ssize_t n =
        utf8proc_normalize_utf32(work->points, (utf8proc_ssize_t)work->n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    status = text_buffer_reserve(&work->text, 4 * (size_t)n, err);
    for (utf8proc_ssize_t i = 0; i < n && status == QWEN3_OK; i++)
        work->text.n += utf8_encode(work->points[i], work->text.data + work->text.n);
    return status;
}

qwen3_status nfc_normalise(nfc_work *work, const unsigned char *text, size_t bytes, const unsigned char **out,
                           size_t *out_bytes, qwen3_error *err)
{
    size_t starter, run = stable_run(text, bytes, &starter), at = 0;
    *out = text;
    *out_bytes = bytes;
    if (run == bytes)
        return QWEN3_OK;
    work->text.n = 0;
    qwen3_status status = text_buffer_reserve(&work->text, bytes + bytes / 8, err);
    while (status == QWEN3_OK && at < bytes) {
        size_t used = 0;
        run = stable_run(text + at, bytes - at, &starter);
        if (run == bytes - at) {
            status = text_buffer_append(&work->text, text + at, run, err);
            break;
        }
        status = text_buffer_append(&work->text, text + at, starter, err);
        at += starter;
        if (status == QWEN3_OK)
            status = normalise_stretch(work, text + at, bytes - at, &used, err);
        at += used;
    }
    *out = work->text.data;
    *out_bytes = work->text.n;
    return status;
}

void nfc_work_free(nfc_work *work)
{
    text_buffer_free(&work->text);
    free(work->points);
    free(work->sorted);
    *work = (nfc_work){0};
}
