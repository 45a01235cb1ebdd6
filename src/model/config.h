/* config.h - the model's shape: bounds, the keys of config.json and of GGUF files, named synthetic sizes. */
#ifndef QWEN3_MODEL_CONFIG_H
#define QWEN3_MODEL_CONFIG_H

#include "io/gguf.h"
#include "io/json_section.h"

#define SYNTHETIC_PREFIX "synthetic:"

/* Reads the keys that not all architectures have, or not in the same way. */
typedef qwen3_status config_reader(const json_section *s, qwen3_config *config);

/* Whether the weights beside config.json hold lm_head.weight. */
typedef enum stored_head { STORED_HEAD_UNKNOWN, STORED_HEAD_NO, STORED_HEAD_YES } stored_head;

/* The keys of config.json that all architectures share, then those of `read`, and the checks of the whole. A missing
 * key, a value of the wrong kind, heads not divisible by KV heads, an unsupported rope type, activation, quantization
 * or an active sliding window are errors that name file and key. Accepts rope_parameters as well as rope_theta +
 * rope_scaling (type or rope_type: default, yarn), both where they agree, and YaRN in rope_scaling beside
 * rope_parameters without scaling. Where YaRN does not say original_max_position_embeddings, it is
 * max_position_embeddings, as in the reference. With YaRN, max_positions is the length that it extends to, factor *
 * original_max_position_embeddings, where that is larger than max_position_embeddings (which users who switch YaRN on
 * leave as it was). head decides where tie_word_embeddings is missing. */
qwen3_status config_read_json(const json_section *s, config_reader *read, stored_head head, qwen3_config *config);
/* An error unless the switch is absent, null or false: for what is not supported. */
qwen3_status config_require_off(const json_section *s, const char *key);

/* What follows "synthetic:": a size, case-insensitive, and perhaps ":layers=N", ":yarn=N" or both. The error lists the
 * sizes. */
qwen3_status config_synthetic(const char *spec, qwen3_config *config, qwen3_error *err);
/* Sets whether a layer, below QWEN3_MAX_LAYERS, has experts. */
void config_set_experts(qwen3_config *config, int64_t layer, bool has);
/* Layers that have experts. */
int64_t config_expert_layers(const qwen3_config *config);
/* Experts of a layer that `rows` tokens choose together, on average, where each chooses num_experts_per_token = k of
 * num_experts = E at random: E (1 - (1 - k / E)^rows). */
double config_active_experts(const qwen3_config *config, double rows);
/* Reads the keys of a GGUF file that not all architectures have; s->prefix is "ARCHITECTURE.". */
typedef qwen3_status config_gguf_reader(const gguf_section *s, qwen3_config *config);

/* The same from the keys of a GGUF file whose prefix is "ARCHITECTURE.". The embedding is tied to the output head where
 * there is no tensor output.weight, and the vocabulary is as large as the list of tokens. */
qwen3_status config_read_gguf(const gguf *g, const char *prefix, config_gguf_reader *read, qwen3_config *config,
                              qwen3_error *err);

/* Bounds that keep every size computation within 63 bits, and divisibility. `where` names the origin. */
qwen3_status config_check(const qwen3_config *config, const char *where, qwen3_error *err);
/* The same, before and after it sets max_positions to what YaRN extends to, where that is more. prefix: of the keys of
 * a GGUF file, which messages name then; NULL: they name those of config.json. */
qwen3_status config_finish(qwen3_config *config, const char *where, const char *prefix, qwen3_error *err);

#endif
