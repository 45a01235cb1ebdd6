/* json_file.h - a JSON file read whole (Jansson; duplicate keys are refused). */
#ifndef QWEN3_IO_JSON_FILE_H
#define QWEN3_IO_JSON_FILE_H

#include <jansson.h>

#include "base/status.h"

/* What kind of fault Jansson met. Most places of it that run out of memory set no text. */
static inline qwen3_status json_fault_status(const json_error_t *fault)
{
    bool memory = json_error_code(fault) == json_error_out_of_memory || fault->text[0] == '\0';
    return memory ? QWEN3_ERR_MEMORY : QWEN3_ERR_FORMAT;
}

/* *root is owned by the caller (json_decref). The root must be an object. Errors name file and line. */
qwen3_status json_file_load(const char *path, json_t **root, qwen3_error *err);
/* The same from memory; `path` is for messages only. */
qwen3_status json_text_load(const char *path, const char *text, size_t length, json_t **root, qwen3_error *err);
/* The root may be any value; `flags` are added to those of Jansson's decoder. */
qwen3_status json_value_load(const char *path, const char *text, size_t length, size_t flags, json_t **root,
                             qwen3_error *err);

#endif
