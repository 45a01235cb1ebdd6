/* weights.h - the packed weights of one rank.
 *
 * A rank of head group h (of H) keeps the rows of q, k, v, gate, up and the columns of o, down that belong
 * to the group's heads and its part of the intermediate dimension, and its own part (of all R ranks) of the
 * output head. Ranks of one node with the same head group share one copy where the caller gives a group
 * to share with. Matrices are packed for the kernels, so that any part of them along both dimensions can
 * be used: SEQUENCE uses whole slices in steps that split rows, and 1/S of them in steps that split weights.
 *
 * A packed model (packed.h) whose panels are those of the kernels is used where it is mapped: the matrices are then
 * parts of the whole ones in the file, and all ranks of a node share its pages. Otherwise its panels are repacked.
 */
#ifndef QWEN3_MODEL_WEIGHTS_H
#define QWEN3_MODEL_WEIGHTS_H

#include "comm/comm.h"
#include "kernels/kernels.h"
#include "model/partition.h"
#include "model/source.h"

/* Rows [n0, n0 + rows) x columns from k0 on of a packed matrix [whole_n, whole_k]. Begins and ends at panels. */
typedef struct matrix_piece {
    const void *data;
    size_t rows, n0, k0, whole_n, whole_k;
} matrix_piece;

enum { MATRIX_PIECES = 3 }; /* q, k, v */

/* W[n, k] packed for gemm: y[m, n] = x[m, k] W^T. Its rows are those of the pieces, one after the other. */
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
void matrix_product(const gemm_kernel *g, const matrix_part *w, const gemm_input *x, const gemm_output *y);
/* Where row n < w->n, at the start of a panel, and column k, at the start of a group, stand. */
const void *matrix_at(const gemm_kernel *g, const matrix *w, size_t n, size_t k);

typedef struct layer_weights {
    const float *input_norm, *post_norm; /* [hidden] */
    const float *q_norm, *k_norm;        /* [head_dim] */
    matrix qkv;                          /* [(heads + 2 kv_heads) * head_dim, hidden]: q rows, then k, then v */
    matrix o;                            /* [hidden, heads * head_dim] */
    matrix gate, up;                     /* [intermediate part, hidden] */
    matrix down;                         /* [hidden, intermediate part] */
} layer_weights;

/* What a rank keeps. */
typedef struct weight_shard {
    head_shard heads;
    range intermediate;
    range vocabulary;
} weight_shard;

/* The shard of rank (s, h) of a grid S x H. `grain`: gemm_grain of the kernel. */
weight_shard weights_shard(const qwen3_config *config, int grain, int grid_s, int grid_h, int s, int h);

/* Rows of the q-k-v matrix are divided in multiples of this: whole panels and whole heads. */
int64_t weights_head_grain(const gemm_kernel *gemm, int64_t head_dim);

/* The panels (of nr rows) of a matrix of n rows that thread `thread` of `threads` of rank `part` of `parts` packs, and
 * so touches first: those that it reads when a step has few rows and ranks split its rows in multiples of `grain`,
 * itself one of nr. */
range weights_touched(int64_t n, int64_t grain, int64_t nr, int part, int parts, int thread, int threads);

typedef struct weights {
    const gemm_kernel *gemm;
    layer_weights *layers; /* [num_layers] */
    const float *final_norm;
    matrix head; /* [vocabulary part, hidden] */
    bool shared;
    bool mapped;        /* the matrices lie in the file of a packed model */
    size_t slice_bytes; /* of the layers' matrices, shared or not */
    size_t own_bytes;   /* of the head and the norms */
    /* storage */
    void *own, *slice;
    size_t allocated; /* bytes of own */
    comm_segment *segment;
} weights;

/* Bytes of the two kinds of storage for a shard. */
void weights_bytes(const qwen3_config *config, const gemm_kernel *gemm, const weight_shard *shard, size_t *slice_bytes,
                   size_t *own_bytes);

/* Whether the matrices of a packed model are used where they are mapped: panels of the same height, none of them cut.
 */
bool weights_mapped(const source *src, const qwen3_config *config, const gemm_kernel *gemm, const weight_shard *shard);

/* Packs a whole matrix to dst, zeroed memory of gemm_packed_bytes. Errors as of weights_load. Not collective. */
qwen3_status weights_pack_matrix(const source *src, const qwen3_config *config, const gemm_kernel *gemm,
                                 tensor_role role, int64_t layer, void *dst, int threads, qwen3_error *err);

/* Reads, converts and packs; `threads` threads on each rank of `share` (ranks with the same slices on one
 * node, or a group of one) work together. NaN or infinity in a tensor is an error that names it.
 * Collective over share; the outcome may differ between ranks, so the caller must agree. */
qwen3_status weights_load(weights *w, const source *src, const qwen3_config *config, const gemm_kernel *gemm,
                          const weight_shard *shard, comm *share, int threads, qwen3_error *err);
/* Collective over the group they were loaded with. Zeroed weights are allowed. */
void weights_free(weights *w);

#endif
