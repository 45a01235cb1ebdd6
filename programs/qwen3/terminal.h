/* terminal.h - takes the terminal over from an MPI launcher.
 *
 * A launcher reads the terminal and hands bytes to rank 0, whose standard input is a pipe: no line can be edited, and
 * Ctrl-C goes to the launcher, which (Open MPI's) ends the job. But where rank 0 runs on the same machine, in the
 * launcher's session, it can open the terminal itself and become its foreground process group, as a shell makes a job
 * that of its terminal: then it gets keys and Ctrl-C, and the launcher, in the background, neither. */
#ifndef TERMINAL_H
#define TERMINAL_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

typedef struct terminal {
    FILE *in, *out; /* NULL where it was not taken */
    pid_t owner;    /* the process group that it goes back to; 0 = it was always ours */
} terminal;

/* The terminal of this process, where it has one of its own on standard input and output; or that of its launcher,
 * taken over; false where there is neither. */
bool terminal_open(terminal *t);
void terminal_close(terminal *t);

#endif
