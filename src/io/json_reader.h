/* json_reader.h - reads the large parts of a JSON file in place; small ones go to Jansson.
 *
 * Building a tree of a published tokenizer.json, 750,000 values, takes longer than all other work of opening it. */
#ifndef QWEN3_IO_JSON_READER_H
#define QWEN3_IO_JSON_READER_H

#include "base/status.h"

/* A place in a part of a file's text. Errors name the path, and the line counted from `text`. */
typedef struct json_reader {
    const char *path, *text;
    const char *at, *end;
} json_reader;

/* Skips white space; takes the next character if it is c. */
bool json_take(json_reader *r, char c);
/* Whether nothing but white space is left. */
bool json_at_end(json_reader *r);
/* Fails with QWEN3_ERR_FORMAT: `expected` was not found at the reader's place. */
qwen3_status json_expected(const json_reader *r, const char *expected, qwen3_error *err);
/* A string: *string [*n] is in the text, or in buffer [room] if it has escapes; one with escapes that does not fit is
 * refused. UTF-8 is not checked. */
qwen3_status json_take_string(json_reader *r, char *buffer, size_t room, const char **string, size_t *n,
                              qwen3_error *err);
/* An integer from 0 to 999,999,999. */
qwen3_status json_take_integer(json_reader *r, int32_t *value, qwen3_error *err);

/* The names of an object's members, and the readers of their values. */
typedef struct json_members {
    const char *where; /* put before a name in messages: "model." */
    const char *const *names;
    size_t n;
    json_reader *values;              /* [n] */
    const struct json_members *inner; /* members of the value of names[inner_of], split in the same pass; NULL = none */
    size_t inner_of;
} json_members;

/* Splits the object at the reader's place into its members: values[i] reads the value of names[i]; its `text` is NULL
 * if there is none. Of the values only brackets and strings are checked. Other names and repeated ones are refused. */
qwen3_status json_take_members(json_reader *r, const json_members *m, qwen3_error *err);

#endif
