/* declaration.h - what a model is made of: its tensors, and the matrices and vectors that one rank keeps of them.
 *
 * The blocks of an architecture (src/blocks) declare both. Sources, weights, packed models, lists and estimates walk
 * over the declarations: none of them knows a tensor by its name or its place in a layer.
 */
#ifndef QWEN3_MODEL_DECLARATION_H
#define QWEN3_MODEL_DECLARATION_H

#include "base/status.h"
#include "kernels/kernels.h"
#include "model/partition.h"
#include "model/weight_format.h"

#define TENSOR_NAME_MAX 96

typedef enum tensor_kind {
    TENSOR_MATRIX,
    TENSOR_EXPERT,    /* a matrix of an expert: not all of them are read for each token */
    TENSOR_HEAD,      /* the matrix of the output head */
    TENSOR_EMBEDDING, /* a matrix whose rows are looked up: never packed */
    TENSOR_ROUTER,    /* a small matrix that stays in f32: never packed */
    TENSOR_NORM,      /* vectors from here on: cols = 1, stored with one dimension */
    TENSOR_BIAS,
} tensor_kind;

static inline bool tensor_is_vector(tensor_kind kind)
{
    return kind >= TENSOR_NORM;
}

/* Whether products read it, so that a packed model holds it packed. */
static inline bool tensor_is_packed(tensor_kind kind)
{
    return kind <= TENSOR_HEAD;
}

typedef struct tensor {
    char name[TENSOR_NAME_MAX];
    int64_t rows, cols;
    tensor_kind kind;
    size_t same_as; /* number of the tensor that holds its values: its own, or that of another one which is stored in
                       its place (a tied output head) */
} tensor;

typedef struct tensor_part {
    size_t tensor; /* number: the order of declarations */
    range rows, cols;
} tensor_part;

enum { MATRIX_PIECES = 3 }; /* q, k, v */

/* W[n, k] of this rank: the rows of the parts, one after the other. All parts have k columns. */
typedef struct matrix_declaration {
    tensor_part parts[MATRIX_PIECES];
    const gemm_kernel *gemm[MATRIX_PIECES]; /* of the parts; where it changes, a panel begins. Set by declare_matrix */
    int n_parts;
    int64_t grain; /* ranks that share a copy divide its rows in multiples of this, itself one of nr */
    int64_t unit;  /* of several parts: each has a multiple of so many rows, on all ranks */
    int64_t split; /* ranks split its inputs at multiples of it; 0: not at all */
    bool own;      /* no other rank of the sequence group keeps the same */
} matrix_declaration;

/* [n] of this rank, or [n, columns] of a matrix that is not packed, in f32: the rows of the parts. Without parts it
 * keeps its place and is NULL. */
typedef struct vector_declaration {
    tensor_part parts[MATRIX_PIECES];
    int n_parts;
} vector_declaration;

static inline size_t parts_rows(const tensor_part *parts, int n_parts)
{
    int64_t rows = 0;
    for (int i = 0; i < n_parts; i++)
        rows += range_size(parts[i].rows);
    return (size_t)rows;
}

static inline size_t tensor_part_values(const tensor_part *part)
{
    return (size_t)(range_size(part->rows) * range_size(part->cols));
}

enum { LAYER_BLOCKS = 2 }; /* most blocks of a layer */

/* The first matrix and vector of a block of a layer. */
typedef struct block_declaration {
    size_t matrix, vector;
} block_declaration;

typedef struct declaration {
    const qwen3_config *config; /* the caller's */
    grid_place place;
    weight_format format;
    const char *model_prefix;     /* of the names of tensors: "model." */
    char prefix[TENSOR_NAME_MAX]; /* of the next ones: "model.layers.7." */
    tensor *tensors;
    matrix_declaration *matrices;
    vector_declaration *vectors;
    block_declaration *blocks; /* [num_layers][LAYER_BLOCKS] */
    size_t n_tensors, n_matrices, n_vectors;
    bool failed; /* no memory: what is declared is not complete */
} declaration;

/* The number of the tensor d->prefix + suffix. Vectors have one column. */
size_t declare_tensor(declaration *d, tensor_kind kind, const char *suffix, int64_t rows, int64_t cols);
/* The values of a tensor are those of an earlier one, which is stored in its place. */
void declare_same(declaration *d, size_t number, size_t as);
void declare_matrix(declaration *d, matrix_declaration matrix);
void declare_vector(declaration *d, vector_declaration vector);
/* A vector that is a whole tensor of n values. */
void declare_norm(declaration *d, const char *suffix, int64_t n);
/* Zeroed declarations are allowed. */
void declaration_free(declaration *d);

#endif
