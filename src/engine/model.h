/* model.h - what an open model holds on one rank. */
#ifndef QWEN3_ENGINE_MODEL_H
#define QWEN3_ENGINE_MODEL_H

#include "attention/movement_prices.h"
#include "engine/plan.h"
#include "model/weights.h"

struct qwen3_model {
    int users; /* who opened it, sessions, variants of it: the last of them closes it */
    char *spec;
    qwen3_model_options options; /* as given; dtype is AUTO only where matrices have the types of a file */
    qwen3_config config;
    qwen3_plan plan;
    const kernels *kernels;
    weight_format format;
    char levels[128]; /* a note where ranks have unlike ones, or "" */
    source *source;
    movement_prices prices;   /* of sequence_comm */
    bool priced;              /* by the caller's machine; otherwise prices are the default ones */
    int64_t overlap_min_rows; /* of grid */
    grid_place place;
    weights weights;
    comm *world;         /* the caller's, shared */
    comm *sequence_comm; /* ranks with the same heads; rank = s */
    comm *head_comm;     /* ranks with the same positions; rank = h */
    comm *share_comm;    /* ranks of the sequence group on this node */
};

/* One more user of the model, who closes it too. */
qwen3_model *model_share(qwen3_model *m);

#endif
