/* output.c - see output.h. */
#include "output.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/program.h"
#include "launcher.h"
#include "terminal.h"

#define DIM "\033[2m"
#define PLAIN "\033[0m"

bool output_is_terminal(int fd, int ranks, bool *sure)
{
    pid_t launcher = launcher_find();
    *sure = launcher || ranks == 1;
    if (launcher)
        return launcher_has_terminal(launcher, fd);
    return ranks == 1 && isatty(fd);
}

output output_open(bool json, bool hide_thinking, int ranks)
{
    bool sure, seen = output_is_terminal(STDOUT_FILENO, ranks, &sure);
    return (output){
        .file = stdout, .json = json, .terminal = seen && !json, .safe = seen || !sure, .hide_thinking = hide_thinking};
}

void output_close(output *out)
{
    terminal_keep_output_end();
    text_free(&out->shown);
}

/* The length of the control character of well-formed text at `at`; 0 if it is none. Newlines and tabs are text. */
static size_t control_character(const unsigned char *at, size_t n)
{
    if (*at < 0x20 || *at == 0x7F)
        return *at != '\n' && *at != '\t';
    return n >= 2 && *at == 0xC2 && at[1] < 0xA0 ? 2 : 0; /* U+0080 to U+009F */
}

/* Text for a terminal: control characters are shown as symbols (U+2400 and following) or as U+FFFD. */
static qwen3_status make_safe(text_buffer *shown, const char *text, size_t n, qwen3_error *err)
{
    const unsigned char *bytes = (const unsigned char *)text;
    qwen3_status status = QWEN3_OK;
    text_clear(shown);
    for (size_t i = 0, begin = 0; i <= n && status == QWEN3_OK; i++) {
        size_t control = i < n ? control_character(bytes + i, n - i) : 0;
        if (i < n && control == 0)
            continue;
        status = text_append(shown, text + begin, i - begin, err);
        if (control > 0 && status == QWEN3_OK) {
            char symbol[] = "\xE2\x90\x80";
            symbol[2] = (char)(0x80 + (bytes[i] == 0x7F ? 0x21 : bytes[i] & 0x1F));
            status = text_append(shown, control == 2 ? "\xEF\xBF\xBD" : symbol, 3, err);
            i += control - 1;
            begin = i + 1;
        }
    }
    return status;
}

static json_t *part_event(part_kind kind, const char *text, size_t n)
{
    return json_pack("{ss,ss%}", "event", kind == PART_TEXT ? "text" : "thinking", "text", text, n);
}

qwen3_status output_part(output *out, part_kind kind, const char *text, size_t n, qwen3_error *err)
{
    if (n == 0 || (out->hide_thinking && kind != PART_TEXT))
        return QWEN3_OK;
    if (out->json)
        return kind == PART_MARK ? QWEN3_OK : output_event(out, part_event(kind, text, n), err);
    out->last = text[n - 1];
    if (out->safe) {
        qwen3_status status = make_safe(&out->shown, text, n, err);
        if (status != QWEN3_OK)
            return status;
        text = out->shown.data;
        n = out->shown.n;
    }
    /* Each part is coloured by itself: whenever the program ends, the terminal is as it was. */
    bool dimmed = out->terminal && kind != PART_TEXT;
    if (out->terminal)
        terminal_keep_output();
    if (dimmed)
        fputs(DIM, out->file);
    fwrite(text, 1, n, out->file);
    if (dimmed)
        fputs(PLAIN, out->file);
    return flush_output(out->file, "standard output", err);
}

qwen3_status output_end(output *out, qwen3_error *err)
{
    if ((out->terminal || out->new_line) && out->last && out->last != '\n')
        fputc('\n', out->file);
    out->last = '\0';
    qwen3_status status = flush_output(out->file, "standard output", err);
    terminal_keep_output_end();
    return status;
}

qwen3_status output_event(output *out, json_t *event, qwen3_error *err)
{
    if (!event)
        return set_error(err, QWEN3_ERR_MEMORY, "event: out of memory");
    const size_t form = JSON_COMPACT | JSON_REAL_PRECISION(9) | (out->safe ? JSON_ENSURE_ASCII : 0);
    char *line = out->json ? json_dumps(event, form) : NULL;
    if (line)
        fprintf(out->file, "%s\n", line);
    else if (out->json)
        set_error(err, QWEN3_ERR_MEMORY, "event: out of memory");
    free(line);
    json_decref(event);
    flush_output(out->file, "standard output", err);
    return err->status;
}

/* A message that ends in the middle of a character, or quotes bytes that are no text, is shown in ASCII. */
static void make_printable(char *message)
{
    json_t *text = json_string(message);
    for (char *at = message; *at; at++)
        if (((unsigned char)*at < 0x20 && *at != '\n') || *at == 0x7F || (!text && (unsigned char)*at >= 0x80))
            *at = '?';
    json_decref(text);
}

qwen3_status output_note(output *out, const char *event, qwen3_error *err, const char *format, ...)
{
    char message[2000];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    make_printable(message);
    if (out->json)
        return output_event(out, json_pack("{ss,ss}", "event", event, "message", message), err);
    fflush(out->file);
    fprintf(out->terminal ? out->file : stderr, "%s\n", message);
    return out->terminal ? flush_output(out->file, "standard output", err) : QWEN3_OK;
}
