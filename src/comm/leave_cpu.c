/* leave_cpu.c - how a rank that waits for others leaves the CPU. */
#include <sched.h>
#include <unistd.h>

#include "base/clock.h"
#include "comm/comm_backend.h"

/* A yield that takes longer has let somebody else run. */
#define YIELD_SECONDS 50e-6
#define SHORT_SLEEP 20e-6
/* A wait that has lasted this long sleeps for this part of the time that it has lasted, so it notices the end not much
 * later: waiting for a person to type must not keep a CPU busy. */
#define WAIT_SECONDS 5e-3
#define SLEEP_PART 0.05
#define LONGEST_SLEEP 1e-3

void leave_cpu(long_wait *w, bool idles)
{
    const double now = seconds_now();
    if (w->begin == 0)
        w->begin = now;
    const double waited = now - w->begin;
    if (idles && waited >= WAIT_SECONDS) {
        const double sleep = SLEEP_PART * waited;
        usleep((useconds_t)(1e6 * (sleep < LONGEST_SLEEP ? sleep : LONGEST_SLEEP)));
    } else if (w->shared) {
        usleep((useconds_t)(1e6 * SHORT_SLEEP));
    } else {
        sched_yield();
        w->shared = seconds_now() - now > YIELD_SECONDS;
    }
}
