/* signals.c - see signals.h. */
#include "common/signals.h"

#include <assert.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

enum { MAX_UNDO = 4 };

static void (*undo_functions[MAX_UNDO])(void);

void signals_run_undo(void)
{
    for (size_t i = 0; i < MAX_UNDO && undo_functions[i]; i++)
        undo_functions[i]();
}

static void undo_and_end(int number)
{
    signals_run_undo();
    signal(number, SIG_DFL);
    raise(number);
}

void signals_undo(void (*undo)(void))
{
    static const int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXCPU};
    size_t n = 0;
    while (n < MAX_UNDO && undo_functions[n] && undo_functions[n] != undo)
        n++;
    assert(n < MAX_UNDO);
    undo_functions[n] = undo;
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction action;
        if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler == SIG_DFL)
            signal(signals[i], undo_and_end);
    }
}
