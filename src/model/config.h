/* config.h - the model's shape: from config.json, or of a named synthetic size. */
#ifndef QWEN3_MODEL_CONFIG_H
#define QWEN3_MODEL_CONFIG_H

#include "base/status.h"

#define SYNTHETIC_PREFIX "synthetic:"

/* spec as in qwen3_model_open: one of the two below. *config is zeroed on failure. */
qwen3_status config_read(const char *spec, qwen3_config *config, qwen3_error *err);
/* Reads DIR/config.json. A missing key, a value of the wrong kind, heads not divisible by KV heads, an
 * unsupported architecture (anything but Qwen3ForCausalLM), rope type, activation, bias, quantization or an
 * active sliding window are errors that name file and key. Accepts rope_parameters as well as rope_theta +
 * rope_scaling (type or rope_type: default, yarn), and both where they agree. With YaRN, max_positions is
 * the length that it extends to, factor * original_max_position_embeddings, where that is larger than
 * max_position_embeddings (which users who switch YaRN on leave as it was). */
qwen3_status config_read_dir(const char *dir, qwen3_config *config, qwen3_error *err);
/* SIZE of "synthetic:SIZE", case-insensitive. The error lists the sizes. */
qwen3_status config_synthetic(const char *size, qwen3_config *config, qwen3_error *err);
/* Bounds that keep every size computation within 63 bits, and divisibility. `where` names the origin. */
qwen3_status config_check(const qwen3_config *config, const char *where, qwen3_error *err);

#endif
