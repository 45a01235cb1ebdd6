/* packed.h - a packed model: a directory with the configuration and tokenizer of a checkpoint and PACKED_FILE, whose
 * matrices are packed for the kernels and are used where they lie, in the mapped file.
 *
 * PACKED_FILE is a safetensors file. A matrix is a U8 tensor of one dimension under its name in the checkpoint: whole,
 * packed as in kernels.h, with zeros up to a multiple of PACKED_ALIGNMENT; so is the output head, also where it is the
 * embedding. Its data begin at such a multiple of the file. Norms are F32; the embedding, whose rows are looked up, is
 * BF16, or F32 where it was not BF16. The metadata say how it was packed, and of which configuration.
 */
#ifndef QWEN3_MODEL_PACKED_H
#define QWEN3_MODEL_PACKED_H

#include "io/safetensors.h"
#include "kernels/kernels.h"
#include "model/source.h"

#define PACKED_ALIGNMENT ((size_t)4096)

/* Keys of the metadata, and the value of "format". */
#define PACKED_FORMAT "qwen3-packed-1"

/* Every value that the shapes and the arithmetic depend on, as text. */
#define PACKED_CONFIG_MAX 512
void packed_describe_config(const qwen3_config *config, char text[PACKED_CONFIG_MAX]);

/* Bytes of a tensor that a packed model holds packed. */
size_t packed_tensor_bytes(const packed_format *format, const tensor *t);

/* Reads and checks the metadata: the format, and that the configuration is still that of the packing. */
qwen3_status packed_read_format(const safetensors *file, const qwen3_config *config, packed_format *format,
                                qwen3_error *err);

/* Writes the model `src`, opened from directory `spec`, as the packed model `output` for the kernels of k, which must
 * not exist and appears whole or not at all. dtype AUTO as in qwen3_model_options. Not collective. (pack.c) */
qwen3_status pack_model(const source *src, const char *spec, qwen3_dtype dtype, const kernels *k, int threads,
                        const char *output, qwen3_error *err);

#endif
