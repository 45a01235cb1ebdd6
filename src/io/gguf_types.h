/* gguf_types.h - the types in which a GGUF file stores values. */
#ifndef QWEN3_IO_GGUF_TYPES_H
#define QWEN3_IO_GGUF_TYPES_H

#include <stddef.h>
#include <stdint.h>

enum { GGUF_LONGEST_BLOCK = 256 };

/* A row is a sequence of blocks of `block` values in `bytes` bytes. */
typedef struct gguf_type {
    const char *name;
    int block, bytes;
    /* Writes n blocks as f32: the values that the format defines, to the last bit. NULL: F32 and BF16, which are used
     * as they lie. */
    void (*expand)(const unsigned char *blocks, size_t n, float *values);
} gguf_type;

/* NULL: a type that is not read. */
const gguf_type *gguf_type_of(uint32_t id);
/* "Q4_K" or, where even the name is unknown, "type". */
const char *gguf_type_name(uint32_t id);

#endif
