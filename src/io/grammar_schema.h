/* grammar_schema.h - schemas as JSON: where a fault is, references, and schemas that hold together. */
#ifndef QWEN3_IO_GRAMMAR_SCHEMA_H
#define QWEN3_IO_GRAMMAR_SCHEMA_H

#include "io/grammar.h"

/* A schema inside the whole one. */
typedef struct schema_place {
    const struct schema_place *up; /* NULL = the whole one */
    const char *key;               /* of the schema above; NULL = the index */
    size_t index;
    json_t *resource; /* what "#" means */
    int depth;
} schema_place;

typedef struct schema_work {
    qwen3_error *err;
    json_t *made;   /* array that owns schemas which were made of others */
    size_t visited; /* schemas and keywords, against those that grow without end */
} schema_work;

schema_place schema_below(const schema_place *up, const char *key, size_t index);
/* A message that begins with the JSON pointer of the place. */
qwen3_status schema_fail(schema_work *w, const schema_place *p, qwen3_status status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Counts n more; false where it is too much, or there was a fault before. */
bool schema_visit(schema_work *w, const schema_place *p, size_t n);
/* Whether the keyword means nothing. */
bool schema_is_annotation(const char *key);
/* What a reference of the schema is to; NULL after a fault. */
json_t *schema_target(schema_work *w, const schema_place *p, json_t *reference);
/* A schema that is met by what meets both, without $ref at its top; NULL after a fault. Owned by the work. */
json_t *schema_both(schema_work *w, const schema_place *p, json_t *one, json_t *other);
/* A copy without some keywords. Owned by the work. */
json_t *schema_without(schema_work *w, const schema_place *p, json_t *schema, const char *const *keys);
/* Whether no value meets both, as far as that is seen by types, constants and required properties. */
bool schema_exclude(schema_work *w, const schema_place *p, json_t *one, json_t *other);

/* Types as a set. A number may be an integer. */
enum {
    TYPE_NULL = 1,
    TYPE_BOOLEAN = 2,
    TYPE_OBJECT = 4,
    TYPE_ARRAY = 8,
    TYPE_STRING = 16,
    TYPE_INTEGER = 32,
    TYPE_NUMBER = 64 | TYPE_INTEGER,
    TYPE_ALL = 127,
};

/* Types that the schema allows; 0 after a fault. */
int schema_types(schema_work *w, const schema_place *p, const json_t *schema);
int schema_type_of(const json_t *value);

#endif
