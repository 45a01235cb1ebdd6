/* stop_strings.h - finds stop strings in text that comes token by token. Text that may be the beginning of one is held
 * back, so no part of a stop string is shown. */
#ifndef STOP_STRINGS_H
#define STOP_STRINGS_H

#include "common/options.h"
#include "common/text_buffer.h"

typedef struct stop_strings {
    const text_list *strings;
    text_buffer held; /* text that was taken and not yet released */
} stop_strings;

/* Takes text; last: no more follows. The first *released bytes of `held` are no part of a stop string, whatever
 * follows; the caller uses and then drops them. *found: the index of the stop string that begins after them, -1 if
 * there is none. */
qwen3_status stop_strings_take(stop_strings *stop, const char *text, size_t n, bool last, size_t *released, int *found,
                               qwen3_error *err);

#endif
