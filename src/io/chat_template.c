/* chat_template.c - opens the template of a model directory and renders conversations with it. */
#include "io/chat_template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/gguf.h"
#include "io/json_file.h"

/* A text of a template, and what is called it in messages. */
typedef struct template_text {
    const char *where, *text;
    size_t length;
} template_text;

/* *warning [CHAT_WARNING] is left as it is where the text is a published one. */
static qwen3_status choose(const template_text *t, chat_form *form, char *warning, qwen3_error *err)
{
    const known_template *known = chat_template_recognise(t->text, t->length);
    qwen3_status status = QWEN3_OK;
    if (!known)
        status = chat_template_nearest(t->where, t->text, t->length, &known, warning, err);
    if (!status)
        *form = known->form;
    return status;
}

static qwen3_status read_jinja(const char *path, qwen3_chat_template *chat, qwen3_error *err)
{
    void *text;
    size_t length;
    qwen3_status status = file_map(path, &text, &length, err);
    if (status)
        return status;
    const template_text t = {path, text, length};
    status = choose(&t, &chat->form, chat->warning, err);
    chat->with_tools = chat->form;
    file_unmap(text, length);
    return status;
}

/* The template of this name in a list of {"name", "template"}; text NULL: there is none. */
static template_text named_in(const json_t *list, const char *where, const char *name)
{
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry)
    {
        const json_t *text = json_object_get(entry, "template"), *its_name = json_object_get(entry, "name");
        if (json_is_string(text) && json_is_string(its_name) && strcmp(json_string_value(its_name), name) == 0)
            return (template_text){where, json_string_value(text), json_string_length(text)};
    }
    return (template_text){where, NULL, 0};
}

/* As the reference chooses: "tool_use" where there are tools, otherwise "default". */
static qwen3_status choose_from_list(const json_t *list, const char *where, qwen3_chat_template *chat, qwen3_error *err)
{
    const template_text plain = named_in(list, where, "default"), tools = named_in(list, where, "tool_use");
    if (!plain.text)
        return fail(err, QWEN3_ERR_FORMAT, "%s: expected a string, or a list of templates with one named \"default\"",
                    where);
    qwen3_status status = choose(&plain, &chat->form, chat->warning, err);
    chat->with_tools = chat->form;
    if (!status && tools.text)
        status = choose(&tools, &chat->with_tools, chat->warning, err);
    return status;
}

static qwen3_status read_config(const char *path, qwen3_chat_template *chat, qwen3_error *err)
{
    json_t *root;
    char *where = NULL;
    qwen3_status status = json_file_load(path, &root, err);
    if (status)
        return status;
    const json_t *text = json_object_get(root, "chat_template");
    if (asprintf(&where, "%s: chat_template", path) < 0) {
        status = fail(err, QWEN3_ERR_MEMORY, "%s: out of memory", path);
        where = NULL;
    } else if (!text) {
        status = fail(err, QWEN3_ERR_FORMAT, "%s: chat_template is missing, and there is no chat_template.jinja", path);
    } else if (json_is_string(text)) {
        const template_text t = {where, json_string_value(text), json_string_length(text)};
        status = choose(&t, &chat->form, chat->warning, err);
        chat->with_tools = chat->form;
    } else {
        status = choose_from_list(text, where, chat, err);
    }
    free(where);
    json_decref(root);
    return status;
}

static qwen3_status choose_gguf(const gguf_section *s, const char *key, chat_form *form, char *warning)
{
    gguf_text text = {0};
    char *where;
    qwen3_status status = gguf_read_text(s, key, &text);
    if (status)
        return status;
    if (asprintf(&where, "%s: %s%s", s->file->path, s->prefix, key) < 0)
        return fail(s->err, QWEN3_ERR_MEMORY, "%s: out of memory", s->file->path);
    status = choose(&(template_text){where, text.data, text.bytes}, form, warning, s->err);
    free(where);
    return status;
}

/* One template, and perhaps another for conversations with tools. */
static qwen3_status read_gguf(const char *path, qwen3_chat_template *chat, qwen3_error *err)
{
    gguf_file file;
    qwen3_status status = gguf_file_open(path, &file, err);
    const gguf_section s = {&file, "tokenizer.", err};
    if (!status)
        status = choose_gguf(&s, "chat_template", &chat->form, chat->warning);
    chat->with_tools = chat->form;
    if (!status && gguf_find(&s, "chat_template.tool_use"))
        status = choose_gguf(&s, "chat_template.tool_use", &chat->with_tools, chat->warning);
    gguf_file_close(&file);
    return status;
}

/* *chat is owned by the caller. */
static qwen3_status make(const char *what, qwen3_chat_template **chat, qwen3_error *err)
{
    *chat = calloc(1, sizeof **chat);
    return *chat ? QWEN3_OK : fail(err, QWEN3_ERR_MEMORY, "%s: chat template: out of memory", what);
}

static qwen3_status end_opening(qwen3_chat_template **chat, qwen3_status status)
{
    if (status) {
        free(*chat);
        *chat = NULL;
    }
    return status;
}

qwen3_status qwen3_chat_template_open(const char *dir, qwen3_chat_template **chat, qwen3_error *err)
{
    qwen3_error local;
    char *jinja = NULL, *config = NULL, *metadata = NULL;
    err = error_begin(err, &local);
    if (missing(chat, "chat", err))
        return err->status;
    *chat = NULL;
    if (missing(dir, "dir", err))
        return err->status;
    qwen3_status status = make(dir, chat, err);
    if (!status &&
        (asprintf(&jinja, "%s/chat_template.jinja", dir) < 0 || asprintf(&config, "%s/tokenizer_config.json", dir) < 0))
        status = fail(err, QWEN3_ERR_MEMORY, "%s: out of memory", dir);
    else if (!status && !(status = gguf_metadata_path(dir, &metadata, err)))
        status = metadata             ? read_gguf(metadata, *chat, err)
                 : file_exists(jinja) ? read_jinja(jinja, *chat, err)
                                      : read_config(config, *chat, err);
    free(jinja);
    free(config);
    free(metadata);
    return end_opening(chat, status);
}

qwen3_status qwen3_chat_template_load(const char *name, qwen3_chat_template **chat, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(chat, "chat", err))
        return err->status;
    *chat = NULL;
    if (missing(name, "name", err))
        return err->status;
    const known_template *known = chat_template_named(name);
    if (!known && !file_exists(name)) {
        char names[256];
        chat_template_names(names, sizeof names);
        return fail(err, QWEN3_ERR_ARGUMENT, "chat template %.200s: is no file; expected one, or one of %s", name,
                    names);
    }
    qwen3_status status = make(name, chat, err);
    if (!status && known)
        (*chat)->form = (*chat)->with_tools = known->form;
    else if (!status)
        status = read_jinja(name, *chat, err);
    return end_opening(chat, status);
}

const char *qwen3_chat_template_warning(const qwen3_chat_template *chat)
{
    return chat ? chat->warning : "";
}

void qwen3_chat_template_close(qwen3_chat_template *chat)
{
    free(chat);
}

qwen3_chat_thinking qwen3_chat_template_thinking(const qwen3_chat_template *chat)
{
    return chat ? chat->form.thinking : QWEN3_THINKING_OPTIONAL;
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
    const chat_null_content null_content[] = {chat->form.null_content, chat->with_tools.null_content};
    qwen3_status status = chat_conversation_read(args, null_content, &read, err);
    if (status)
        return status;
    const chat_form *form = read.tools ? &chat->with_tools : &chat->form;
    if (form->tools != CHAT_TOOLS_JSON)
        status = chat_coder_read_arguments(&read, err);
    chat_builder builder = {0};
    if (!status)
        chat_template_write(form, &read, &builder);
    chat_conversation_free(&read);
    if (status)
        return status;
    if (builder.failed) {
        qwen3_chat_prompt_free(&builder.prompt);
        return fail(err, QWEN3_ERR_MEMORY, "chat template: out of memory for the prompt");
    }
    *prompt = builder.prompt;
    return QWEN3_OK;
}
