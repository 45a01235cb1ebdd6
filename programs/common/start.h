/* start.h - what ranks do before anything else: they wait for each other, not forever, and see that all of them were
 * started alike. */
#ifndef START_H
#define START_H

#include <pthread.h>

#include "common/error.h"

/* A limit on the time in which all ranks must come together: MPI itself waits forever for one that never calls it. */
typedef struct start_watch {
    bool running;
    int seconds;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t over;
    bool ended; /* under mutex */
} start_watch;

/* Begins to wait, for 60 s, or what the environment variable QWEN3_START_TIMEOUT says; 0 = no limit. When the time is
 * over the first rank of each host says who is there and who is not, and the process ends with EXIT_ERROR. */
qwen3_status start_watch_begin(start_watch *w, qwen3_error *err);
/* After the first collective call. Also after start_watch_begin has failed. */
void start_watch_end(start_watch *w);

/* All ranks must run the same program with the same arguments, but for --threads and --isa. *err may be a failure of
 * this rank. Collective. */
qwen3_status start_compare(qwen3_comm *world, int argc, const char *const *argv, qwen3_error *err);

#endif
