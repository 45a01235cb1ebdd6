/* checkpoint.h - a model directory in the published layout: model.safetensors, or the shards that
 * model.safetensors.index.json names; or that of a packed model: packed.safetensors. */
#ifndef QWEN3_IO_CHECKPOINT_H
#define QWEN3_IO_CHECKPOINT_H

#include "io/safetensors.h"

/* The file of a packed model (model/packed.h). */
#define PACKED_FILE "packed.safetensors"

typedef struct checkpoint {
    char *dir;
    safetensors *files;
    size_t n_files;
    struct checkpoint_index *index; /* name -> tensor */
    bool packed;                    /* files[0] is PACKED_FILE */
} checkpoint;

/* If both exist, model.safetensors is read and the index is ignored, as in the reference implementation. With an index,
 * every file it names is opened (a name with '/' or ".." is refused) and checked: every tensor but lm_head.weight is
 * where weight_map says, weight_map lists every tensor, and no tensor is in two files. metadata.total_size is ignored:
 * published ones count tensors, files or something else. PACKED_FILE is looked for last. *c is zeroed on failure. */
qwen3_status checkpoint_open(const char *dir, checkpoint *c, qwen3_error *err);
void checkpoint_close(checkpoint *c);
/* NULL if there is none. */
const stored_tensor *checkpoint_find(const checkpoint *c, const char *name);
/* The path of the file that holds a tensor of the checkpoint. */
const char *checkpoint_path_of(const checkpoint *c, const stored_tensor *tensor);

#endif
