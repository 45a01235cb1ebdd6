/* input.h - input of the user, on rank 0: lines of standard input, or of a terminal with an editor. */
#ifndef INPUT_H
#define INPUT_H

#include "editor.h"
#include "terminal.h"

typedef struct input {
    editor *editor; /* NULL: plain lines of standard input */
    terminal terminal;
    bool prompts; /* prompts are written to `out` */
    FILE *out;
    text_buffer waiting; /* without an editor: read, but not yet used */
    bool ended;          /* without an editor: end of input */
} input;

/* Switches from plain lines to a terminal with an editor, if there is one. *in must not be moved afterwards. */
void input_edit(input *in);
void input_close(input *in);

/* Appends one input to *text: a line; lines joined by a backslash at their ends; the lines between two lines of """;
 * with an editor, pasted lines. Without an editor a line "/stop" is skipped, as no answer is being written. */
line_end input_read(input *in, text_buffer *text, qwen3_error *err);
/* Whether to end an answer: Ctrl-C was pressed or, without an editor, the line "/stop" is next. Does not wait. */
bool input_stops(input *in);

#endif
