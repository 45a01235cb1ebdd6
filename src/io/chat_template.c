/* chat_template.c - opens the template of a model directory and renders conversations with it. */
#include "io/chat_template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/gguf.h"
#include "io/json_file.h"

static qwen3_status recognise(const char *path, const char *member, const char *text, size_t length,
                              const qwen3_chat_template **known, qwen3_error *err)
{
    *known = chat_template_recognise(text, length);
    if (*known)
        return QWEN3_OK;
    return fail(err, QWEN3_ERR_UNSUPPORTED,
                "%s%s: is none of the chat templates that are rendered, expected that of Qwen3, Qwen3-2507-Instruct or "
                "Qwen3-2507-Thinking as published",
                path, member);
}

static qwen3_status read_jinja(const char *path, const qwen3_chat_template **known, qwen3_error *err)
{
    void *text;
    size_t length;
    qwen3_status status = file_map(path, &text, &length, err);
    if (status)
        return status;
    status = recognise(path, "", text, length, known, err);
    file_unmap(text, length);
    return status;
}

static qwen3_status read_config(const char *path, const qwen3_chat_template **known, qwen3_error *err)
{
    json_t *root;
    qwen3_status status = json_file_load(path, &root, err);
    if (status)
        return status;
    const json_t *text = json_object_get(root, "chat_template");
    if (!text)
        status = fail(err, QWEN3_ERR_FORMAT, "%s: chat_template is missing, and there is no chat_template.jinja", path);
    else if (!json_is_string(text))
        status = fail(err, QWEN3_ERR_UNSUPPORTED, "%s: chat_template: expected a string", path);
    else
        status = recognise(path, ": chat_template", json_string_value(text), json_string_length(text), known, err);
    json_decref(root);
    return status;
}

static qwen3_status read_gguf(const char *path, const qwen3_chat_template **known, qwen3_error *err)
{
    gguf_file file;
    gguf_text text = {0};
    qwen3_status status = gguf_file_open(path, &file, err);
    const gguf_section s = {&file, "tokenizer.", err};
    if (!status)
        status = gguf_read_text(&s, "chat_template", &text);
    if (!status)
        status = recognise(path, ": tokenizer.chat_template", text.data, text.bytes, known, err);
    gguf_file_close(&file);
    return status;
}

qwen3_status qwen3_chat_template_open(const char *dir, qwen3_chat_template **chat, qwen3_error *err)
{
    qwen3_error local;
    const qwen3_chat_template *known = NULL;
    char *jinja = NULL, *config = NULL, *metadata = NULL;
    qwen3_status status;
    err = error_begin(err, &local);
    if (missing(chat, "chat", err))
        return err->status;
    *chat = NULL;
    if (missing(dir, "dir", err))
        return err->status;
    if (asprintf(&jinja, "%s/chat_template.jinja", dir) < 0 || asprintf(&config, "%s/tokenizer_config.json", dir) < 0)
        status = fail(err, QWEN3_ERR_MEMORY, "%s: out of memory", dir);
    else if (!(status = gguf_metadata_path(dir, &metadata, err)) && metadata)
        status = read_gguf(metadata, &known, err);
    else if (!status && file_exists(jinja))
        status = read_jinja(jinja, &known, err);
    else if (!status)
        status = read_config(config, &known, err);
    if (!status && !(*chat = malloc(sizeof **chat)))
        status = fail(err, QWEN3_ERR_MEMORY, "%s: chat template: out of memory", dir);
    if (!status)
        **chat = *known;
    free(jinja);
    free(config);
    free(metadata);
    return status;
}

void qwen3_chat_template_close(qwen3_chat_template *chat)
{
    free(chat);
}

qwen3_chat_thinking qwen3_chat_template_thinking(const qwen3_chat_template *chat)
{
    return chat ? chat->thinking : QWEN3_THINKING_OPTIONAL;
}

qwen3_chat_options qwen3_chat_options_default(void)
{
    return (qwen3_chat_options){.enable_thinking = true, .add_generation_prompt = true};
}

qwen3_status qwen3_chat_template_render(const qwen3_chat_template *chat, const qwen3_render_args *args,
                                        qwen3_chat_prompt *prompt, qwen3_error *err)
{
    qwen3_error local;
    chat_conversation read;
    err = error_begin(err, &local);
    if (missing(prompt, "prompt", err))
        return err->status;
    *prompt = (qwen3_chat_prompt){0};
    if (missing(chat, "chat", err) || missing(args, "args", err) || missing(args->conversation, "conversation", err))
        return err->status;
    qwen3_status status = chat_conversation_read(args, chat->null_content, &read, err);
    if (status)
        return status;
    chat_builder builder = {0};
    chat_template_write(chat, &read, &builder);
    chat_conversation_free(&read);
    if (builder.failed) {
        qwen3_chat_prompt_free(&builder.prompt);
        return fail(err, QWEN3_ERR_MEMORY, "chat template: out of memory for the prompt");
    }
    *prompt = builder.prompt;
    return QWEN3_OK;
}
