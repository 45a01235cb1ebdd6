/* loading.h - opening and packing a model, with a line on the terminal that says how far it is (progress.h). */
#ifndef LOADING_H
#define LOADING_H

#include "qwen3.h"

/* As qwen3_model_open and qwen3_model_pack; rank 0 of comm has the line. Collective. */
qwen3_status load_model(qwen3_comm *comm, const char *spec, const qwen3_model_options *options, qwen3_model **model,
                        qwen3_error *err);
qwen3_status convert_model(qwen3_comm *comm, const char *spec, const qwen3_model_options *options, const char *output,
                           qwen3_error *err);

#endif
