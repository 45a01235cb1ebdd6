/* source_checkpoint.c - weights from a model directory. */
#include "model/source_backend.h"

qwen3_status source_open_checkpoint(const char *dir, const qwen3_config *config, source **out, qwen3_error *err)
{
    (void)config;
    *out = NULL;
    return fail(err, QWEN3_ERR_UNSUPPORTED, "%s: reading checkpoints is not there yet", dir);
}
