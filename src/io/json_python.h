/* json_python.h - writes JSON as Python does, the form that models saw in training: ", " and ": " as separators, keys
 * in their order, the fewest digits of a number. */
#ifndef QWEN3_IO_JSON_PYTHON_H
#define QWEN3_IO_JSON_PYTHON_H

#include <jansson.h>

typedef void (*json_python_sink)(void *to, const char *text, size_t length);

/* Calls `sink` with successive parts of json.dumps(value, ensure_ascii=False). */
void json_python_write(const json_t *value, json_python_sink sink, void *to);
/* The same of str(value): a string is itself, and True, None, ['a', 1] are written as Python's literals. */
void json_python_write_str(const json_t *value, json_python_sink sink, void *to);

#endif
