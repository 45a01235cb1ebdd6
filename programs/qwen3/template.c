/* template.c - qwen3 template: renders a conversation (JSON on standard input) as the prompt for a chat model. Rank 0
 * does the work. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "chat_template_option.h"
#include "command.h"
#include "common/model_arguments.h"
#include "common/program.h"
#include "common/text_file.h"

typedef struct template_job {
    char *directory, *name, *tools_file;
    bool no_thinking, no_generation_prompt, batch;
    qwen3_chat_template *chat;
    char *tools; /* [tools_bytes] */
    size_t tools_bytes;
} template_job;

static qwen3_status render(const template_job *job, const char *text, size_t bytes, qwen3_chat_prompt *prompt,
                           qwen3_error *err)
{
    qwen3_chat_options options = {!job->no_thinking, !job->no_generation_prompt};
    qwen3_render_args args = {text, bytes, job->tools, job->tools_bytes, &options};
    return qwen3_chat_template_render(job->chat, &args, prompt, err);
}

/* On rank 0, like the functions below. */
static qwen3_status render_one(const template_job *job, qwen3_error *err)
{
    size_t bytes;
    qwen3_chat_prompt prompt;
    char *text = text_stream_read(stdin, "standard input", "messages", &bytes, err);
    if (!text)
        return err->status;
    qwen3_status status = render(job, text, bytes, &prompt, err);
    if (status == QWEN3_OK)
        fwrite(prompt.text, 1, prompt.length, stdout); /* errors are found when the output is flushed */
    qwen3_chat_prompt_free(&prompt);
    free(text);
    return status;
}

static qwen3_status print_json_line(const qwen3_chat_prompt *prompt, qwen3_error *err)
{
    json_t *string = json_stringn(prompt->text, prompt->length);
    char *line = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
    qwen3_status status = QWEN3_OK;
    if (line)
        puts(line);
    else
        status = set_error(err, QWEN3_ERR_MEMORY, "prompt: out of memory");
    free(line);
    json_decref(string);
    return status;
}

/* The first failure ends the batch; lines already written stay. */
static qwen3_status render_line(const template_job *job, size_t number, const char *line, size_t bytes,
                                qwen3_error *err)
{
    qwen3_chat_prompt prompt;
    qwen3_error fault = {0};
    qwen3_status status = render(job, line, bytes, &prompt, &fault);
    if (status == QWEN3_OK)
        status = print_json_line(&prompt, &fault);
    qwen3_chat_prompt_free(&prompt);
    if (status != QWEN3_OK)
        set_error(err, status, "standard input: line %zu: %.900s", number, fault.message);
    return status;
}

static qwen3_status render_batch(const template_job *job, qwen3_error *err)
{
    char *line = NULL;
    size_t room = 0, number = 0;
    ssize_t bytes;
    qwen3_status status = QWEN3_OK;
    errno = 0;
    while (status == QWEN3_OK && (bytes = getline(&line, &room, stdin)) >= 0)
        status = render_line(job, ++number, line, (size_t)bytes, err);
    if (status == QWEN3_OK && !feof(stdin))
        status = set_error(err, QWEN3_ERR_IO, "messages: cannot read standard input: %s", strerror(errno));
    free(line);
    return status;
}

static qwen3_status run_job(template_job *job, qwen3_error *err)
{
    qwen3_status status = chat_template_choose(job->name, job->directory, &job->chat, err);
    if (status == QWEN3_OK && job->no_thinking && qwen3_chat_template_thinking(job->chat) == QWEN3_THINKING_ALWAYS)
        status = set_error(err, QWEN3_ERR_ARGUMENT, "--no-thinking: the model in %s always reasons",
                           job->directory ? job->directory : job->name);
    if (status == QWEN3_OK && job->tools_file &&
        !(job->tools = text_file_read(job->tools_file, "--tools", &job->tools_bytes, err)))
        status = err->status;
    if (status == QWEN3_OK)
        status = job->batch ? render_batch(job, err) : render_one(job, err);
    qwen3_chat_template_close(job->chat);
    free(job->tools);
    return status;
}

qwen3_status command_template(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err)
{
    template_job job = {0};
    option options[] = {
        {.name = "model",
         .short_name = 'm',
         .kind = OPTION_TEXT,
         .value = &job.directory,
         .argument = "DIR|FILE.gguf",
         .help = "Directory with chat_template.jinja or tokenizer_config.json, or a GGUF file"},
        chat_template_option(&job.name),
        {.name = "tools",
         .kind = OPTION_TEXT,
         .value = &job.tools_file,
         .argument = "FILE",
         .help = "Tools that the model may call: a JSON array of their definitions"},
        {.name = "no-thinking",
         .kind = OPTION_FLAG,
         .value = &job.no_thinking,
         .help = "Ask for an answer without reasoning"},
        {.name = "no-generation-prompt",
         .kind = OPTION_FLAG,
         .value = &job.no_generation_prompt,
         .help = "Do not open the assistant's turn at the end"},
        {.name = "batch",
         .kind = OPTION_FLAG,
         .value = &job.batch,
         .help = "Many conversations: an object {messages, tools, enable_thinking, add_generation_prompt} a line, all "
                 "but the first optional; each prompt becomes a line with a JSON string"},
    };
    enum { OPTIONS = sizeof options / sizeof *options };
    int rank = qwen3_comm_rank(world);
    command_line line = {"qwen3 template", self->summary, options, OPTIONS, argc, argv};
    bool finished = false;

    if (options_parse(&line, rank == 0 ? stdout : NULL, &finished, err) == QWEN3_OK && !finished) {
        const bool needs_model = !job.name || job.directory;
        if (rank == 0 && (!needs_model || model_spec_check(job.directory, "DIR or FILE.gguf", err) == QWEN3_OK))
            run_job(&job, err);
    }
    qwen3_status status = qwen3_comm_agree(world, err);
    options_free(options, OPTIONS);
    return status;
}
