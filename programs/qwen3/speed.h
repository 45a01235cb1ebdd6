/* speed.h - how fast a model should be on the ranks that run now, without loading it. */
#ifndef SPEED_H
#define SPEED_H

#include "qwen3.h"

typedef struct speed_options {
    char *machine_file; /* rates of this machine; NULL: they are measured */
    int threads;        /* of each rank, as in qwen3_model_options */
} speed_options;

/* Prints, on rank 0, decode and prefill as predicted for the types of weights whose rates are known: all that the file
 * has, otherwise dtype, which is measured. config and dtype are those of rank 0. Nothing is predicted of models that
 * live in the caches. Collective. */
qwen3_status print_speed(qwen3_comm *world, const qwen3_config *config, qwen3_dtype dtype, const speed_options *options,
                         qwen3_error *err);

#endif
