/* output.c - results as text for people and for programs.
 *
 * One table names every field of a result; all forms are written from it. csv, json and jsonl carry raw numbers in
 * base units; table and md carry scaled ones. What does not apply is empty in csv and null in json. */
#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "benchmark.h"
#include "common/program.h"

typedef struct field {
    const char *key, *title;
    size_t offset;
    enum { TEXT, NUMBER, COUNTER } type; /* COUNTER: a number of little interest where it is 0 */
    const char *format;                  /* of the scaled number, with its unit; NULL = not in table and md */
    double scale;
    const char *column; /* its heading in a comparison; NULL = not there */
} field;

#define AT(member) offsetof(benchmark_result, member)
#define COMM_FIELD(phase, kind, index, quantity, unit, factor)                                                         \
    {                                                                                                                  \
        .key = #phase "_" kind "_" #quantity, .title = #phase ", " kind " " #quantity,                                 \
        .offset = AT(phase.comm_##quantity[index]), .type = COUNTER, .format = unit, .scale = factor                   \
    }
#define COMM_FIELDS(phase, kind, index)                                                                                \
    COMM_FIELD(phase, kind, index, bytes, "%.1f KiB", 1 / 1024.0),                                                     \
        COMM_FIELD(phase, kind, index, seconds, "%.3f ms", 1e3)
#define PHASE_COMM_FIELDS(phase)                                                                                       \
    COMM_FIELDS(phase, "reduce", QWEN3_COMM_REDUCE), COMM_FIELDS(phase, "kv", QWEN3_COMM_KV),                          \
        COMM_FIELDS(phase, "query", QWEN3_COMM_QUERY), COMM_FIELDS(phase, "partial", QWEN3_COMM_PARTIAL),              \
        COMM_FIELDS(phase, "logits", QWEN3_COMM_LOGITS), COMM_FIELDS(phase, "control", QWEN3_COMM_CONTROL)

static const field fields[] = {
    {"model", "model", AT(model), TEXT, "%s", 0, NULL},
    {"strategy", "strategy", AT(strategy), TEXT, "%s", 0, "strategy"},
    {"grid", "grid (S x H)", AT(grid), TEXT, "%s", 0, "grid"},
    {"algorithm", "algorithm", AT(algorithm), TEXT, "%s", 0, "algorithm"},
    {"dtype", "dtype", AT(dtype), TEXT, "%s", 0, NULL},
    {"isa", "kernels", AT(isa), TEXT, "%s", 0, NULL},
    {"phase", "phase", AT(phase), TEXT, NULL, 0, NULL},
    {"ranks", "ranks", AT(ranks), NUMBER, "%.0f", 1, NULL},
    {"nodes", "nodes", AT(nodes), NUMBER, NULL, 1, NULL},
    {"threads", "threads per rank", AT(threads), NUMBER, "%.0f", 1, NULL},
    {"batch_size", "sequences", AT(batch), NUMBER, "%.0f", 1, NULL},
    {"prompt_len", "prompt tokens each", AT(prompt), NUMBER, "%.0f", 1, NULL},
    {"gen_len", "generated tokens each", AT(generate), NUMBER, "%.0f", 1, NULL},
    {"kv_cache", "KV cache", AT(kv_cache), TEXT, "%s", 0, NULL},
    {"iters", "iterations", AT(iterations), NUMBER, "%.0f", 1, NULL},
    {"warmup", "warmup", AT(warmup), NUMBER, NULL, 1, NULL},
    {"seed", "seed", AT(seed), TEXT, NULL, 0, NULL},

    {"prefill_ms", "prefill", AT(prefill.ms), NUMBER, "%.2f ms", 1, "prefill ms"},
    {"prefill_ms_deviation", "prefill deviation", AT(prefill.ms_deviation), NUMBER, "%.2f ms", 1, NULL},
    {"prefill_ms_per_token", "prefill per token", AT(prefill.ms_per_token), NUMBER, "%.3f ms", 1, NULL},
    {"prefill_tokens_per_second", "prompt tokens/s", AT(prefill.tokens_per_second), NUMBER, "%.1f", 1, "prompt tok/s"},
    {"first_token_ms", "time to first token", AT(first_token_ms), NUMBER, "%.2f ms", 1, NULL},
    {"first_token_ms_deviation", "time to first token deviation", AT(first_token_ms_deviation), NUMBER, "%.2f ms", 1,
     NULL},
    {"decode_ms", "decode", AT(decode.ms), NUMBER, "%.2f ms", 1, NULL},
    {"decode_ms_deviation", "decode deviation", AT(decode.ms_deviation), NUMBER, "%.2f ms", 1, NULL},
    {"decode_ms_per_step", "decode per step", AT(ms_per_step), NUMBER, "%.3f ms", 1, NULL},
    {"decode_ms_per_token", "decode per token", AT(decode.ms_per_token), NUMBER, "%.3f ms", 1, "decode ms/token"},
    {"decode_tokens_per_second", "generated tokens/s", AT(decode.tokens_per_second), NUMBER, "%.2f", 1, "gen tok/s"},
    {"total_ms", "total", AT(total_ms), NUMBER, "%.2f ms", 1, "total ms"},
    {"kv_cache_speedup", "speed-up of decode by the KV cache", AT(kv_cache_speedup), NUMBER, "%.2f x", 1, NULL},

    {"prefill_comm_bytes", "prefill, communicated by all ranks", AT(prefill.comm_bytes_total), NUMBER, "%.1f KiB",
     1 / 1024.0, "prefill KiB sent"},
    {"prefill_comm_seconds", "prefill, communicating, slowest rank", AT(prefill.comm_seconds_total), NUMBER, "%.3f ms",
     1e3, NULL},
    PHASE_COMM_FIELDS(prefill),
    {"decode_comm_bytes", "decode, communicated by all ranks", AT(decode.comm_bytes_total), NUMBER, "%.1f KiB",
     1 / 1024.0, "decode KiB sent"},
    {"decode_comm_seconds", "decode, communicating, slowest rank", AT(decode.comm_seconds_total), NUMBER, "%.3f ms",
     1e3, NULL},
    PHASE_COMM_FIELDS(decode),

    {"weight_bytes", "weights (fullest rank)", AT(weight_bytes), NUMBER, "%.2f MiB", 1 / 1048576.0, NULL},
    {"kv_bytes", "KV cache (fullest rank)", AT(kv_bytes), NUMBER, "%.2f MiB", 1 / 1048576.0, NULL},
    {"scratch_bytes", "scratch (fullest rank)", AT(scratch_bytes), NUMBER, "%.2f MiB", 1 / 1048576.0, NULL},
    {"score_bytes", "thereof scores (fullest rank)", AT(score_bytes), NUMBER, "%.1f KiB", 1 / 1024.0, "scores KiB"},

    {"relative_l2", "relative L2 of the logits (worst row)", AT(relative_l2), NUMBER, "%.2e", 1, "rel. L2"},
    {"max_difference", "largest difference of a logit", AT(max_difference), NUMBER, "%.2e", 1, NULL},
    {"top1_agreement", "top-1 agreement", AT(top1_agreement), NUMBER, "%.1f %%", 100, "top-1 %"},
    {"verified_rows", "rows of logits compared", AT(verified_rows), NUMBER, "%.0f", 1, NULL},
    {"tolerance", "tolerance", AT(tolerance), NUMBER, "%.0e", 1, NULL},
    {"verified", "verified", AT(verified), TEXT, "%s", 0, "verified"},

    {"prefill_flops", "prefill work", AT(prefill_flops), NUMBER, "%.1f GFLOP", 1e-9, NULL},
    {"decode_bytes_per_step", "decode reads per step", AT(decode_bytes), NUMBER, "%.1f MB", 1e-6, NULL},
    {"peak_flops", "multiply-add peak", AT(peak_flops), NUMBER, "%.1f GFLOP/s", 1e-9, NULL},
    {"read_bandwidth", "read bandwidth", AT(read_bandwidth), NUMBER, "%.2f GB/s", 1e-9, NULL},
    {"prefill_fraction", "prefill, fraction of the peak", AT(prefill_fraction), NUMBER, "%.1f %%", 100,
     "prefill % of peak"},
    {"decode_fraction", "decode, fraction of the bandwidth", AT(decode_fraction), NUMBER, "%.1f %%", 100,
     "decode % of bandwidth"},
};
enum { FIELDS = sizeof fields / sizeof *fields };

static const char *text_of(const benchmark_result *r, const field *f)
{
    return (const char *)r + f->offset;
}

static double number_of(const benchmark_result *r, const field *f)
{
    return *(const double *)(const void *)((const char *)r + f->offset);
}

static bool absent(const benchmark_result *r, const field *f)
{
    return f->type == TEXT ? !*text_of(r, f) : isnan(number_of(r, f));
}

void result_clear(benchmark_result *r)
{
    memset(r, 0, sizeof *r);
    for (int i = 0; i < FIELDS; i++)
        if (fields[i].type != TEXT)
            *(double *)(void *)((char *)r + fields[i].offset) = NAN;
}

/* ---- For people -------------------------------------------------------------------------------- */

/* The value as people read it, "" where absent; `unit` false leaves away what follows the number. */
static void format_value(const benchmark_result *r, const field *f, bool unit, char *cell, size_t size)
{
    cell[0] = '\0';
    if (absent(r, f))
        return;
    if (f->type == TEXT) {
        snprintf(cell, size, "%s", text_of(r, f));
        return;
    }
    snprintf(cell, size, f->format, number_of(r, f) * f->scale);
    if (!unit)
        cell[strcspn(cell, " ")] = '\0';
}

enum { CELL = 272 };

/* Rows x columns of cells; the first row is the heading. */
typedef struct grid {
    size_t rows, columns;
    char (*cells)[CELL];
} grid;

static char *cell_at(const grid *g, size_t row, size_t column)
{
    return g->cells[row * g->columns + column];
}

/* No result has something to say here: no value, or a kind of communication that did not happen. */
static bool silent(const benchmark_result *results, size_t n, const field *f)
{
    for (size_t i = 0; i < n; i++)
        if (!absent(&results[i], f) && !(f->type == COUNTER && number_of(&results[i], f) == 0))
            return false;
    return true;
}

/* One row per result. */
static void fill_comparison(grid *g, const benchmark_result *results, size_t n)
{
    g->rows = n + 1;
    g->columns = 0;
    for (int i = 0; i < FIELDS; i++)
        g->columns += fields[i].column && !silent(results, n, &fields[i]);
    size_t column = 0;
    for (int i = 0; i < FIELDS; i++) {
        const field *f = &fields[i];
        if (!f->column || silent(results, n, f))
            continue;
        snprintf(cell_at(g, 0, column), CELL, "%s", f->column);
        for (size_t r = 0; r < n; r++)
            format_value(&results[r], f, false, cell_at(g, r + 1, column), CELL);
        column++;
    }
}

/* One column per result. */
static void fill_listing(grid *g, const benchmark_result *results, size_t n)
{
    g->rows = 1;
    g->columns = n + 1;
    snprintf(cell_at(g, 0, 0), CELL, "result");
    for (size_t r = 0; r < n; r++)
        snprintf(cell_at(g, 0, r + 1), CELL, n > 1 ? "%zu" : "value", r + 1);
    for (int i = 0; i < FIELDS; i++) {
        const field *f = &fields[i];
        if (!f->format || silent(results, n, f))
            continue;
        snprintf(cell_at(g, g->rows, 0), CELL, "%s", f->title);
        for (size_t r = 0; r < n; r++)
            format_value(&results[r], f, true, cell_at(g, g->rows, r + 1), CELL);
        g->rows++;
    }
}

static void print_grid(FILE *out, const grid *g, bool md)
{
    const char *edge = md ? "| " : "", *between = md ? " | " : "  ", *end = md ? " |\n" : "\n";
    for (size_t row = 0; row < g->rows; row++) {
        fputs(edge, out);
        for (size_t column = 0; column < g->columns; column++) {
            size_t width = 0;
            for (size_t r = 0; r < g->rows; r++) {
                size_t length = strlen(cell_at(g, r, column));
                width = length > width ? length : width;
            }
            /* The first column names things. */
            fprintf(out, "%s%*s", column ? between : "", column ? (int)width : -(int)width, cell_at(g, row, column));
        }
        fputs(end, out);
        if (md && row == 0) {
            for (size_t column = 0; column < g->columns; column++)
                fputs(column ? " ---: |" : "| --- |", out);
            fputc('\n', out);
        }
    }
}

static qwen3_status print_for_people(FILE *out, bool md, const benchmark_result *results, size_t n, bool comparison,
                                     qwen3_error *err)
{
    grid g = {0};
    if (!(g.cells = allocate((n + 1) * (FIELDS + 1), CELL, "table", err)))
        return err->status;
    if (comparison)
        fill_comparison(&g, results, n);
    else
        fill_listing(&g, results, n);
    print_grid(out, &g, md);
    free(g.cells);
    return QWEN3_OK;
}

/* ---- For programs ------------------------------------------------------------------------------ */

static void print_csv(FILE *out, const benchmark_result *results, size_t n)
{
    for (int i = 0; i < FIELDS; i++)
        fprintf(out, "%s%s", i ? "," : "", fields[i].key);
    fputc('\n', out);
    for (size_t r = 0; r < n; r++) {
        for (int i = 0; i < FIELDS; i++) {
            const field *f = &fields[i];
            if (i)
                fputc(',', out);
            if (absent(&results[r], f))
                continue;
            if (f->type != TEXT) {
                fprintf(out, "%.15g", number_of(&results[r], f));
                continue;
            }
            fputc('"', out);
            for (const char *c = text_of(&results[r], f); *c; c++)
                fprintf(out, *c == '"' ? "\"\"" : "%c", *c);
            fputc('"', out);
        }
        fputc('\n', out);
    }
}

/* NULL where memory is short. Whole numbers are written as such; JSON has no infinity. */
static json_t *to_json(const benchmark_result *r)
{
    json_t *object = json_object();
    for (int i = 0; object && i < FIELDS; i++) {
        const field *f = &fields[i];
        double number = f->type != TEXT ? number_of(r, f) : 0;
        json_t *value;
        if (absent(r, f) || isinf(number))
            value = json_null();
        else if (f->type == TEXT)
            value = json_string(text_of(r, f));
        else if (number == floor(number) && fabs(number) < 9e15)
            value = json_integer((json_int_t)number);
        else
            value = json_real(number);
        if (json_object_set_new(object, f->key, value) != 0) {
            json_decref(object);
            object = NULL;
        }
    }
    return object;
}

static qwen3_status print_json(FILE *out, bool lines, const benchmark_result *results, size_t n, qwen3_error *err)
{
    qwen3_status status = QWEN3_OK;
    json_t *list = json_array();
    for (size_t r = 0; r < n; r++)
        if (json_array_append_new(list, to_json(&results[r])) != 0)
            status = set_error(err, QWEN3_ERR_MEMORY, "--output: cannot build the JSON document");
    if (status == QWEN3_OK && lines) {
        for (size_t r = 0; r < n; r++) {
            json_dumpf(json_array_get(list, r), out, JSON_COMPACT | JSON_REAL_PRECISION(15));
            fputc('\n', out);
        }
    } else if (status == QWEN3_OK) {
        json_t *document =
            json_pack("{s:s, s:s, s:O}", "program", "benchmark_qwen3", "version", QWEN3_VERSION, "results", list);
        if (!document || json_dumpf(document, out, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) != 0)
            status = set_error(err, QWEN3_ERR_IO, "--output: cannot write the JSON document");
        fputc('\n', out);
        json_decref(document);
    }
    json_decref(list);
    return status;
}

qwen3_status results_print(FILE *out, output_format format, const benchmark_result *results, size_t n, bool comparison,
                           qwen3_error *err)
{
    qwen3_status status = QWEN3_OK;
    switch (format) {
    case OUTPUT_TABLE:
    case OUTPUT_MD:
        status = print_for_people(out, format == OUTPUT_MD, results, n, comparison, err);
        break;
    case OUTPUT_CSV:
        print_csv(out, results, n);
        break;
    case OUTPUT_JSON:
    case OUTPUT_JSONL:
        status = print_json(out, format == OUTPUT_JSONL, results, n, err);
        break;
    }
    return status == QWEN3_OK ? flush_output(out, "standard output", err) : status;
}
