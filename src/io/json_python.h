/* json_python.h - JSON as Python's json.dumps(value, ensure_ascii=False) writes it, which is what chat templates
 * were trained with: ", " and ": " between, keys in their order, the shortest digits of a number. */
#ifndef QWEN3_IO_JSON_PYTHON_H
#define QWEN3_IO_JSON_PYTHON_H

#include <jansson.h>

typedef void (*json_python_sink)(void *to, const char *text, size_t length);

/* Hands the text to `sink` in pieces. */
void json_python_write(const json_t *value, json_python_sink sink, void *to);

#endif
