/* signals.h - what is undone before a signal ends the program. */
#ifndef SIGNALS_H
#define SIGNALS_H

/* `undo` is called when one of the signals that end a program from outside (hang-up, interrupt, quit, terminate, CPU
 * time) does so. It may only make calls that are safe in a signal handler, and is called once more where a second
 * signal comes. A signal that is ignored or handled by somebody else stays what it is. */
void signals_undo(void (*undo)(void));
/* Calls them, for a handler of another signal that ends the program. */
void signals_run_undo(void);

#endif
