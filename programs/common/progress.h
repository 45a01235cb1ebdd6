/* progress.h - a line on the terminal of standard error that says how far something is, once it takes longer than a
 * second. Elsewhere nothing is written. */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <stdbool.h>
#include <stdio.h>

typedef struct progress {
    FILE *out; /* NULL: no terminal */
    const char *what, *unit;
    double total;        /* in units */
    double begin, shown; /* times of seconds_now: of the beginning, and of the last line */
    bool visible;
} progress;

/* Standard error must be a terminal that can erase a line. */
progress progress_begin(const char *what, const char *unit, double total);
void progress_update(progress *p, double done);
/* Erases the line. */
void progress_end(progress *p);

#endif
