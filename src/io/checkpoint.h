/* checkpoint.h - a model directory in the published layout: model.safetensors, or the shards that
 * model.safetensors.index.json names. */
#ifndef QWEN3_IO_CHECKPOINT_H
#define QWEN3_IO_CHECKPOINT_H

#include "io/safetensors.h"

typedef struct checkpoint {
    char *dir;
    safetensors *files;
    size_t n_files;
    struct checkpoint_index *index; /* name -> tensor */
} checkpoint;

/* With an index: every file it names is opened (a name with '/' or ".." is refused), every tensor is
 * where weight_map says, and no tensor stands in two files. *c is zeroed on failure. */
qwen3_status checkpoint_open(const char *dir, checkpoint *c, qwen3_error *err);
void checkpoint_close(checkpoint *c);
/* NULL where there is none. */
const stored_tensor *checkpoint_find(const checkpoint *c, const char *name);

#endif
