/* gguf.h - models in the GGUF format, versions 2 and 3, little-endian: one file, or the parts of one that was split.
 * (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: header, keys and values, tensors, data) */
#ifndef QWEN3_IO_GGUF_H
#define QWEN3_IO_GGUF_H

#include <stdbool.h>

#include "base/status.h"
#include "io/gguf_types.h"

/* The file of a packed model (model/packed.h) that holds the keys and values of the GGUF file it was packed from. */
#define GGUF_METADATA_FILE "metadata.gguf"

/* By the numbers that files have. */
typedef enum gguf_kind {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_KINDS,
} gguf_kind;

/* In the mapping, without a NUL. */
typedef struct gguf_text {
    const char *data;
    size_t bytes;
} gguf_text;

/* A key and its value. Keys are printable ASCII, and printed with %.*s of at most GGUF_SHOWN bytes. */
typedef struct gguf_value {
    gguf_text key;
    gguf_kind kind; /* of an array: of its elements */
    bool array;
    uint64_t n;                /* elements; 1 where it is no array */
    const unsigned char *data; /* of the elements, one after the other; not aligned */
    size_t bytes;
} gguf_value;

enum { GGUF_SHOWN = 200, GGUF_DIMENSIONS = 4, GGUF_NAME_MAX = 64 };

typedef struct gguf_tensor {
    const char *path; /* of the file that holds it */
    char name[GGUF_NAME_MAX];
    const gguf_type *type;
    int n_dims;
    int64_t dims[GGUF_DIMENSIONS]; /* dims[0] values in a row; 1 from n_dims on */
    const unsigned char *data;     /* in the mapping; its alignment is that of the file, at least 8 */
    size_t bytes;
} gguf_tensor;

typedef struct gguf_file {
    char *path;
    void *map;
    size_t map_bytes, header_bytes; /* of the file, and of all before its data */
    gguf_value *values;             /* [n_values], sorted by key */
    size_t n_values;
    gguf_tensor *tensors; /* [n_tensors], in the order of their data */
    size_t n_tensors;
} gguf_file;

typedef struct gguf {
    gguf_file *files; /* [n_files]; the first one has the keys and values of the model */
    size_t n_files;
    const gguf_tensor **tensors; /* [n_tensors], of all files, sorted by name */
    size_t n_tensors;
} gguf;

/* Opens, maps and checks a file and, if it is the first part of several, the others: lengths, counts, kinds and types
 * are known and within the file; no key or tensor is there twice; tensors begin at multiples of the alignment, end
 * within the file and do not overlap; the parts are those that the first one names. A missing part is named. *g is
 * zeroed on failure. */
qwen3_status gguf_open(const char *path, gguf *g, qwen3_error *err);
/* Zeroed ones are allowed. */
void gguf_close(gguf *g);
/* NULL if there is none. */
const gguf_tensor *gguf_find_tensor(const gguf *g, const char *name);

/* ---- Opening one file (gguf_file.c) */
/* As gguf_open, of one file. *file is zeroed on failure. */
qwen3_status gguf_file_open(const char *path, gguf_file *file, qwen3_error *err);
void gguf_file_close(gguf_file *file);

/* ---- Values (gguf_values.c) */
/* The keys that begin with `prefix`. Names below are what follows it. */
typedef struct gguf_section {
    const gguf_file *file;
    const char *prefix; /* "qwen3." */
    qwen3_error *err;
} gguf_section;

/* NULL if there is no such key. */
const gguf_value *gguf_find(const gguf_section *s, const char *name);
/* A missing key, or a value of another kind, is an error that names it. Integers may have any integer kind, numbers
 * any kind of numbers. */
qwen3_status gguf_read_integer(const gguf_section *s, const char *name, int64_t *value);
qwen3_status gguf_read_number(const gguf_section *s, const char *name, double *value);
qwen3_status gguf_read_bool(const gguf_section *s, const char *name, bool *value);
qwen3_status gguf_read_text(const gguf_section *s, const char *name, gguf_text *value);
/* An array of such elements: GGUF_STRING, or GGUF_I32 (which may be U32 in the file). */
qwen3_status gguf_read_array(const gguf_section *s, const char *name, gguf_kind kind, const gguf_value **value);
bool gguf_text_is(gguf_text text, const char *expected);
/* The string at *at of an array, which *at then is behind. */
gguf_text gguf_next_text(const unsigned char **at);
/* Element i of an array of GGUF_I32. */
int32_t gguf_int32_at(const gguf_value *array, uint64_t i);

/* ---- A file without tensors (gguf_metadata.c) */
/* The bytes of a GGUF file with the keys and values of this one, but for split.*, and one more, which it does not have.
 * free() out->data. */
qwen3_status gguf_metadata(const gguf_file *file, const char *key, bool value, gguf_text *out, qwen3_error *err);

/* ---- Which file describes a model (gguf_values.c) */
/* Whether a path ends in ".gguf", in any case, and is not a directory. */
bool gguf_is_path(const char *spec);
/* The GGUF file with the keys and values of a model: spec itself, or the GGUF_METADATA_FILE of its directory; NULL
 * where it is not described by one. *path is the caller's, free() it. */
qwen3_status gguf_metadata_path(const char *spec, char **path, qwen3_error *err);

#endif
