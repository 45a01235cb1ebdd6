/* interrupt.h - Ctrl-C as something to ask for. Launchers send it to every rank or to none, so every rank takes it
 * and rank 0's counts. */
#ifndef INTERRUPT_H
#define INTERRUPT_H

#include <stdbool.h>

/* From now on SIGINT ends nothing. */
void interrupt_install(void);
/* Whether it came since this was last asked. */
bool interrupt_taken(void);

#endif
