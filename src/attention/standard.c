/* standard.c - attention with the explicit score matrix: all scores of the tile's queries against all keys, then the
 * softmax of every row, then the product with the values. A tile is all queries of a head, so memory is O(seq^2).
 *
 * Each of the three passes goes over the matrix in strips of q_block_size queries: a strip is one matrix product per
 * block, and keys that lie after the whole strip are left out of all three.
 */
#include "attention/algorithms.h"
#include "attention/tile.h"

enum { SCORES, SOFTMAX, VALUES, PASSES };

static size_t tile_rows(const attention_shape *shape, size_t rows, size_t jobs, int threads)
{
    size_t heads = jobs * shape->kv_heads;
    if (heads >= (size_t)threads || rows == 0)
        return rows;
    size_t tiles_per_head = ((size_t)threads + heads - 1) / heads;
    return (rows + tiles_per_head - 1) / tiles_per_head;
}

static size_t workspace_bytes(const attention_shape *shape, size_t rows, size_t n_blocks)
{
    return tile_workspace_layout(shape, rows, n_blocks, NULL, NULL);
}

static void run(const attention_shape *shape, const attention_job *tile, void *workspace)
{
    const size_t p_size = dtype_size(attention_gemm(shape)->activation);
    const size_t stride = tile_stride(tile->n_blocks), strip_rows = (size_t)shape->q_block_size;
    tile_workspace w;
    tile_workspace_layout(shape, tile->rows, tile->n_blocks, workspace, &w);
    for (int pass = 0; pass < PASSES; pass++) {
        for (size_t row0 = 0; row0 < tile->rows; row0 += strip_rows) {
            size_t rows = tile->rows - row0 < strip_rows ? tile->rows - row0 : strip_rows, next = 0;
            attention_job strip = attention_tile(shape, tile, 0, row0, rows, 0, tile->n_blocks);
            size_t n = tile_visible_blocks(shape, &strip, &next, tile->n_blocks, w.blocks);
            float *s = w.scores + row0 * shape->heads_per_kv * stride;
            void *p = (char *)w.probabilities + row0 * shape->heads_per_kv * stride * p_size;
            if (pass == SCORES)
                tile_scores(shape, &strip, n, w.blocks, s, stride, w.panel);
            else if (pass == SOFTMAX)
                tile_softmax(shape, &strip, n, w.blocks, s, p, stride);
            else
                tile_values(shape, &strip, n, w.blocks, p, stride, w.panel);
        }
    }
}

const attention_algorithm attention_standard = {
    .name = "standard",
    .id = QWEN3_ATTENTION_STANDARD,
    .tile_rows = tile_rows,
    .workspace_bytes = workspace_bytes,
    .run = run,
};
