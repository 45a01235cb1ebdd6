/* editor.h - one line of input at a terminal, edited, with history (libedit). */
#ifndef EDITOR_H
#define EDITOR_H

#include "common/text_buffer.h"
#include "terminal.h"

typedef enum line_end {
    LINE_COMPLETE = 0,
    LINE_INTERRUPTED, /* Ctrl-C: what was typed is dropped */
    LINE_END,         /* end of input */
} line_end;

typedef struct editor editor;

/* The terminal must outlive the editor. NULL if it cannot edit lines (TERM unset or "dumb"). */
editor *editor_open(const terminal *t);
void editor_close(editor *e);
/* Appends a line, without its newline, to *line; pasted text may hold newlines. */
line_end editor_line(editor *e, const char *prompt, text_buffer *line, qwen3_error *err);
/* Whether the key Ctrl-C was pressed between lines; other keys are kept for the next line. Does not wait. */
bool editor_interrupted(editor *e);
/* Adds a text to the history. */
void editor_remember(editor *e, const char *text);

#endif
