/* online_softmax.c - blockwise attention without a score matrix: a tile of q_block_size queries meets
 * kv_block_size keys at a time, and the running maximum, sum and output are rescaled where the maximum grows
 * (Milakov & Gimelshein 2018; Dao et al. 2022, 2023). Memory is O(q_block_size * kv_block_size) a thread.
 */
#include "attention/algorithms.h"
#include "attention/tile.h"

static size_t tile_rows(const attention_shape *shape, size_t rows, size_t jobs, int threads)
{
    /* Short prompts: smaller tiles rather than idle threads. */
    size_t share = (rows * jobs * shape->kv_heads + (size_t)threads - 1) / (size_t)threads;
    size_t most = (size_t)shape->q_block_size < rows ? (size_t)shape->q_block_size : rows;
    return share < most ? share : most;
}

/* Blocks that are attended at once. */
static size_t blocks_at_once(const attention_shape *shape, size_t n_blocks)
{
    const size_t most = (size_t)shape->kv_block_size / KV_BLOCK;
    return most < n_blocks ? most : n_blocks;
}

static size_t workspace_bytes(const attention_shape *shape, size_t rows, size_t n_blocks)
{
    return tile_workspace_layout(shape, rows, blocks_at_once(shape, n_blocks), NULL, NULL);
}

static void run(const attention_shape *shape, const attention_job *tile, void *workspace)
{
    const size_t most = blocks_at_once(shape, tile->n_blocks), stride = tile_stride(most);
    size_t next = 0, n;
    tile_workspace w;
    tile_workspace_layout(shape, tile->rows, most, workspace, &w);
    while ((n = tile_visible_blocks(shape, tile, &next, most, w.blocks)) > 0) {
        tile_scores(shape, tile, n, w.blocks, w.scores, stride, w.panel);
        tile_softmax(shape, tile, n, w.blocks, w.scores, w.probabilities, stride);
        tile_values(shape, tile, n, w.blocks, w.probabilities, stride, w.panel);
    }
}

const attention_algorithm attention_online_softmax = {
    .name = "online_softmax",
    .id = QWEN3_ATTENTION_ONLINE_SOFTMAX,
    .tile_rows = tile_rows,
    .workspace_bytes = workspace_bytes,
    .run = run,
    .piecewise = true,
};
