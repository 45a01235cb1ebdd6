/* quantised.h - matrices of checkpoints that are quantised: FP8 in blocks, GPTQ and AWQ in groups. All have scales
 * beside them. All can be expanded to f32 by definition; groups of 4 bits become blocks of a stored type too, which are
 * computed with as they are.
 *
 * FP8 (Micikevicius et al. 2022; DeepSeek-V3): X.weight F8_E4M3 [rows, cols], X.weight_scale_inv [ceil(rows / 128),
 * ceil(cols / 128)], called X.weight_scale by some programs. Each value is multiplied by the scale of its block of
 * 128 x 128, whatever the name says.
 *
 * GPTQ (Frantar et al. 2022) and AWQ (Lin et al. 2023): W[row, col] = (q - z) * scale, where q has 4 or 8 bits, and
 * the zero point z and the scale are those of the column's group. Codes are packed in words of 32 bits, low bits
 * first, `per` = 32 / bits in each.
 *
 *     tensor     GPTQ                                        AWQ
 *     X.qweight  I32 [cols / per, rows], along the columns   I32 [cols, rows / per], along the rows
 *     X.qzeros   I32 [groups, rows / per], along the rows    the same
 *     X.scales   [groups, rows], F16, BF16 or F32            the same
 *     X.g_idx    I32 [cols], the group of each column        none: the group of a column is col / group_size
 *
 * AWQ's words hold rows 0 2 4 6 1 3 5 7 of eight. The first format of GPTQ stores z - 1. There z = 0 cannot be stored;
 * a stored zero point with all bits set is the largest one plus 1.
 */
#ifndef QWEN3_MODEL_QUANTISED_H
#define QWEN3_MODEL_QUANTISED_H

#include "io/json_section.h"
#include "io/safetensors.h"
#include "kernels/stored.h"
#include "model/declaration.h"

/* Rows and columns of a matrix of type F8 that share a scale. */
enum { F8_BLOCK = 128 };

typedef enum quantization_method {
    QUANTIZATION_NONE = 0,
    QUANTIZATION_FP8,
    QUANTIZATION_GPTQ,
    QUANTIZATION_AWQ
} quantization_method;

/* "quantization_config" of config.json. */
typedef struct quantization {
    quantization_method method;
    int bits;           /* of GPTQ and AWQ, as is the rest */
    int64_t group_size; /* columns that share a scale; -1: all of them */
    int zero_offset;    /* is added to stored zero points */
    bool act_order;     /* of GPTQ: columns were quantised in another order, so that there must be a g_idx */
} quantization;

/* Reads and checks it; without the key, the method is NONE. A form that is not supported is an error that names it.
 * Which matrices are quantised is known by their tensors. */
qwen3_status quantization_read(const json_section *root, quantization *q);

/* The tensors of one declared tensor. */
typedef struct stored_values {
    const stored_tensor *values; /* X.weight or X.qweight; NULL where the values are those of another, or none */
    const stored_tensor *scales; /* of F8, GPTQ and AWQ */
    const stored_tensor *zeros;  /* of GPTQ and AWQ */
    const stored_tensor *groups; /* g_idx, or NULL: in order */
} stored_values;

/* The format of a matrix in groups: "GPTQ-4", "GPTQ-8", "AWQ-4". */
const char *quantization_name(const quantization *q);
/* The group of a column. */
int64_t quantised_group(const stored_values *s, const quantization *q, int64_t col);

/* The stored type that has exactly the values of a matrix in groups whose shapes were checked: G4_128 or G4_32; F32
 * where none has: codes of 8 bits, groups that are not whole blocks of 32 columns in their order, scales that binary16
 * does not have. */
weight_type quantised_stored_type(const stored_values *s, const quantization *q, const tensor *t);
/* A part of such a matrix in blocks of G4_128 or G4_32 (stored_types.h): binary16 d, the scale; a byte z, the zero
 * point; the codes in their order, low bits first. out [rows of the part, columns] */
void pack_groups(const stored_values *s, const quantization *q, const tensor_part *part, weight_type type,
                 unsigned char *out);

/* A part of a matrix of type F8, or in groups. out [rows of the part, columns] */
void expand_f8(const stored_values *s, const tensor_part *part, float *out);
void expand_groups(const stored_values *s, const quantization *q, const tensor_part *part, float *out);

#endif
