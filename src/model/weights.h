/* weights.h - the packed weights of one rank.
 *
 * A rank keeps the matrices and vectors that the blocks declare for its place in the grid (declaration.h): those of the
 * layers are the same for all ranks of a head group, and ranks of one node share one copy of them where the caller
 * gives a group to share with; others are its own. Matrices are packed for the kernels, so that any part of them along
 * both dimensions can be used: SEQUENCE uses whole slices in steps that split rows, and 1/S of them in steps that split
 * weights.
 *
 * A packed model (packed.h) whose panels are those of the kernels is used where it is mapped: the matrices are then
 * parts of the whole ones in the file, and all ranks of a node share its pages. Otherwise its panels are repacked.
 */
#ifndef QWEN3_MODEL_WEIGHTS_H
#define QWEN3_MODEL_WEIGHTS_H

#include "comm/comm.h"
#include "kernels/kernels.h"
#include "model/source.h"

/* Rows [n0, n0 + rows) x columns from k0 on of a packed matrix [whole_n, whole_k]. Begins and ends at panels. */
typedef struct matrix_piece {
    const gemm_kernel *gemm;
    const void *data;
    size_t rows, n0, k0, whole_n, whole_k;
} matrix_piece;

/* W[n, k] packed for gemm: y[m, n] = x[m, k] W^T. Its rows are those of the pieces, one after the other. Panels of all
 * of them have the same height, and the activations are of one type. */
typedef struct matrix {
    size_t n, k;
    int n_pieces;
    matrix_piece pieces[MATRIX_PIECES];
} matrix;

/* Outputs [n0, n1) and inputs [k0, k1) of a matrix; next as in gemm_weights. */
typedef struct matrix_part {
    const matrix *matrix;
    size_t n0, n1, k0, k1;
    const void *next;
} matrix_part;

/* gemm of kernels.h with part of such a matrix. */
void matrix_product(const matrix_part *w, const gemm_input *x, const gemm_output *y);
/* Where row n < w->n, at the start of a panel, and column k, at the start of a group, stand. */
const void *matrix_at(const matrix *w, size_t n, size_t k);

/* The panels (of nr rows) of a matrix of n rows that thread `thread` of `threads` of rank `part` of `parts` packs, and
 * so touches first: those that it reads when a step has few rows and ranks split its rows in multiples of `grain`,
 * itself one of nr. */
range weights_touched(int64_t n, int64_t grain, int64_t nr, int part, int parts, int thread, int threads);

/* What a block of a layer declared, in its order. */
typedef struct block_weights {
    const matrix *matrices;
    const float *const *vectors;
} block_weights;

typedef struct weights {
    matrix *matrices;      /* [n_matrices], in the order of declarations */
    const float **vectors; /* the same; NULL without parts */
    block_weights *blocks; /* [num_layers][LAYER_BLOCKS] */
    size_t n_matrices;
    bool shared;
    bool mapped;        /* the matrices lie in the file of a packed model */
    size_t slice_bytes; /* of the matrices that ranks of a sequence group have in common, shared or not */
    size_t own_bytes;   /* of the others and the vectors */
    /* storage */
    void *own, *slice;
    size_t allocated; /* bytes of own */
    comm_segment *segment;
} weights;

static inline block_weights weights_of(const weights *w, int64_t layer, int index)
{
    return w->blocks[layer * LAYER_BLOCKS + index];
}

/* Bytes of the two kinds of storage. */
void weights_bytes(const declaration *d, size_t *slice_bytes, size_t *own_bytes);

/* Whether the matrices of a packed model are used where they are mapped: panels of the same height, none of them split.
 */
bool weights_mapped(const source *src, const declaration *d);

/* Who packs: threads, and who is told of every panel of it, or NULL. */
typedef struct packers {
    int threads;
    work *work;
} packers;

/* Packs a whole tensor for a kernel to dst, zeroed memory of gemm_packed_bytes. Errors as of weights_load. Not
 * collective. */
qwen3_status weights_pack_matrix(const source *src, const gemm_kernel *gemm, size_t number, void *dst, packers by,
                                 qwen3_error *err);

/* Reads, converts and packs what d declares of the tensors of src; the threads of each rank of `share` (ranks
 * with the same slices on one node, or a group of one) work together. NaN or infinity in a tensor is an error that
 * names it. Collective over share; the outcome may differ between ranks, so the caller must agree. */
qwen3_status weights_load(weights *w, const source *src, const declaration *d, comm *share, packers by,
                          qwen3_error *err);
/* Collective over the group they were loaded with. Zeroed weights are allowed. */
void weights_free(weights *w);

#endif
