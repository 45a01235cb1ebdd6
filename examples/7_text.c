/* Step 7: from text to text.
 *
 * The chat template makes a prompt of a conversation, the tokenizer makes tokens of it, the model continues them, and a
 * stream makes text of what it generates, token by token.
 *
 *   mpirun -n 2 7_text DIRECTORY "What is the capital of France?"
 *
 * DIRECTORY has weights, configuration, tokenizer and chat template, as that of the demo model has.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qwen3.h"

enum { MAX_NEW_TOKENS = 200 };

typedef struct chat {
    qwen3_chat_template *template;
    qwen3_tokenizer *tokenizer;
    qwen3_generation_config generation; /* how to sample, and what ends an answer */
    qwen3_model *model;
    qwen3_session *session;
    qwen3_sampler *sampler;
    qwen3_text_stream *stream;
} chat;

static void chat_close(chat *c)
{
    qwen3_text_stream_close(c->stream);
    qwen3_sampler_close(c->sampler);
    qwen3_session_close(c->session);
    qwen3_model_close(c->model);
    qwen3_tokenizer_close(c->tokenizer);
    qwen3_chat_template_close(c->template);
}

/* Collective. What has been opened is closed by chat_close, also on failure. */
static qwen3_status chat_open(chat *c, qwen3_comm *world, const char *directory, qwen3_error *err)
{
    /* Each rank reads these for itself; then all agree whether all of them could. */
    if (qwen3_chat_template_open(directory, &c->template, err) == QWEN3_OK &&
        qwen3_tokenizer_open(directory, &c->tokenizer, err) == QWEN3_OK &&
        qwen3_text_stream_open(c->tokenizer, true, &c->stream, err) == QWEN3_OK)
        qwen3_generation_config_read(directory, &c->generation, err);
    if (qwen3_comm_agree(world, err) != QWEN3_OK)
        return err->status;

    if (qwen3_model_open(world, directory, NULL, &c->model, err) != QWEN3_OK ||
        qwen3_session_open(c->model, NULL, &c->session, err) != QWEN3_OK)
        return err->status;
    qwen3_sampler_open(qwen3_model_config(c->model), qwen3_tokenizer_vocab_size(c->tokenizer), &c->generation.sampling,
                       &c->sampler, err);
    return qwen3_comm_agree(world, err);
}

/* The tokens of a conversation of one question, *ids [*n], freed with free(). */
static qwen3_status make_prompt(const chat *c, const char *question, int32_t **ids, size_t *n, qwen3_error *err)
{
    char conversation[1024];
    qwen3_chat_prompt prompt = {0};
    qwen3_text_range *plain = NULL;
    /* A program would write JSON with a library: quotes in a question need escapes. */
    snprintf(conversation, sizeof conversation, "[{\"role\": \"user\", \"content\": \"%s\"}]", question);
    const qwen3_render_args render = {.conversation = conversation, .conversation_bytes = strlen(conversation)};
    qwen3_status status = qwen3_chat_template_render(c->template, &render, &prompt, err);
    if (status != QWEN3_OK)
        return status;

    /* What the user wrote is plain text: "<|im_end|>" in it is no control token. */
    qwen3_encode_args encode = {.text = prompt.text, .length = prompt.length};
    plain = calloc(prompt.n_segments + 1, sizeof *plain);
    for (size_t i = 0; plain && i < prompt.n_segments; i++)
        if (prompt.segments[i].is_content)
            plain[encode.n_plain++] = (qwen3_text_range){prompt.segments[i].begin, prompt.segments[i].end};
    encode.plain = plain;
    if (plain)
        status = qwen3_tokenizer_encode(c->tokenizer, &encode, ids, n, err);
    else
        status = err->status = QWEN3_ERR_MEMORY;
    free(plain);
    qwen3_chat_prompt_free(&prompt);
    return status;
}

/* Continues ids [n] until the model ends its answer. Rank 0 prints it. Collective. */
static qwen3_status answer(chat *c, const int32_t *ids, size_t n, bool root, qwen3_error *err)
{
    const char *text;
    size_t length;
    int32_t token;
    qwen3_batch batch = {.n_tokens = n, .tokens = ids};
    for (int i = 0; i < MAX_NEW_TOKENS; i++) {
        qwen3_status status = qwen3_forward(c->session, &batch, err);
        if (status == QWEN3_OK)
            status = qwen3_sample(c->session, &c->sampler, &token, err); /* the same token on all ranks */
        if (status != QWEN3_OK)
            return status;
        if (qwen3_generation_config_ends(&c->generation, token))
            break;
        /* Ranks other than 0 need no text, and none of them waits for it. */
        if (root && qwen3_text_stream_push(c->stream, token, &text, &length, NULL) == QWEN3_OK) {
            fwrite(text, 1, length, stdout);
            fflush(stdout);
        }
        batch = (qwen3_batch){.n_tokens = 1, .tokens = &token};
    }
    qwen3_text_stream_finish(c->stream, &text, &length);
    if (root)
        printf("%.*s\n", (int)length, text);
    return QWEN3_OK;
}

static qwen3_status run(qwen3_comm *world, const char *directory, const char *question, qwen3_error *err)
{
    chat c = {0};
    int32_t *ids = NULL;
    size_t n = 0;
    qwen3_status status = chat_open(&c, world, directory, err);
    if (status == QWEN3_OK) {
        make_prompt(&c, question, &ids, &n, err);
        status = qwen3_comm_agree(world, err);
    }
    if (status == QWEN3_OK)
        qwen3_sampler_accept(c.sampler, ids, n, false, err); /* penalties look at the prompt too */
    if (status == QWEN3_OK)
        status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK)
        status = answer(&c, ids, n, qwen3_comm_rank(world) == 0, err);
    free(ids);
    chat_close(&c);
    return status;
}

int main(int argc, char **argv)
{
    qwen3_error err = {0};
    qwen3_comm *world;
    qwen3_status status = qwen3_init(&argc, &argv, &world, &err);
    bool root = status != QWEN3_OK || qwen3_comm_rank(world) == 0;
    if (status == QWEN3_OK && argc != 3) {
        snprintf(err.message, sizeof err.message, "usage: 7_text DIRECTORY QUESTION");
        status = QWEN3_ERR_ARGUMENT;
    }
    if (status == QWEN3_OK)
        status = run(world, argv[1], argv[2], &err);
    if (status != QWEN3_OK && root)
        fprintf(stderr, "%s: %s\n", qwen3_status_name(status), err.message);
    qwen3_finalize();
    return status == QWEN3_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
