/* packed.h - a packed model: a directory with the configuration and tokenizer of a checkpoint, or with
 * GGUF_METADATA_FILE (io/gguf.h) in their place, and PACKED_FILE, whose matrices are packed for the kernels and are
 * used where they lie, in the mapped file.
 *
 * PACKED_FILE is a safetensors file. A matrix is a U8 tensor of one dimension under its name in the checkpoint: whole,
 * packed as in kernels.h, with zeros up to a multiple of PACKED_ALIGNMENT; so is the output head, also where it is the
 * embedding. Its data begin at such a multiple of the file. Norms and routers are F32; the embedding, whose rows are
 * looked up, is BF16, or F32 where it was not BF16. The metadata say how it was packed, and of which configuration:
 * "dtype" is the type of all matrices, or "stored" where "types" has that of each, separated by commas, in the order in
 * which they are declared.
 *
 * Checksums (io/checksum.h) are 16 hexadecimal digits. The header begins with PACKED_HEADER and the checksum of the
 * file up to the data, these digits being 0. "data_checksums" has those of the data, in the order of the file: of every
 * PACKED_CHUNK bytes of a tensor, and of what is left at its end.
 */
#ifndef QWEN3_MODEL_PACKED_H
#define QWEN3_MODEL_PACKED_H

#include "io/checksum.h"
#include "io/safetensors.h"
#include "kernels/kernels.h"
#include "model/source.h"

#define PACKED_ALIGNMENT ((size_t)4096)

/* Keys of the metadata, and the value of "format". */
#define PACKED_FORMAT "qwen3-packed-2"

#define PACKED_HEADER "{\"__metadata__\":{\"header_checksum\":\""
#define PACKED_DIGITS 16
#define PACKED_CHUNK ((size_t)16 << 20)

/* Chunks of a tensor. */
static inline size_t packed_chunks(size_t bytes)
{
    return (bytes + PACKED_CHUNK - 1) / PACKED_CHUNK;
}

/* Writes a checksum as PACKED_DIGITS digits, without a NUL. */
void packed_write_digits(const checksum *sum, char *digits);

/* The checksum that a header of `bytes` bytes, data excluded, should have. Its digits are set to 0. */
checksum packed_header_checksum(char *header, size_t bytes);

/* Every value that the shapes and the arithmetic depend on, as text. */
#define PACKED_CONFIG_MAX 512
void packed_describe_config(const qwen3_config *config, char text[PACKED_CONFIG_MAX]);

/* Bytes of a tensor that a packed model holds packed, in panels of nr outputs. */
size_t packed_tensor_bytes(int nr, weight_type type, const tensor *t);

#define PACKED_STORED "stored"

/* "q4", or PACKED_STORED. */
static inline const char *packed_type_name(const packed_format *format)
{
    return format->dtype == QWEN3_DTYPE_AUTO ? PACKED_STORED : qwen3_dtype_name(format->dtype);
}

/* Reads and checks the metadata: the format, the checksum of the header, and that the configuration is still that of
 * the packing. */
qwen3_status packed_read_format(const safetensors *file, const qwen3_config *config, packed_format *format,
                                qwen3_error *err);
/* The types of n tensors where each has its own: types[i] of those that are packed. */
qwen3_status packed_read_types(const safetensors *file, const tensor *tensors, size_t n, weight_type *types,
                               qwen3_error *err);

/* As source_verify. */
qwen3_status packed_verify(const safetensors *file, const source_share *share, qwen3_error *err);

/* How a model is packed. */
typedef struct pack_options {
    const char *spec;       /* where the source was opened */
    qwen3_dtype dtype;      /* AUTO as in qwen3_model_options */
    const kernels *kernels; /* that it is for */
    int threads;
    const char *output; /* a directory, which must not exist and appears whole or not at all */
    work *work;         /* is told how far it is; NULL: nobody is */
} pack_options;

/* Writes a source as a packed model. Not collective. (pack.c) */
qwen3_status pack_model(const source *src, const pack_options *options, qwen3_error *err);

#endif
