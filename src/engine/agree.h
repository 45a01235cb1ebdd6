/* agree.h - what ranks must have alike before they work together. */
#ifndef QWEN3_ENGINE_AGREE_H
#define QWEN3_ENGINE_AGREE_H

#include "engine/model.h"

/* Compares what ranks have opened: options, configuration, and the files with a sample of their contents. Instruction
 * sets and threads may differ. *err may be a failure of this rank. Collective. */
qwen3_status agree_on_source(const qwen3_model *m, qwen3_error *err);
/* Compares the options as given. Collective. */
qwen3_status agree_on_session(const qwen3_model *m, const qwen3_session_options *options, qwen3_error *err);
/* Sets m->kernels to the best level that all ranks have, or have chosen, and m->levels to a note where not all have the
 * same. *chosen: a rank has chosen a level. Collective. */
qwen3_status agree_on_level(qwen3_model *m, bool *chosen, qwen3_error *err);

#endif
