/* interrupt.c - see interrupt.h. */
#include "interrupt.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t interrupted;

static void take(int signal)
{
    (void)signal;
    interrupted = 1;
}

void interrupt_install(void)
{
    struct sigaction action = {.sa_handler = take}; /* without SA_RESTART: waiting for input ends */
    sigaction(SIGINT, &action, NULL);
}

bool interrupt_taken(void)
{
    bool taken = interrupted;
    interrupted = 0;
    return taken;
}
