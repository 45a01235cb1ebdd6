/* chat_prompt.c - see chat_prompt.h. */
#include "io/chat_prompt.h"

#include <stdlib.h>
#include <string.h>

#include "io/json_python.h"

static bool reserve(chat_builder *b, size_t more)
{
    qwen3_chat_prompt *p = &b->prompt;
    if (p->length + more + 1 > b->room) {
        size_t room = 2 * (p->length + more) + 256;
        char *text = realloc(p->text, room);
        if (!text)
            return false;
        p->text = text;
        b->room = room;
    }
    if (p->n_segments == b->segments_room) {
        size_t room = 2 * b->segments_room + 16;
        qwen3_chat_segment *segments = realloc(p->segments, room * sizeof *segments);
        if (!segments)
            return false;
        p->segments = segments;
        b->segments_room = room;
    }
    return true;
}

static void add(chat_builder *b, const char *data, size_t length, bool is_content)
{
    qwen3_chat_prompt *p = &b->prompt;
    if (length == 0 || b->failed)
        return;
    if (!reserve(b, length)) {
        b->failed = true;
        return;
    }
    if (p->n_segments == 0 || p->segments[p->n_segments - 1].is_content != is_content)
        p->segments[p->n_segments++] = (qwen3_chat_segment){p->length, p->length, is_content};
    memcpy(p->text + p->length, data, length);
    p->length += length;
    p->text[p->length] = '\0';
    p->segments[p->n_segments - 1].end = p->length;
}

void chat_add(chat_builder *builder, const char *text)
{
    add(builder, text, strlen(text), false);
}

void chat_add_content(chat_builder *builder, chat_text content)
{
    add(builder, content.data, content.length, true);
}

static void add_piece(void *builder, const char *text, size_t length)
{
    add(builder, text, length, true);
}

void chat_add_json(chat_builder *builder, const json_t *value)
{
    json_python_write(value, add_piece, builder);
}

void chat_add_str(chat_builder *builder, const json_t *value)
{
    json_python_write_str(value, add_piece, builder);
}

void qwen3_chat_prompt_free(qwen3_chat_prompt *prompt)
{
    if (!prompt)
        return;
    free(prompt->text);
    free(prompt->segments);
    *prompt = (qwen3_chat_prompt){0};
}
