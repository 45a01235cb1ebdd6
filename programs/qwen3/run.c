/* run.c - qwen3 run: one prompt and its answer, written as it comes. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "answer.h"
#include "command.h"
#include "common/program.h"
#include "common/text_file.h"
#include "common/utf8.h"
#include "prompt.h"

typedef struct run_job {
    generation_arguments arguments;
    char *prompt, *file;
    bool raw;
    generation g;
    /* rank 0 */
    token_prompt encoded;
    output out;
} run_job;

static void describe_options(run_job *job, option_table *table)
{
    const option own[] = {
        {.name = "PROMPT",
         .kind = OPTION_OPERAND,
         .value = &job->prompt,
         .utf8 = true,
         .help = "The prompt is PROMPT, or what --file or standard input holds"},
        {.name = "file",
         .short_name = 'f',
         .kind = OPTION_TEXT,
         .value = &job->file,
         .argument = "FILE",
         .help = "Read the prompt from a file; a newline at its end is not part of it"},
        {.name = "raw",
         .kind = OPTION_FLAG,
         .value = &job->raw,
         .help = "Complete the text as it is, without chat template; control tokens such as <|im_start|> in it count"},
    };
    option_table_add(table, sizeof own / sizeof *own, own);
    generation_options(&job->arguments, table);
}

static qwen3_status check_options(run_job *job, const command_line *line, int ranks, qwen3_error *err)
{
    static const char *const of_chat[] = {"system", "thinking", "no-thinking", "hide-thinking"};
    if (job->prompt && job->file)
        return set_error(err, QWEN3_ERR_ARGUMENT, "--file contradicts a prompt on the command line");
    for (size_t i = 0; job->raw && i < sizeof of_chat / sizeof *of_chat; i++)
        if (option_given(line, of_chat[i]))
            return set_error(err, QWEN3_ERR_ARGUMENT, "--%s contradicts --raw", of_chat[i]);
    return generation_check(&job->arguments, line, ranks, err);
}

/* The prompt becomes job->prompt, freed with it. A zero byte in it is text. */
static qwen3_status read_prompt(run_job *job, size_t *length, qwen3_error *err)
{
    if (job->prompt) {
        *length = strlen(job->prompt);
        return QWEN3_OK;
    }
    if (!job->file && isatty(STDIN_FILENO))
        return set_error(err, QWEN3_ERR_ARGUMENT,
                         "no prompt, expected one as an argument, in --file, or on standard input");
    job->prompt = job->file ? text_file_read(job->file, "--file", length, err)
                            : text_stream_read(stdin, "standard input", "prompt", length, err);
    if (!job->prompt)
        return err->status;
    *length -= *length > 0 && job->prompt[*length - 1] == '\n';
    if (*length == 0)
        return set_error(err, QWEN3_ERR_ARGUMENT, "prompt: is empty");
    return is_utf8(job->prompt, *length) ? QWEN3_OK
                                         : set_error(err, QWEN3_ERR_ARGUMENT, "prompt: %s is not well-formed UTF-8",
                                                     job->file ? job->file : "standard input");
}

static qwen3_status encode_chat(run_job *job, size_t length, qwen3_error *err)
{
    const char *system = job->arguments.system;
    json_t *question = json_pack("{ss,ss%}", "role", "user", "content", job->prompt, length);
    json_t *conversation = system
                               ? json_pack("{s[{ss,ss},o]}", "messages", "role", "system", "content", system, question)
                               : json_pack("{s[o]}", "messages", question);
    if (!conversation)
        return set_error(err, QWEN3_ERR_MEMORY, "prompt: out of memory");
    qwen3_status status =
        prompt_of_conversation(&job->g, conversation, !job->arguments.no_thinking, &job->encoded, err);
    json_decref(conversation);
    return status;
}

static qwen3_status encode_raw(run_job *job, size_t length, qwen3_error *err)
{
    const qwen3_encode_args args = {.text = job->prompt, .length = length};
    return qwen3_tokenizer_encode(job->g.tokenizer, &args, &job->encoded.tokens, &job->encoded.n, err);
}

/* On rank 0, before weights are loaded. */
static qwen3_status make_prompt(run_job *job, qwen3_error *err)
{
    size_t length = 0;
    qwen3_status status = read_prompt(job, &length, err);
    if (status == QWEN3_OK)
        status = job->raw ? encode_raw(job, length, err) : encode_chat(job, length, err);
    if (status != QWEN3_OK)
        return status;
    if ((int64_t)job->encoded.n > job->g.context)
        return set_error(err, QWEN3_ERR_CAPACITY, "prompt: has %zu tokens, the context holds %lld (%s)", job->encoded.n,
                         (long long)job->g.context, generation_context_hint(&job->g));
    return QWEN3_OK;
}

static qwen3_status say_start(run_job *job, qwen3_error *err)
{
    char seed[24];
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)job->g.config.sampling.seed);
    return output_event(&job->out,
                        json_pack("{ss,so,si,sI,sI,ss}", "event", "start", "model",
                                  json_of_path(job->arguments.model.spec), "ranks", qwen3_comm_size(job->g.world),
                                  "prompt_tokens", (json_int_t)job->encoded.n, "context", (json_int_t)job->g.context,
                                  "seed", seed),
                        err);
}

static qwen3_status say_end(run_job *job, const answer *a, qwen3_error *err)
{
    char text[512];
    answer_describe(&job->g, a, text, sizeof text);
    if (job->arguments.stats)
        fprintf(stderr, "%s; seed %llu\n", text, (unsigned long long)job->g.config.sampling.seed);
    return job->out.json ? output_event(&job->out, answer_event(&job->g, a), err) : QWEN3_OK;
}

/* Collective. */
static qwen3_status run_job_on(run_job *job, qwen3_comm *world, const command_line *line, qwen3_error *err)
{
    answer a = {0};
    answer_request request = {.raw = job->raw, .out = &job->out};
    qwen3_status status = generation_open_text(&job->g, world, &job->arguments, line, job->raw, err);
    if (status != QWEN3_OK)
        return status;
    bool root = job->g.rank == 0;
    if (root)
        make_prompt(job, err);
    status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK)
        status = generation_open_model(&job->g, err);
    if (status != QWEN3_OK)
        return status;
    if (root)
        say_start(job, err);
    status = qwen3_comm_agree(world, err);
    request.prompt = job->encoded.tokens;
    request.n_prompt = job->encoded.n;
    request.thinking = job->encoded.ends_in_thinking;
    if (status == QWEN3_OK)
        status = answer_generate(&job->g, &request, &a, err);
    if (status == QWEN3_OK) {
        if (root)
            say_end(job, &a, err);
        status = qwen3_comm_agree(world, err);
    }
    answer_free(&a);
    return status;
}

qwen3_status command_run(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err)
{
    run_job job = {.arguments = generation_arguments_default()};
    option_table table = {0};
    describe_options(&job, &table);
    int ranks = qwen3_comm_size(world), rank = qwen3_comm_rank(world);
    command_line line = {"qwen3 run", self->summary, table.options, table.n, argc, argv};
    bool finished = false;

    if (options_parse(&line, rank == 0 ? stdout : NULL, &finished, err) == QWEN3_OK && !finished)
        check_options(&job, &line, ranks, err);
    qwen3_status status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK && !finished) {
        if (rank == 0)
            job.out = output_open(job.arguments.json, job.arguments.hide_thinking, ranks);
        status = run_job_on(&job, world, &line, err);
        generation_close(&job.g);
    }
    output_close(&job.out);
    free(job.encoded.tokens);
    options_free(table.options, table.n);
    return status;
}
