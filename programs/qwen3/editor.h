/* editor.h - one line of input at a terminal, edited, with history (libedit). */
#ifndef EDITOR_H
#define EDITOR_H

#include <stdio.h>

#include "common/text_buffer.h"

typedef enum line_end {
    LINE_COMPLETE = 0,
    LINE_INTERRUPTED, /* Ctrl-C: what was typed is dropped */
    LINE_END,         /* no more input */
} line_end;

typedef struct editor editor;

/* NULL where the terminal cannot be used for that (TERM unset or "dumb"). */
editor *editor_open(FILE *in, FILE *out);
void editor_close(editor *e);
/* Appends a line, without its newline, to *line; pasted text may hold newlines. */
line_end editor_line(editor *e, const char *prompt, text_buffer *line, qwen3_error *err);
/* Remembers a text for the arrow keys. */
void editor_remember(editor *e, const char *text);

#endif
