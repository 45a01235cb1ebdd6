/* utf8.h - text that users give and paths, which need not be UTF-8. */
#ifndef COMMON_UTF8_H
#define COMMON_UTF8_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* Whether the n bytes are well-formed UTF-8. */
bool is_utf8(const char *text, size_t n);

/* A JSON string of a path, or of what else need not be UTF-8: then bytes from 0x80 on are written as \xNN. NULL: out of
 * memory. */
json_t *json_of_path(const char *path);

#endif
