/* architectures.h - the table of architectures: one line each, and what is read and declared by it. */
#ifndef QWEN3_BLOCKS_ARCHITECTURES_H
#define QWEN3_BLOCKS_ARCHITECTURES_H

#include "blocks/block.h"
#include "model/source.h"

/* What belongs to no layer, by number of declaration. */
enum { MODEL_EMBEDDING };  /* tensor [vocab, hidden] */
enum { MODEL_HEAD };       /* matrix [vocabulary part, hidden] */
enum { MODEL_FINAL_NORM }; /* vector [hidden] */

/* spec as in qwen3_model_open. *config is zeroed on failure. */
qwen3_status config_read(const char *spec, qwen3_config *config, qwen3_error *err);

/* The *n blocks of a layer, at most LAYER_BLOCKS, in the order in which they run. */
const block *const *architecture_blocks(const qwen3_config *config, int64_t layer, int *n);

/* The vocabulary part of a place in the grid; empty without an output head. */
range model_vocabulary(const qwen3_config *config, const weight_format *format, grid_place place);

/* What the rank at `place` keeps of a model whose matrices have `format`; NULL where only the tensors are
 * looked at. Freed with declaration_free, not on failure. config must outlive *out. */
qwen3_status model_declare(const qwen3_config *config, grid_place place, const weight_format *format, declaration *out,
                           qwen3_error *err);

/* Reads the configuration of spec and opens it as a source. On failure *out is NULL and *config zeroed. Not
 * collective. */
qwen3_status model_source_open(const char *spec, uint64_t seed, source **out, qwen3_config *config, qwen3_error *err);

#endif
