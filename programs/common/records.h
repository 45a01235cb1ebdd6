/* records.h - results as text: a table says which members a record has, and every form is written from it.
 *
 * csv, json and jsonl carry raw numbers in base units, grids scaled ones. What does not apply, NAN or an empty text,
 * is empty in csv and null in json. */
#ifndef RECORDS_H
#define RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

#include "common/error.h"

/* Values of the repetitions of a measurement. */
typedef struct sample_list {
    double *values; /* [n] */
    size_t n;
} sample_list;

typedef struct field {
    const char *key;   /* NULL = only in grids */
    const char *title; /* where records are columns */
    size_t offset;     /* of a char[], double or sample_list */
    enum {
        TEXT,
        NUMBER,
        COUNTER, /* a number of little interest where it is 0 */
        SAMPLES  /* not in grids; in csv with spaces between */
    } type;
    const char *format; /* of the scaled number, with its unit; NULL = not in grids */
    double scale;
    const char *column; /* its heading where records are rows */
    unsigned rows;      /* bit of each layout of rows that has the column, and ALIGN_LEFT; 0 = none */
} field;

#define ALIGN_LEFT (1u << 31)

/* n records of `size` bytes, all with the same fields. */
typedef struct record_list {
    const field *fields;
    size_t n_fields;
    const void *records;
    size_t size, n;
} record_list;

/* All numbers NAN, all texts and lists empty. */
void record_clear(const field *fields, size_t n_fields, void *record, size_t size);

/* Rows x columns of cells; the first row is the heading. */
enum { CELL = 272 };
typedef struct grid {
    size_t rows, columns;
    uint64_t left; /* bit of each column that is aligned left */
    char (*cells)[CELL];
} grid;

static inline char *cell_at(const grid *g, size_t row, size_t column)
{
    return g->cells[row * g->columns + column];
}

/* One row per record, one column per field of the layout (one bit), if any record has something to say there. */
qwen3_status grid_rows(grid *g, const record_list *list, unsigned layout, qwen3_error *err);
/* One column per record, one row per field with a `format`. */
qwen3_status grid_columns(grid *g, const record_list *list, qwen3_error *err);
void grid_print(FILE *out, const grid *g, bool md);
void grid_free(grid *g);

void records_print_csv(FILE *out, const record_list *list);
/* An array of objects; NULL where memory is short. */
json_t *records_json(const record_list *list);
/* Writes a document, or each element of an array as a line of its own, and frees it; NULL is the error of memory. */
qwen3_status json_print(FILE *out, json_t *document, bool lines, qwen3_error *err);

#endif
