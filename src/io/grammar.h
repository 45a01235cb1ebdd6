/* grammar.h - the inside of a compiled schema: a pushdown automaton over bytes.
 *
 * Its nodes are the program of a machine in the manner of Thompson (1968) whose threads have a stack: byte nodes read,
 * the others say where to go on without reading. A rule is code that ends in a return node; a call pushes a frame. A
 * repetition is a call whose frame counts, so bounds cost no nodes. Values are compiled from their end to their
 * beginning: each function takes the node that follows, and returns the first one of what it made. */
#ifndef QWEN3_IO_GRAMMAR_H
#define QWEN3_IO_GRAMMAR_H

#include <jansson.h>

#include "base/status.h"
#include "qwen3_grammar.h"

enum {
    GRAMMAR_NODES = 1 << 17,   /* most of a grammar */
    GRAMMAR_DEPTH = 192,       /* most frames of a text */
    GRAMMAR_COUNT = 1 << 20,   /* most of a bounded repetition */
    GRAMMAR_CHOICES = 2000,    /* most values of an enum, properties of an object */
    GRAMMAR_NESTED = 128,      /* most levels of a schema and of a pattern */
    GRAMMAR_NO_LIMIT = -1,     /* of a repetition */
    GRAMMAR_NEVER = INT32_MAX, /* grammar_node.need: no text leads to an end */
};

typedef enum grammar_op {
    GRAMMAR_DEAD = 0, /* nothing follows */
    GRAMMAR_BYTE,     /* reads a byte of the class `what`, then `next` */
    GRAMMAR_SPLIT,    /* `next` or `what` */
    GRAMMAR_CALL,     /* the rule `what`, then `next` */
    GRAMMAR_REPEAT,   /* the rule `what`, least to most times, then `next` */
    GRAMMAR_RETURN,
} grammar_op;

typedef struct grammar_node {
    grammar_op op;
    int32_t what, next;
    int32_t least, most; /* most GRAMMAR_NO_LIMIT: as often as it likes */
    int32_t need;        /* frames that the shortest way to the end of the rule pushes at once */
} grammar_node;

typedef struct grammar_class {
    uint64_t bits[4]; /* of byte b: bit b % 64 of bits[b / 64] */
} grammar_class;

struct qwen3_grammar {
    grammar_node *nodes; /* [n_nodes]; node 0 is dead, node 1 returns */
    int32_t n_nodes, room_nodes;
    grammar_class *classes; /* [n_classes] */
    int32_t n_classes, room_classes;
    int32_t *rules; /* [n_rules] first nodes */
    int32_t n_rules, room_rules;
    int32_t start;
};

enum { NODE_DEAD = 0, NODE_RETURN = 1 };

static inline bool grammar_class_has(const grammar_class *c, unsigned char byte)
{
    return c->bits[byte / 64] >> byte % 64 & 1;
}

/* ---- grammar_build.c: the first fault is kept in b->err, and after it nodes are dead */
typedef struct grammar_builder {
    qwen3_grammar *g;
    qwen3_error *err;
    int32_t char_rule, space_rule; /* a character of a string; white space of an indentation; -1 = not made yet */
} grammar_builder;

int32_t build_class(grammar_builder *b, const grammar_class *c, int32_t next);
int32_t build_range(grammar_builder *b, unsigned char low, unsigned char high, int32_t next);
int32_t build_text(grammar_builder *b, const char *text, size_t n, int32_t next);
int32_t build_split(grammar_builder *b, int32_t one, int32_t other);
/* A rule without code; build_rule_body gives it. */
int32_t build_rule(grammar_builder *b);
void build_rule_body(grammar_builder *b, int32_t rule, int32_t start);
int32_t build_call(grammar_builder *b, int32_t rule, int32_t next);
int32_t build_repeat(grammar_builder *b, int32_t rule, int64_t least, int64_t most, int32_t next);
/* Nothing, a space, or a line break and an indentation. */
int32_t build_space(grammar_builder *b, int32_t next);
/* Code points low to high in UTF-8, without surrogates. */
int32_t build_code_points(grammar_builder *b, int32_t low, int32_t high, int32_t next);
/* A code point of a string in its one spelling; NODE_DEAD where it has none. */
int32_t build_spelled(grammar_builder *b, int32_t code_point, int32_t next);
/* A string with its quotes in its one spelling; UTF-8. */
int32_t build_string(grammar_builder *b, const char *text, size_t n, int32_t next);
/* So many characters of any string, in any spelling. */
int32_t build_characters(grammar_builder *b, int64_t least, int64_t most, int32_t next);

/* ---- grammar_number.c */
typedef struct number_bounds {
    double low, high;  /* infinite = none */
    bool above, below; /* low and high themselves are excluded */
} number_bounds;

int32_t build_integer(grammar_builder *b, const number_bounds *bounds, int32_t next);
int32_t build_number(grammar_builder *b, const number_bounds *bounds, int32_t next);

/* ---- grammar_pattern.c */
typedef struct pattern_lengths {
    int64_t least, most; /* code points; most GRAMMAR_NO_LIMIT */
} pattern_lengths;

/* The characters between the quotes, of strings in which the pattern is found. Faults begin with `where`. */
int32_t build_pattern(grammar_builder *b, const char *pattern, const char *where, pattern_lengths *lengths,
                      int32_t next);

/* ---- grammar_formats.c: a pattern of the strings of a format; NULL = it is not known */
const char *format_pattern(const char *format);

/* ---- grammar_schema.c */
/* Returns the first node of the values of the schema. */
int32_t build_schema(grammar_builder *b, json_t *schema, int32_t next);

#endif
