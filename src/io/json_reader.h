/* json_reader.h - the parts of a large JSON file that are read in place; the small ones go to Jansson.
 *
 * Building a tree of a published tokenizer.json, 750,000 values, takes longer than everything else that
 * opening it needs. */
#ifndef QWEN3_IO_JSON_READER_H
#define QWEN3_IO_JSON_READER_H

#include "base/status.h"

/* A stretch of the text of a file. Errors name the path, and the line counted from `text`. */
typedef struct json_reader {
    const char *path, *text;
    const char *at, *end;
} json_reader;

/* Skips white space; takes the character where it comes next. */
bool json_take(json_reader *r, char c);
/* Whether nothing but white space is left. */
bool json_at_end(json_reader *r);
/* QWEN3_ERR_FORMAT: `expected` was not found at the reader's place. */
qwen3_status json_expected(const json_reader *r, const char *expected, qwen3_error *err);
/* A string: *string [*n] lies in the text, or in buffer [room] where it has escapes, and longer ones are
 * refused. UTF-8 is not checked. */
qwen3_status json_take_string(json_reader *r, char *buffer, size_t room, const char **string, size_t *n,
                              qwen3_error *err);
/* An integer from 0 to 999,999,999. */
qwen3_status json_take_integer(json_reader *r, int32_t *value, qwen3_error *err);

/* What the members of an object are called, and where readers of their values go. */
typedef struct json_members {
    const char *where; /* goes before a name in messages: "model." */
    const char *const *names;
    size_t n;
    json_reader *values;              /* [n] */
    const struct json_members *inner; /* members of the value of names[inner_of], taken in passing; NULL = none */
    size_t inner_of;
} json_members;

/* Splits the object at the reader's place into its members: values[i] reads the value of names[i], and
 * its `text` is NULL where there is none. Brackets and strings of the values are matched, no more. Other
 * names and repeated ones are refused. */
qwen3_status json_take_members(json_reader *r, const json_members *m, qwen3_error *err);

#endif
