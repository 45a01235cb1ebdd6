/* weight_format.h - in what types the matrices of a model are kept, and what they have in common whatever these are.
 *
 * Either all matrices have one type, which values are converted to, or each has the one that its file has (stored
 * types, kernels/stored_types.h). One type of activations serves all matrices of a model, since one input is read by
 * several: that of the level for quantised weights. Matrices that a file has as BF16 are then kept as that; others that
 * it does not have in a stored type, or whose blocks would be split, as F32, which is exact. They multiply the same
 * activations.
 */
#ifndef QWEN3_MODEL_WEIGHT_FORMAT_H
#define QWEN3_MODEL_WEIGHT_FORMAT_H

#include "kernels/kernels.h"

typedef struct weight_format {
    const kernels *kernels;
    qwen3_dtype dtype;        /* of all matrices; AUTO: as `types` says */
    const weight_type *types; /* NULL, or of each tensor by its number: a stored type, BF16, otherwise F32 */
    int nr;                   /* outputs in a panel of any matrix */
    int grain;                /* outputs that are inputs of another matrix are split over ranks at multiples of it */
    qwen3_dtype activation;   /* of what enters a product */
} weight_format;

weight_format weight_format_of(const kernels *k, qwen3_dtype dtype);
/* types[n] are the source's, which must outlive the format. */
weight_format weight_format_stored(const kernels *k, const weight_type *types, size_t n);

/* The kernel of a tensor whose inputs are split at multiples of `split` (0: not at all). */
const gemm_kernel *weight_format_gemm(const weight_format *f, size_t number, int64_t split);
/* Of matrices that are kept as F32 where the others have the types of a file. */
const gemm_kernel *weight_format_plain(const weight_format *f);

/* "Q4_K", "bf16". */
const char *weight_type_name(weight_type type);
bool weight_type_parse(const char *name, weight_type *type);

#endif
