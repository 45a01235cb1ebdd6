/* input.h - what the user says, on rank 0: lines of standard input, or of a terminal with an editor. */
#ifndef INPUT_H
#define INPUT_H

#include "editor.h"
#include "terminal.h"

typedef struct input {
    editor *editor; /* NULL: lines of standard input as they come */
    terminal terminal;
    bool prompts; /* somebody is asked: prompts are written to `out` */
    FILE *out;
    text_buffer waiting; /* without an editor: read and not yet taken */
    bool ended;          /* without an editor: there is no more to read */
} input;

/* Takes a terminal with an editor for the lines of standard input, which `in` is for until then, where there is one.
 * *in stays where it is from then on. */
void input_edit(input *in);
void input_close(input *in);

/* Appends what the user says to *text: a line; lines that end in a backslash and the next; lines between two that
 * hold """ and nothing else; with an editor, pasted lines. Without an editor a line that is no more than "/stop" is
 * skipped: nothing is being answered. */
line_end input_read(input *in, text_buffer *text, qwen3_error *err);
/* Whether an answer shall end: Ctrl-C was pressed, or without an editor the line "/stop" is next. Does not wait. */
bool input_stops(input *in);

#endif
