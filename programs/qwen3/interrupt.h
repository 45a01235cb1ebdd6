/* interrupt.h - Ctrl-C as a flag. Launchers send it to every rank or to none: every rank catches it, and that of rank 0
 * counts. */
#ifndef INTERRUPT_H
#define INTERRUPT_H

#include <stdbool.h>

/* From now on SIGINT only sets the flag. */
void interrupt_install(void);
/* Whether SIGINT came since the last call. */
bool interrupt_taken(void);
/* Ends this process by SIGINT. */
void interrupt_end(void);

#endif
