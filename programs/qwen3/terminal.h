/* terminal.h - a terminal to talk at, also behind an MPI launcher.
 *
 * A launcher reads the terminal and hands what it reads to rank 0 through a pipe; Ctrl-C, a signal to the launcher,
 * ends the job. But rank 0 can open the launcher's terminal and change its modes: without lines, every key comes
 * through the pipe as it is pressed, and without an interrupt character Ctrl-C is a key like any other. */
#ifndef TERMINAL_H
#define TERMINAL_H

#include <stdbool.h>
#include <stdio.h>

#define KEY_INTERRUPT 3 /* Ctrl-C */

typedef struct terminal {
    FILE *modes;    /* the terminal, for its modes; NULL where there is none */
    FILE *out;      /* what is shown */
    int keys;       /* what is typed comes here */
    bool forwarded; /* by way of a launcher: Ctrl-C comes as a key */
} terminal;

/* The terminal on standard input and output, of this process or else of its launcher, which then is not interrupted any
 * more (the editor sets the other modes); false where there is none, or the launcher is in the background. */
bool terminal_open(terminal *t);
void terminal_close(terminal *t);

/* At Ctrl-C a terminal drops what was written to it and not shown yet, and may be left with half an escape sequence, or
 * without the one that ends a colour. The terminal of this process does not do so from here on until
 * terminal_keep_output_end, or until a signal ends the process. Nothing happens at another one. */
void terminal_keep_output(void);
void terminal_keep_output_end(void);

#endif
