/* options.h - command lines: a table of options, each with its range, parsed by popt.
 *
 * Values are checked here and nowhere else. Every error names the option, the value given and what is accepted. Every
 * table has --help and --version. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdio.h>

#include "qwen3.h"

typedef enum option_kind {
    OPTION_FLAG,      /* bool, becomes true */
    OPTION_INT,       /* int within [min, max] */
    OPTION_INT64,     /* int64_t within [min, max] */
    OPTION_UINT64,    /* uint64_t */
    OPTION_DOUBLE,    /* double within [least, most] */
    OPTION_TEXT,      /* char *, not empty, freed by options_free */
    OPTION_TEXTS,     /* text_list; may be repeated, and adds; freed by options_free */
    OPTION_CHOICE,    /* int, index of the name in `choices` */
    OPTION_STRATEGY,  /* qwen3_parallel_strategy */
    OPTION_ALGORITHM, /* qwen3_attention_algorithm */
    OPTION_DTYPE,     /* qwen3_dtype */
    OPTION_KV_DTYPE,  /* qwen3_dtype of keys and values, or AUTO */
    OPTION_ISA,       /* qwen3_isa */
    OPTION_GRID,      /* int[2], "SxH" */
    OPTION_INTS,      /* int_list, "N,N,..." within [min, max]; may be repeated, and adds */
    OPTION_OPERAND,   /* char *, as OPTION_TEXT: the one argument without dashes, shown by its name in --help */
    OPTION_PAIRS,     /* int_list of pairs, "N,N" within [min, max]; may be repeated, and adds */
} option_kind;

enum { MAX_INTS = 64 };

typedef struct int_list {
    size_t n;
    int values[MAX_INTS];
} int_list;

enum { MAX_TEXTS = 256 };

typedef struct text_list {
    size_t n;
    char *texts[MAX_TEXTS]; /* not empty */
} text_list;

typedef struct option {
    const char *name; /* without the dashes */
    char short_name;  /* "-p"; 0 = none */
    bool one_dash;    /* "-name" is accepted too */
    option_kind kind;
    void *value; /* the destination; holds the default before parsing */
    const char *help;
    const char *argument; /* name of the value in --help; NULL = by kind */
    const char *choices;  /* of OPTION_CHOICE: "table|md|csv" */
    bool list;            /* the value is an int_list; the text has one or more, with commas between, and replaces */
    int64_t min, max;     /* of integers */
    double least, most;   /* of OPTION_DOUBLE */
    bool utf8;            /* of texts: it must be well-formed UTF-8 */
    bool given;           /* output: it was on the command line */
} option;

typedef struct command_line {
    const char *name;    /* as the user calls it: "qwen3 logits" */
    const char *summary; /* one line for --help */
    option *options;
    size_t n_options;
    int argc;
    const char **argv; /* argv[0] is skipped */
} command_line;

enum { MAX_OPTIONS = 56 };

/* A table that is put together from several. */
typedef struct option_table {
    size_t n;
    option options[MAX_OPTIONS];
} option_table;

/* Appends n options, for which there must be room. */
void option_table_add(option_table *table, size_t n, const option *options);

/* Sets the values. --help and --version print to `print_to` (NULL = another rank prints) and set *finished. On failure
 * some values may have been set. options_free must follow, also on failure. */
qwen3_status options_parse(const command_line *line, FILE *print_to, bool *finished, qwen3_error *err);
void options_free(option *options, size_t n);
/* Sets one option from `text`. */
qwen3_status option_take(option *o, const char *text, qwen3_error *err);

/* Whether the option, which must be in the table, was given. */
bool option_given(const command_line *line, const char *name);

#endif
