/* records.c - see records.h. */
#include "common/records.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/program.h"
#include "common/utf8.h"

static const void *record_at(const record_list *list, size_t r)
{
    return (const char *)list->records + r * list->size;
}

static const char *text_of(const void *record, const field *f)
{
    return (const char *)record + f->offset;
}

static double number_of(const void *record, const field *f)
{
    return *(const double *)(const void *)((const char *)record + f->offset);
}

static const sample_list *samples_of(const void *record, const field *f)
{
    return (const sample_list *)(const void *)((const char *)record + f->offset);
}

static bool absent(const void *record, const field *f)
{
    if (f->type == SAMPLES)
        return !samples_of(record, f)->n;
    return f->type == TEXT ? !*text_of(record, f) : isnan(number_of(record, f));
}

void record_clear(const field *fields, size_t n_fields, void *record, size_t size)
{
    memset(record, 0, size);
    for (size_t i = 0; i < n_fields; i++)
        if (fields[i].type == NUMBER || fields[i].type == COUNTER)
            *(double *)(void *)((char *)record + fields[i].offset) = NAN;
}

/* ---- For people -------------------------------------------------------------------------------- */

/* The value as people read it, "" where absent; `unit` false leaves away what follows the number. */
static void format_value(const void *record, const field *f, bool unit, char *cell, size_t size)
{
    cell[0] = '\0';
    if (absent(record, f))
        return;
    if (f->type == TEXT) {
        snprintf(cell, size, "%s", text_of(record, f));
        return;
    }
    snprintf(cell, size, f->format, number_of(record, f) * f->scale);
    if (!unit)
        cell[strcspn(cell, " ")] = '\0';
}

/* No record has something to say here: no value, or a kind of communication that did not happen. */
static bool silent(const record_list *list, const field *f)
{
    for (size_t r = 0; r < list->n; r++) {
        const void *record = record_at(list, r);
        if (!absent(record, f) && !(f->type == COUNTER && number_of(record, f) == 0))
            return false;
    }
    return true;
}

static qwen3_status grid_allocate(grid *g, size_t cells, qwen3_error *err)
{
    *g = (grid){.cells = allocate(cells, CELL, "table", err)};
    return g->cells ? QWEN3_OK : err->status;
}

qwen3_status grid_rows(grid *g, const record_list *list, unsigned layout, qwen3_error *err)
{
    if (grid_allocate(g, (list->n + 1) * list->n_fields, err) != QWEN3_OK)
        return err->status;
    g->rows = list->n + 1;
    for (size_t i = 0; i < list->n_fields; i++)
        g->columns += (list->fields[i].rows & layout) && !silent(list, &list->fields[i]);
    size_t column = 0;
    for (size_t i = 0; i < list->n_fields; i++) {
        const field *f = &list->fields[i];
        if (!(f->rows & layout) || silent(list, f))
            continue;
        if (f->rows & ALIGN_LEFT)
            g->left |= (uint64_t)1 << column;
        snprintf(cell_at(g, 0, column), CELL, "%s", f->column);
        for (size_t r = 0; r < list->n; r++)
            format_value(record_at(list, r), f, false, cell_at(g, r + 1, column), CELL);
        column++;
    }
    return QWEN3_OK;
}

qwen3_status grid_columns(grid *g, const record_list *list, qwen3_error *err)
{
    if (grid_allocate(g, (list->n + 1) * (list->n_fields + 1), err) != QWEN3_OK)
        return err->status;
    g->rows = 1;
    g->columns = list->n + 1;
    snprintf(cell_at(g, 0, 0), CELL, "result");
    for (size_t r = 0; r < list->n; r++)
        snprintf(cell_at(g, 0, r + 1), CELL, list->n > 1 ? "%zu" : "value", r + 1);
    for (size_t i = 0; i < list->n_fields; i++) {
        const field *f = &list->fields[i];
        if (!f->format || silent(list, f))
            continue;
        snprintf(cell_at(g, g->rows, 0), CELL, "%s", f->title);
        for (size_t r = 0; r < list->n; r++)
            format_value(record_at(list, r), f, true, cell_at(g, g->rows, r + 1), CELL);
        g->rows++;
    }
    g->left = 1;
    return QWEN3_OK;
}

/* Characters of UTF-8: all bytes but those that continue one. */
static int characters(const char *text)
{
    int n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

void grid_print(FILE *out, const grid *g, bool md)
{
    const char *edge = md ? "| " : "", *between = md ? " | " : "  ", *end = md ? " |\n" : "\n";
    for (size_t row = 0; row < g->rows; row++) {
        fputs(edge, out);
        for (size_t column = 0; column < g->columns; column++) {
            const char *cell = cell_at(g, row, column);
            int width = 0;
            for (size_t r = 0; r < g->rows; r++) {
                int length = characters(cell_at(g, r, column));
                width = length > width ? length : width;
            }
            int gap = width - characters(cell);
            bool left = g->left >> column & 1;
            fprintf(out, "%s%*s%s%*s", column ? between : "", left ? 0 : gap, "", cell, left ? gap : 0, "");
        }
        fputs(end, out);
        if (md && row == 0) {
            fputs("|", out);
            for (size_t column = 0; column < g->columns; column++)
                fputs(g->left >> column & 1 ? " --- |" : " ---: |", out);
            fputc('\n', out);
        }
    }
}

void grid_free(grid *g)
{
    free(g->cells);
    *g = (grid){0};
}

/* ---- For programs ------------------------------------------------------------------------------ */

static void print_csv_value(FILE *out, const void *record, const field *f)
{
    if (absent(record, f))
        return;
    if (f->type == SAMPLES) {
        const sample_list *s = samples_of(record, f);
        for (size_t i = 0; i < s->n; i++)
            fprintf(out, "%s%.15g", i ? " " : "", s->values[i]);
        return;
    }
    if (f->type != TEXT) {
        fprintf(out, "%.15g", number_of(record, f));
        return;
    }
    fputc('"', out);
    for (const char *c = text_of(record, f); *c; c++)
        fprintf(out, *c == '"' ? "\"\"" : "%c", *c);
    fputc('"', out);
}

void records_print_csv(FILE *out, const record_list *list)
{
    for (size_t row = 0; row <= list->n; row++) { /* the heading, then the records */
        const char *between = "";
        for (size_t i = 0; i < list->n_fields; i++) {
            const field *f = &list->fields[i];
            if (!f->key)
                continue;
            fputs(between, out);
            between = ",";
            if (row == 0)
                fputs(f->key, out);
            else
                print_csv_value(out, record_at(list, row - 1), f);
        }
        fputc('\n', out);
    }
}

/* Whole numbers are written as such; JSON has no infinity. */
static json_t *json_number(double number)
{
    if (!isfinite(number))
        return json_null();
    return number == floor(number) && fabs(number) < 9e15 ? json_integer((json_int_t)number) : json_real(number);
}

static json_t *json_value(const void *record, const field *f)
{
    if (absent(record, f))
        return json_null();
    if (f->type == TEXT)
        return json_of_path(text_of(record, f));
    if (f->type != SAMPLES)
        return json_number(number_of(record, f));
    const sample_list *s = samples_of(record, f);
    json_t *array = json_array();
    for (size_t i = 0; array && i < s->n; i++) {
        if (json_array_append_new(array, json_number(s->values[i])) != 0) {
            json_decref(array);
            array = NULL;
        }
    }
    return array;
}

json_t *records_json(const record_list *list)
{
    json_t *array = json_array();
    bool complete = array != NULL;
    for (size_t r = 0; r < list->n && complete; r++) {
        json_t *object = json_object();
        complete = json_array_append_new(array, object) == 0;
        for (size_t i = 0; i < list->n_fields && complete; i++) {
            const field *f = &list->fields[i];
            complete = !f->key || json_object_set_new(object, f->key, json_value(record_at(list, r), f)) == 0;
        }
    }
    if (complete)
        return array;
    json_decref(array);
    return NULL;
}

qwen3_status json_print(FILE *out, json_t *document, bool lines, qwen3_error *err)
{
    const size_t precision = JSON_REAL_PRECISION(15);
    int failed = 0;
    if (!document)
        return set_error(err, QWEN3_ERR_MEMORY, "--output: cannot build the JSON document");
    for (size_t i = 0; lines && i < json_array_size(document) && !failed; i++) {
        failed = json_dumpf(json_array_get(document, i), out, JSON_COMPACT | precision);
        fputc('\n', out);
    }
    if (!lines) {
        failed = json_dumpf(document, out, JSON_INDENT(2) | precision);
        fputc('\n', out);
    }
    json_decref(document);
    return failed ? set_error(err, QWEN3_ERR_IO, "--output: cannot write the JSON document") : QWEN3_OK;
}
