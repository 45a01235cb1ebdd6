/* json_python.h - writes JSON as Python's json.dumps(value, ensure_ascii=False) does, the form that models saw in
 * training: ", " and ": " as separators, keys in their order, the fewest digits of a number. */
#ifndef QWEN3_IO_JSON_PYTHON_H
#define QWEN3_IO_JSON_PYTHON_H

#include <jansson.h>

typedef void (*json_python_sink)(void *to, const char *text, size_t length);

/* Calls `sink` with successive parts of the text. */
void json_python_write(const json_t *value, json_python_sink sink, void *to);

#endif
