/* tokenize.c - qwen3 tokenize, qwen3 detokenize: text to token ids and back, from standard input to standard output.
 * Rank 0 does the work. With --batch every line is one text, as JSON. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "command.h"
#include "common/model_arguments.h"
#include "common/program.h"

typedef struct text_job {
    char *model;
    bool json, batch, plain, skip_special;
    bool to_ids; /* tokenize */
    qwen3_tokenizer *tokenizer;
} text_job;

/* A text, or ids, with its line for messages; line 0 = not by lines. */
typedef struct input {
    char *text; /* [length], followed by a zero byte */
    size_t length, room;
    size_t line;
} input;

static qwen3_status bad_input(const input *in, qwen3_error *err, const char *expected, const char *detail)
{
    char place[48] = "";
    if (in->line)
        snprintf(place, sizeof place, ": line %zu", in->line);
    return set_error(err, QWEN3_ERR_FORMAT, "standard input%s: expected %s%s%s", place, expected, *detail ? ": " : "",
                     detail);
}

static qwen3_status read_all(input *in, qwen3_error *err)
{
    do {
        if (in->length + 1 >= in->room) {
            size_t room = in->room ? 2 * in->room : 65536;
            char *larger = realloc(in->text, room);
            if (!larger)
                return set_error(err, QWEN3_ERR_MEMORY, "standard input: cannot allocate %zu bytes", room);
            in->text = larger;
            in->room = room;
        }
        in->length += fread(in->text + in->length, 1, in->room - 1 - in->length, stdin);
    } while (!feof(stdin) && !ferror(stdin));
    in->text[in->length] = '\0';
    return QWEN3_OK;
}

/* ---- To ids */

static void print_ids(const text_job *job, const int32_t *ids, size_t n)
{
    bool json = job->json || job->batch;
    printf("%s", json ? "[" : "");
    for (size_t i = 0; i < n; i++)
        printf("%s%d", i == 0 ? "" : json ? "," : " ", (int)ids[i]);
    printf("%s", json ? "]\n" : "\n");
}

static qwen3_status tokenize_text(const text_job *job, const char *text, size_t length, qwen3_error *err)
{
    const qwen3_text_range whole = {0, length};
    int32_t *ids;
    size_t n;
    const qwen3_encode_args args = {text, length, &whole, job->plain ? 1 : 0};
    qwen3_status status = qwen3_tokenizer_encode(job->tokenizer, &args, &ids, &n, err);
    if (status != QWEN3_OK)
        return status;
    print_ids(job, ids, n);
    free(ids);
    return QWEN3_OK;
}

static qwen3_status tokenize_line(const text_job *job, const input *in, qwen3_error *err)
{
    json_error_t fault;
    json_t *value = json_loadb(in->text, in->length, JSON_DECODE_ANY | JSON_ALLOW_NUL, &fault);
    qwen3_status status = json_is_string(value)
                              ? tokenize_text(job, json_string_value(value), json_string_length(value), err)
                              : bad_input(in, err, "a JSON string", value ? "" : fault.text);
    json_decref(value);
    return status;
}

/* ---- To text */

/* text is well-formed UTF-8, as the library decodes it. */
static qwen3_status print_text(const text_job *job, const char *text, size_t length, qwen3_error *err)
{
    if (!job->json && !job->batch) {
        fwrite(text, 1, length, stdout);
        return QWEN3_OK;
    }
    json_t *value = json_stringn(text, length);
    bool printed = value && json_dumpf(value, stdout, JSON_ENCODE_ANY) == 0 && putchar('\n') != EOF;
    json_decref(value);
    return printed ? QWEN3_OK : set_error(err, QWEN3_ERR_IO, "standard output: cannot write a JSON string");
}

static const char *skip_space(const char *at)
{
    while (isspace((unsigned char)*at))
        at++;
    return at;
}

/* Ids separated by white space or commas, in brackets or not, as tokenize writes them. ids has room for one id for
 * every two bytes, and one more. */
static bool parse_ids(const char *at, const char *end, bool brackets, int32_t *ids, size_t *n)
{
    *n = 0;
    at = skip_space(at);
    bool open = *at == '[';
    if (brackets && !open)
        return false;
    at = skip_space(at + open);
    while (isdigit((unsigned char)*at)) {
        char *after;
        errno = 0;
        long id = strtol(at, &after, 10);
        if (errno || id > INT32_MAX)
            return false;
        ids[(*n)++] = (int32_t)id;
        const char *next = skip_space(after);
        if (*next == ',' && !isdigit((unsigned char)*(next = skip_space(next + 1))))
            return false;
        if (isdigit((unsigned char)*next) && next == after)
            return false;
        at = next;
    }
    if (open && *at++ != ']')
        return false;
    return skip_space(at) == end;
}

static qwen3_status detokenize_ids(const text_job *job, const input *in, qwen3_error *err)
{
    char *text = NULL;
    size_t n, length;
    int32_t *ids = allocate(in->length / 2 + 1, sizeof *ids, "token ids", err);
    if (!ids)
        return err->status;
    qwen3_status status = QWEN3_OK;
    if (!parse_ids(in->text, in->text + in->length, job->batch, ids, &n))
        status = bad_input(in, err, job->batch ? "a JSON array of token ids" : "token ids (non-negative integers)", "");
    if (status == QWEN3_OK)
        status = qwen3_tokenizer_decode(job->tokenizer, ids, n, job->skip_special, &text, &length, err);
    if (status == QWEN3_OK)
        status = print_text(job, text, length, err);
    free(text);
    free(ids);
    return status;
}

/* ---- Both */

/* Puts the line before the library's messages. */
static qwen3_status run_line(const text_job *job, const input *in, qwen3_error *err)
{
    qwen3_error fault = {0};
    qwen3_status status = job->to_ids ? tokenize_line(job, in, &fault) : detokenize_ids(job, in, &fault);
    if (status != QWEN3_OK && strstr(fault.message, "standard ") != fault.message)
        return set_error(err, status, "standard input: line %zu: %.900s", in->line, fault.message);
    return status == QWEN3_OK ? status : set_error(err, status, "%s", fault.message);
}

static qwen3_status run_lines(const text_job *job, qwen3_error *err)
{
    input in = {0};
    qwen3_status status = QWEN3_OK;
    for (ssize_t got; status == QWEN3_OK && (got = getline(&in.text, &in.room, stdin)) >= 0;) {
        in.length = (size_t)got;
        in.line++;
        status = run_line(job, &in, err);
    }
    free(in.text);
    return status;
}

static qwen3_status run_whole(const text_job *job, qwen3_error *err)
{
    input in = {0};
    qwen3_status status = read_all(&in, err);
    if (status == QWEN3_OK)
        status = job->to_ids ? tokenize_text(job, in.text, in.length, err) : detokenize_ids(job, &in, err);
    free(in.text);
    return status;
}

/* On rank 0. */
static qwen3_status run_job(text_job *job, qwen3_error *err)
{
    qwen3_status status = qwen3_tokenizer_open(job->model, &job->tokenizer, err);
    if (status != QWEN3_OK)
        return status;
    status = job->batch ? run_lines(job, err) : run_whole(job, err);
    if (status == QWEN3_OK && ferror(stdin))
        status = set_error(err, QWEN3_ERR_IO, "standard input: cannot read");
    qwen3_tokenizer_close(job->tokenizer);
    return status;
}

static qwen3_status check_options(const text_job *job, qwen3_error *err)
{
    if (job->json && job->batch)
        return set_error(err, QWEN3_ERR_ARGUMENT, "--json contradicts --batch, whose lines are JSON anyway");
    return model_file_check(job->model, "DIR, a tokenizer.json or FILE.gguf", err);
}

static qwen3_status run_command(text_job *job, command_line *line, qwen3_comm *world, qwen3_error *err)
{
    int rank = qwen3_comm_rank(world);
    bool finished = false;
    if (options_parse(line, rank == 0 ? stdout : NULL, &finished, err) == QWEN3_OK && !finished && rank == 0 &&
        check_options(job, err) == QWEN3_OK)
        run_job(job, err);
    qwen3_status status = qwen3_comm_agree(world, err);
    options_free(line->options, line->n_options);
    return status;
}

static option tokenizer_option(text_job *job)
{
    return (option){.name = "model",
                    .short_name = 'm',
                    .kind = OPTION_TEXT,
                    .value = &job->model,
                    .argument = "DIR|FILE",
                    .help = "Directory with tokenizer.json, that file, or a GGUF file"};
}

qwen3_status command_tokenize(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err)
{
    text_job job = {.to_ids = true};
    option options[] = {
        tokenizer_option(&job),
        {.name = "json", .kind = OPTION_FLAG, .value = &job.json, .help = "Write the ids as a JSON array"},
        {.name = "batch",
         .kind = OPTION_FLAG,
         .value = &job.batch,
         .help = "Read a JSON string from each line, write a JSON array of ids for each"},
        {.name = "plain",
         .kind = OPTION_FLAG,
         .value = &job.plain,
         .help = "Read added tokens, such as <|im_end|>, as any other text"},
    };
    command_line line = {"qwen3 tokenize", self->summary, options, sizeof options / sizeof *options, argc, argv};
    return run_command(&job, &line, world, err);
}

qwen3_status command_detokenize(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err)
{
    text_job job = {.to_ids = false};
    option options[] = {
        tokenizer_option(&job),
        {.name = "json", .kind = OPTION_FLAG, .value = &job.json, .help = "Write the text as a JSON string"},
        {.name = "batch",
         .kind = OPTION_FLAG,
         .value = &job.batch,
         .help = "Read a JSON array of ids from each line, write a JSON string for each"},
        {.name = "skip-special",
         .kind = OPTION_FLAG,
         .value = &job.skip_special,
         .help = "Leave out special tokens, such as <|im_end|>"},
    };
    command_line line = {"qwen3 detokenize", self->summary, options, sizeof options / sizeof *options, argc, argv};
    return run_command(&job, &line, world, err);
}
