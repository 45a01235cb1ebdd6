/* options.c - see options.h. popt splits the command line; each value is read from its text by kind. */
#include "common/options.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <popt.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/program.h"
#include "common/utf8.h"

/* popt's values of the options that every table has; those of the table are 1 + index. */
enum { VALUE_HELP = 1000, VALUE_VERSION };

/* What a value may be, for --help and for errors. */
static const char *accepted(const option *o, char *buffer, size_t size)
{
    switch (o->kind) {
    case OPTION_INT:
    case OPTION_INT64:
        snprintf(buffer, size, "an integer from %" PRId64 " to %" PRId64, o->min, o->max);
        return buffer;
    case OPTION_UINT64:
        return "an integer from 0 to 18446744073709551615";
    case OPTION_DOUBLE:
        snprintf(buffer, size, "a number from %g to %g", o->least, o->most);
        return buffer;
    case OPTION_TEXT:
    case OPTION_TEXTS:
        return o->argument;
    case OPTION_OPERAND:
        return "text that is not empty";
    case OPTION_CHOICE:
        return o->choices;
    case OPTION_STRATEGY:
        return "auto|headwise|sequence|hybrid";
    case OPTION_ALGORITHM:
        return "auto|standard|online_softmax";
    case OPTION_DTYPE:
        return "f32|bf16|q8|q4";
    case OPTION_KV_DTYPE:
        return "auto|f32|bf16|q8";
    case OPTION_ISA:
        return "auto|c|avx2|avx512|avx512_vnni|avx512_bf16|amx|neon|neon_dot|neon_bf16|neon_i8mm";
    case OPTION_GRID:
        return "SxH, two positive integers";
    case OPTION_INTS:
        snprintf(buffer, size, "at most %d integers from %" PRId64 " to %" PRId64 ", with commas between", MAX_INTS,
                 o->min, o->max);
        return buffer;
    case OPTION_PAIRS:
        snprintf(buffer, size, "two integers from %" PRId64 " to %" PRId64 ", with a comma between", o->min, o->max);
        return buffer;
    case OPTION_FLAG:
        break;
    }
    return "no value";
}

static const char *argument_name(const option *o)
{
    if (o->argument || o->kind == OPTION_FLAG || o->kind == OPTION_OPERAND)
        return o->argument;
    if (o->kind == OPTION_INT || o->kind == OPTION_INT64 || o->kind == OPTION_UINT64)
        return "N";
    if (o->kind == OPTION_DOUBLE)
        return "X";
    if (o->kind == OPTION_INTS || o->kind == OPTION_PAIRS)
        return o->kind == OPTION_INTS ? "N,..." : "N,N";
    return o->kind == OPTION_GRID ? "SxH" : accepted(o, NULL, 0);
}

/* Decimal digits, with a sign if `min` is negative, and nothing else. */
static bool read_integer(const char *text, int64_t min, int64_t max, int64_t *value)
{
    const char *digits = min < 0 && *text == '-' ? text + 1 : text;
    char *end;
    if (!isdigit((unsigned char)*digits))
        return false;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (errno || *end || number < min || number > max)
        return false;
    *value = number;
    return true;
}

static bool read_unsigned(const char *text, uint64_t *value)
{
    char *end;
    if (!isdigit((unsigned char)*text))
        return false;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno || *end)
        return false;
    *value = number;
    return true;
}

/* Decimal notation; neither hexadecimal nor words. */
static bool read_double(const char *text, double least, double most, double *value)
{
    char *end;
    if (!*text || text[strspn(text, "+-.0123456789eE")])
        return false;
    double number = strtod(text, &end);
    if (*end || end == text || !(number >= least && number <= most))
        return false;
    *value = number;
    return true;
}

static bool add_text(const char *text, text_list *list)
{
    if (!*text || list->n == MAX_TEXTS || !(list->texts[list->n] = strdup(text)))
        return false;
    list->n++;
    return true;
}

static bool read_choice(const char *text, const char *choices, int *value)
{
    size_t length = strlen(text);
    for (int index = 0;; index++) {
        size_t span = strcspn(choices, "|");
        if (span == length && strncasecmp(text, choices, span) == 0) {
            *value = index;
            return true;
        }
        if (!choices[span])
            return false;
        choices += span + 1;
    }
}

static bool read_grid(const char *text, int grid[2])
{
    char part[16];
    int64_t s, h;
    size_t span = strcspn(text, "xX");
    if (!text[span] || span >= sizeof part)
        return false;
    memcpy(part, text, span);
    part[span] = '\0';
    if (!read_integer(part, 1, 1 << 20, &s) || !read_integer(text + span + 1, 1, 1 << 20, &h))
        return false;
    grid[0] = (int)s;
    grid[1] = (int)h;
    return true;
}

/* Adds the numbers of "N,N,..." to the list: `exactly` many, 0 = at least one. */
static bool read_list(const char *text, int64_t min, int64_t max, size_t exactly, int_list *list)
{
    size_t first = list->n;
    for (const char *part = text;; part++) {
        char digits[24];
        int64_t number;
        size_t span = strcspn(part, ",");
        if (span >= sizeof digits || list->n == MAX_INTS)
            return false;
        memcpy(digits, part, span);
        digits[span] = '\0';
        if (!read_integer(digits, min, max, &number))
            return false;
        list->values[list->n++] = (int)number;
        part += span;
        if (!*part)
            return !exactly || list->n - first == exactly;
    }
}

static bool read_value(const option *o, const char *text);

/* Adds the values of "VALUE,VALUE,..." to the list. */
static bool read_values(const option *o, const char *text)
{
    int_list *list = o->value;
    for (const char *part = text;; part++) {
        char part_text[32];
        int value = 0;
        option one = *o;
        const size_t span = strcspn(part, ",");
        if (span >= sizeof part_text || list->n == MAX_INTS)
            return false;
        memcpy(part_text, part, span);
        part_text[span] = '\0';
        one.list = false;
        one.value = &value;
        if (!read_value(&one, part_text))
            return false;
        list->values[list->n++] = value;
        part += span;
        if (!*part)
            return true;
    }
}

static bool read_kv_dtype(const char *text, qwen3_dtype *dtype)
{
    *dtype = QWEN3_DTYPE_AUTO;
    return strcasecmp(text, "auto") == 0 || (qwen3_dtype_parse(text, dtype) && *dtype != QWEN3_DTYPE_Q4);
}

/* Reads `text` into the option's value. */
static bool read_value(const option *o, const char *text)
{
    int64_t number;
    if (o->list)
        return read_values(o, text);
    switch (o->kind) {
    case OPTION_FLAG:
        *(bool *)o->value = true;
        return true;
    case OPTION_INT:
        if (!read_integer(text, o->min, o->max, &number))
            return false;
        *(int *)o->value = (int)number;
        return true;
    case OPTION_INT64:
        return read_integer(text, o->min, o->max, (int64_t *)o->value);
    case OPTION_UINT64:
        return read_unsigned(text, (uint64_t *)o->value);
    case OPTION_TEXT:
    case OPTION_OPERAND:
        if (!*text)
            return false;
        free(*(char **)o->value);
        return (*(char **)o->value = strdup(text)) != NULL;
    case OPTION_DOUBLE:
        return read_double(text, o->least, o->most, o->value);
    case OPTION_TEXTS:
        return add_text(text, o->value);
    case OPTION_CHOICE:
        return read_choice(text, o->choices, (int *)o->value);
    case OPTION_STRATEGY:
        return qwen3_strategy_parse(text, (qwen3_parallel_strategy *)o->value);
    case OPTION_ALGORITHM:
        return qwen3_algorithm_parse(text, (qwen3_attention_algorithm *)o->value);
    case OPTION_DTYPE:
        return qwen3_dtype_parse(text, (qwen3_dtype *)o->value);
    case OPTION_KV_DTYPE:
        return read_kv_dtype(text, (qwen3_dtype *)o->value);
    case OPTION_ISA:
        return qwen3_isa_parse(text, (qwen3_isa *)o->value);
    case OPTION_GRID:
        return read_grid(text, (int *)o->value);
    case OPTION_INTS:
        return read_list(text, o->min, o->max, 0, o->value);
    case OPTION_PAIRS:
        return read_list(text, o->min, o->max, 2, o->value);
    }
    return false;
}

void option_table_add(option_table *table, size_t n, const option *options)
{
    assert(table->n + n <= MAX_OPTIONS);
    memcpy(table->options + table->n, options, n * sizeof *options);
    table->n += n;
}

qwen3_status option_take(option *o, const char *text, qwen3_error *err)
{
    char buffer[128];
    if (o->list || (!o->given && (o->kind == OPTION_INTS || o->kind == OPTION_PAIRS)))
        ((int_list *)o->value)->n = 0; /* the first value replaces the default */
    o->given = true;
    const char *dashes = o->kind == OPTION_OPERAND ? "" : "--";
    if (o->utf8 && !is_utf8(text, strlen(text)))
        return set_error(err, QWEN3_ERR_ARGUMENT, "%s%s: is not well-formed UTF-8", dashes, o->name);
    if (read_value(o, text))
        return QWEN3_OK;
    return set_error(err, QWEN3_ERR_ARGUMENT, "%s%s: got \"%s\", expected %s%s", dashes, o->name, text,
                     accepted(o, buffer, sizeof buffer), o->list ? ", with commas between" : "");
}

/* The table in popt's form, with --help and --version. Free with free(). */
static struct poptOption *popt_table(const command_line *line, qwen3_error *err)
{
    struct poptOption *table;
    size_t n = line->n_options;
    if (!(table = allocate(n + 3, sizeof *table, "options", err)))
        return NULL;
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        const option *o = &line->options[i];
        if (o->kind == OPTION_OPERAND)
            continue;
        unsigned argument = o->kind == OPTION_FLAG ? POPT_ARG_NONE : POPT_ARG_STRING;
        table[used++] = (struct poptOption){.longName = o->name,
                                            .shortName = o->short_name,
                                            .argInfo = argument | (o->one_dash ? POPT_ARGFLAG_ONEDASH : 0),
                                            .val = (int)i + 1};
    }
    table[used++] = (struct poptOption){.longName = "help", .shortName = 'h', .val = VALUE_HELP};
    table[used] = (struct poptOption){.longName = "version", .shortName = 'V', .val = VALUE_VERSION};
    return table;
}

enum { HELP_COLUMN = 32, HELP_WIDTH = 110 };

/* Prints one option: its form on the left, its help in lines on the right. */
static void print_option(FILE *out, char short_name, const char *name, const char *argument, const char *help)
{
    int column = short_name ? fprintf(out, "  -%c, ", short_name) : fprintf(out, "  ");
    column += fprintf(out, "--%s%s%s", name, argument ? " " : "", argument ? argument : "");
    bool fresh = true; /* the right column of this line is empty */
    while (*help) {
        int word = (int)strcspn(help, " ");
        if (column + 1 + word > HELP_WIDTH || (fresh && column >= HELP_COLUMN)) {
            fputc('\n', out);
            column = 0;
            fresh = true;
        }
        int gap = fresh ? HELP_COLUMN - column : 1;
        column += fprintf(out, "%*s%.*s", gap, "", word, help);
        fresh = false;
        help += word + (help[word] == ' ');
    }
    fputc('\n', out);
}

static option *find_operand(const command_line *line)
{
    for (size_t i = 0; i < line->n_options; i++)
        if (line->options[i].kind == OPTION_OPERAND)
            return &line->options[i];
    return NULL;
}

/* With the mark of a list; NULL for a flag. */
static const char *argument_text(const option *o, char text[128])
{
    if (!o->list)
        return argument_name(o);
    snprintf(text, 128, "%s,...", argument_name(o));
    return text;
}

static void print_help(const command_line *line, FILE *out)
{
    const option *operand = find_operand(line);
    char text[128];
    fprintf(out, "Usage: %s [OPTION...]", line->name);
    if (operand)
        fprintf(out, " [%s]", operand->name);
    fprintf(out, "\n%s%s%s.\n\n", line->summary, operand ? ". " : "", operand ? operand->help : "");
    for (size_t i = 0; i < line->n_options; i++)
        if (&line->options[i] != operand)
            print_option(out, line->options[i].short_name, line->options[i].name,
                         argument_text(&line->options[i], text), line->options[i].help);
    print_option(out, 'h', "help", NULL, "Print this help");
    print_option(out, 'V', "version", NULL, "Print the version");
}

/* Takes the options one by one. */
static qwen3_status take_options(const command_line *line, poptContext context, FILE *print_to, bool *finished,
                                 qwen3_error *err)
{
    int value;
    while ((value = poptGetNextOpt(context)) > 0) {
        if (value == VALUE_HELP || value == VALUE_VERSION) {
            *finished = true;
            if (print_to && value == VALUE_VERSION)
                fprintf(print_to, "%s %s\n", line->name, QWEN3_VERSION);
            if (print_to && value == VALUE_HELP)
                print_help(line, print_to);
            return QWEN3_OK;
        }
        char *text = poptGetOptArg(context);
        qwen3_status status = option_take(&line->options[value - 1], text ? text : "", err);
        free(text);
        if (status != QWEN3_OK)
            return status;
    }
    if (value < -1)
        return set_error(err, QWEN3_ERR_ARGUMENT, "%s: %s (see --help)", poptBadOption(context, 0),
                         poptStrerror(value));
    const char *rest = poptGetArg(context);
    option *operand = rest ? find_operand(line) : NULL;
    if (operand) {
        if (option_take(operand, rest, err) != QWEN3_OK)
            return err->status;
        rest = poptGetArg(context);
    }
    if (rest && operand)
        return set_error(err, QWEN3_ERR_ARGUMENT,
                         "unexpected argument \"%s\": several words need quotes to be one %s (see --help)", rest,
                         operand->name);
    if (rest)
        return set_error(err, QWEN3_ERR_ARGUMENT, "unexpected argument \"%s\" (see --help)", rest);
    return QWEN3_OK;
}

qwen3_status options_parse(const command_line *line, FILE *print_to, bool *finished, qwen3_error *err)
{
    *finished = false;
    struct poptOption *table = popt_table(line, err);
    if (!table)
        return err->status;
    qwen3_status status;
    poptContext context = poptGetContext(line->name, line->argc, line->argv, table, 0);
    if (context) {
        status = take_options(line, context, print_to, finished, err);
        poptFreeContext(context);
    } else {
        status = set_error(err, QWEN3_ERR_MEMORY, "options: out of memory");
    }
    free(table);
    return status;
}

void options_free(option *options, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (options[i].kind == OPTION_TEXT || options[i].kind == OPTION_OPERAND) {
            free(*(char **)options[i].value);
            *(char **)options[i].value = NULL;
        }
        if (options[i].kind == OPTION_TEXTS) {
            text_list *list = options[i].value;
            while (list->n > 0)
                free(list->texts[--list->n]);
        }
    }
}

bool option_given(const command_line *line, const char *name)
{
    for (size_t i = 0; i < line->n_options; i++)
        if (strcmp(line->options[i].name, name) == 0)
            return line->options[i].given;
    return false;
}
