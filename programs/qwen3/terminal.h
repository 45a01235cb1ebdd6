/* terminal.h - the user's terminal, also behind an MPI launcher.
 *
 * A launcher reads the terminal and passes what it reads to rank 0 through a pipe. Ctrl-C is a signal to the launcher
 * and ends the job. But rank 0 can open the launcher's terminal and change its modes: without line mode every key comes
 * through the pipe when it is pressed, and without an interrupt character Ctrl-C is an ordinary key. */
#ifndef TERMINAL_H
#define TERMINAL_H

#include <stdbool.h>
#include <stdio.h>

#define KEY_INTERRUPT 3 /* Ctrl-C */

typedef struct terminal {
    FILE *modes;    /* the terminal, for its modes; NULL if there is none */
    FILE *out;      /* output */
    int keys;       /* descriptor of the input */
    bool forwarded; /* behind a launcher: Ctrl-C comes as a key */
} terminal;

/* The terminal on standard input and output, of this process or else of its launcher. Ctrl-C does not interrupt the
 * launcher from then on (the editor sets the other modes). False if there is none, or the launcher is in the
 * background. */
bool terminal_open(terminal *t);
void terminal_close(terminal *t);

/* At Ctrl-C a terminal drops output that it has not shown yet, and may be left inside an escape sequence or with a
 * colour on. Between these two calls, or until a signal ends the process, the terminal of this process keeps its
 * output. A launcher's terminal is not changed. */
void terminal_keep_output(void);
void terminal_keep_output_end(void);

#endif
