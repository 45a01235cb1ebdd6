/* program.h - start and end of every program: ranks, one error message, exit status. */
#ifndef PROGRAM_H
#define PROGRAM_H

#include <stdio.h>

#include "common/error.h"

/* Exit statuses. */
enum { EXIT_OK = 0, EXIT_OUT_OF_TOLERANCE = 1, EXIT_ERROR = 2 };

/* The body of a program; called by every rank of `world`. All ranks return the same status and, if it is QWEN3_OK, the
 * same *exit_status. */
typedef qwen3_status (*program_body)(qwen3_comm *world, int argc, const char **argv, int *exit_status,
                                     qwen3_error *err);

/* Starts the ranks, sees that they were started alike (start.h), runs body and ends the ranks. On failure rank 0 prints
 * one message, "qwen3: error: ..." on stderr. Returns the exit status of the process. */
int program_run(int argc, char **argv, program_body body);

/* n * size zeroed bytes (at least one), freed with free(); NULL on failure. `what` names them in the error. */
void *allocate(size_t n, size_t size, const char *what, qwen3_error *err);

/* Flushes buffered output; a full disk or a closed pipe is an error. */
qwen3_status flush_output(FILE *file, const char *name, qwen3_error *err);

#endif
