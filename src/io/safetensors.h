/* safetensors.h - one file in the safetensors format, mapped and checked.
 * (https://github.com/huggingface/safetensors, "Format": u64 header length, JSON header, data) */
#ifndef QWEN3_IO_SAFETENSORS_H
#define QWEN3_IO_SAFETENSORS_H

#include "base/status.h"

typedef enum stored_type { STORED_BF16, STORED_F16, STORED_F32, STORED_F8 } stored_type; /* F8: E4M3 */

size_t stored_type_size(stored_type type);

typedef struct stored_tensor {
    char *name;
    stored_type type; /* meaningless if not supported */
    bool supported;
    char type_name[8]; /* as in the file, at most 7 characters */
    int rank;          /* number of dimensions; may exceed what shape holds */
    int64_t shape[4];
    const void *data; /* in the mapping; row-major; not aligned */
    size_t bytes;
} stored_tensor;

typedef struct safetensors {
    char *path;
    void *map;
    size_t map_bytes, header_bytes; /* of the file, and of its length and header */
    stored_tensor *tensors;
    size_t n_tensors;
    struct json_t *metadata; /* object of strings, or NULL */
} safetensors;

/* Opens, maps and checks a file: the header is within it and is valid JSON without duplicate names; offsets are within
 * the data, without overlap or holes; sizes match shape and type (if the format defines the type). Tensors are in the
 * order of their data. *file is zeroed on failure. */
qwen3_status safetensors_open(const char *path, safetensors *file, qwen3_error *err);
void safetensors_close(safetensors *file);
/* A string of the file's metadata, "" if there is none. */
const char *safetensors_metadata(const safetensors *file, const char *key);

#endif
