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
    /* Writing continues; poll, which waits for input, ends nevertheless. */
    struct sigaction action = {.sa_handler = take, .sa_flags = SA_RESTART};
    sigaction(SIGINT, &action, NULL);
}

bool interrupt_taken(void)
{
    bool taken = interrupted;
    interrupted = 0;
    return taken;
}

void interrupt_end(void)
{
    signal(SIGINT, SIG_DFL);
    raise(SIGINT);
}
