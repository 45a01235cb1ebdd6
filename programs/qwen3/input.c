/* input.c - see input.h. */
#include "input.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "interrupt.h"

#define PROMPT "> "
#define PROMPT_MORE ". "
#define QUOTES "\"\"\""
#define STOP "/stop"

/* Each wait is short, as a signal may come just before it begins. */
enum { POLL_MS = 200 };

void input_edit(input *in)
{
    if (!terminal_open(&in->terminal))
        return;
    in->editor = editor_open(&in->terminal);
    if (!in->editor) {
        terminal_close(&in->terminal);
        return;
    }
    in->prompts = true;
    in->out = in->terminal.out;
}

void input_close(input *in)
{
    editor_close(in->editor);
    terminal_close(&in->terminal);
    text_free(&in->waiting);
}

/* ---- Lines without an editor -------------------------------------------------------------------- */

/* Reads what there is; false if nothing comes within the time. */
static bool read_some(input *in, int timeout_ms, qwen3_error *err)
{
    char bytes[4096];
    struct pollfd file = {.fd = STDIN_FILENO, .events = POLLIN};
    int ready = poll(&file, 1, timeout_ms);
    if (ready <= 0)
        return false;
    ssize_t got = read(file.fd, bytes, sizeof bytes);
    if (got > 0)
        return text_append(&in->waiting, bytes, (size_t)got, err) == QWEN3_OK;
    if (got < 0 && errno != EINTR && errno != EAGAIN)
        set_error(err, QWEN3_ERR_IO, "standard input: cannot read: %s", strerror(errno));
    in->ended = got == 0;
    return false;
}

/* The bytes of the next line with its end; 0 if it is not complete. */
static size_t next_line(const input *in, size_t *content)
{
    const char *newline = in->waiting.n > 0 ? memchr(in->waiting.data, '\n', in->waiting.n) : NULL;
    size_t whole = newline ? (size_t)(newline - in->waiting.data) + 1 : in->ended ? in->waiting.n : 0;
    *content = whole - (newline != NULL);
    if (*content > 0 && in->waiting.data[*content - 1] == '\r')
        --*content;
    return whole;
}

static bool is_stop(const input *in, size_t content)
{
    return content == strlen(STOP) && memcmp(in->waiting.data, STOP, content) == 0;
}

static void show(input *in, const char *text)
{
    if (in->prompts) {
        fputs(text, in->out);
        fflush(in->out);
    }
}

static line_end plain_line(input *in, const char *prompt, text_buffer *line, qwen3_error *err)
{
    size_t content, whole;
    show(in, prompt);
    while ((whole = next_line(in, &content)) == 0 || is_stop(in, content)) {
        text_drop(&in->waiting, whole);
        if (interrupt_taken()) {
            text_clear(&in->waiting);
            show(in, "\n");
            return LINE_INTERRUPTED;
        }
        if (err->status != QWEN3_OK || (whole == 0 && in->ended)) {
            show(in, "\n");
            return LINE_END;
        }
        if (whole == 0)
            read_some(in, POLL_MS, err);
    }
    qwen3_status status = text_append(line, in->waiting.data, content, err);
    text_drop(&in->waiting, whole);
    return status == QWEN3_OK ? LINE_COMPLETE : LINE_END;
}

bool input_stops(input *in)
{
    qwen3_error err = {0};
    size_t content;
    if (interrupt_taken())
        return true;
    if (in->editor)
        return editor_interrupted(in->editor);
    while (!in->ended && next_line(in, &content) == 0 && read_some(in, 0, &err))
        continue;
    size_t whole = next_line(in, &content);
    if (whole == 0 || !is_stop(in, content))
        return false;
    text_drop(&in->waiting, whole);
    return true;
}

/* ---- Input of several lines --------------------------------------------------------------------- */

static line_end read_line(input *in, const char *prompt, text_buffer *line, qwen3_error *err)
{
    return in->editor ? editor_line(in->editor, prompt, line, err) : plain_line(in, prompt, line, err);
}

/* Reads up to a line that is only """, which is at text->data + first. */
static line_end read_quoted(input *in, text_buffer *text, qwen3_error *err)
{
    text_clear(text);
    for (;;) {
        size_t first = text->n;
        line_end end = read_line(in, PROMPT_MORE, text, err);
        if (end != LINE_COMPLETE)
            return end;
        if (strcmp(text->data + first, QUOTES) == 0) {
            text->n = first > 0 ? first - 1 : 0; /* without the newline before it */
            text->data[text->n] = '\0';
            return LINE_COMPLETE;
        }
        if (text_append(text, "\n", 1, err) != QWEN3_OK)
            return LINE_END;
    }
}

line_end input_read(input *in, text_buffer *text, qwen3_error *err)
{
    text_clear(text);
    line_end end = read_line(in, PROMPT, text, err);
    if (end != LINE_COMPLETE)
        return end;
    if (strcmp(text->data, QUOTES) == 0) {
        end = read_quoted(in, text, err);
    } else {
        while (end == LINE_COMPLETE && text->n > 0 && text->data[text->n - 1] == '\\') {
            text->data[text->n - 1] = '\n';
            end = read_line(in, PROMPT_MORE, text, err);
        }
    }
    /* The last line of a file may have no newline, or a backslash and no next line. */
    if (end == LINE_END && err->status == QWEN3_OK && text->n > 0)
        end = LINE_COMPLETE;
    if (end == LINE_COMPLETE && in->editor && text->n > 0)
        editor_remember(in->editor, text->data);
    return end;
}
