/* stop_strings.c - see stop_strings.h. */
#include "stop_strings.h"

#include <string.h>

/* Whether the string is at `at`, or a beginning of it that reaches the end of the text. */
static bool matches(const text_buffer *text, size_t at, const char *string, bool *whole)
{
    size_t length = strlen(string), there = text->n - at;
    *whole = there >= length;
    return memcmp(text->data + at, string, *whole ? length : there) == 0;
}

/* The string that begins first is found; of several at one place, the one that was given first. So an incomplete string
 * delays a complete one only if it begins earlier. */
qwen3_status stop_strings_take(stop_strings *stop, const char *text, size_t n, bool last, size_t *released, int *found,
                               qwen3_error *err)
{
    qwen3_status status = text_append(&stop->held, text, n, err);
    *found = -1;
    *released = 0;
    if (status != QWEN3_OK)
        return status;
    for (; *released < stop->held.n; ++*released) {
        bool begins = false;
        for (size_t i = 0; i < stop->strings->n; i++) {
            bool whole;
            if (!matches(&stop->held, *released, stop->strings->texts[i], &whole))
                continue;
            if (whole) {
                *found = (int)i;
                return QWEN3_OK;
            }
            begins = !last;
        }
        if (begins)
            return QWEN3_OK;
    }
    return QWEN3_OK;
}
