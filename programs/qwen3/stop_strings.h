/* stop_strings.h - holds text back as long as it may be the beginning of a stop string, so that no part of one is
 * shown, however tokens cut it. */
#ifndef STOP_STRINGS_H
#define STOP_STRINGS_H

#include "common/options.h"
#include "common/text_buffer.h"

typedef struct stop_strings {
    const text_list *strings;
    text_buffer held; /* text that was given and not yet released */
} stop_strings;

/* Takes text in; last: no more follows. The first *released bytes of held are no part of a stop string, whatever
 * follows; the caller drops them when they are used. *found: the index of the string that begins where they end, -1
 * where there is none. */
qwen3_status stop_strings_take(stop_strings *stop, const char *text, size_t n, bool last, size_t *released, int *found,
                               qwen3_error *err);

#endif
