/* tile.c - scores, softmax and values of one tile of queries. */
#include "attention/tile.h"

#include <float.h>

#include "base/memory.h"

attention_job attention_tile(const attention_shape *shape, const attention_job *job, size_t kv_head, size_t row0,
                             size_t rows, size_t block0, size_t n_blocks)
{
    const gemm_kernel *g = attention_gemm(shape);
    size_t query = (kv_head * job->rows + row0) * shape->heads_per_kv;
    attention_job tile = *job;
    tile.rows = rows;
    tile.q_positions += row0;
    tile.q = (const char *)job->q + query * attention_q_stride(shape) * dtype_size(g->activation);
    tile.o += query * shape->head_dim;
    tile.m += query;
    tile.l += query;
    tile.n_blocks = n_blocks;
    tile.blocks += kv_head * job->n_blocks + block0;
    if (job->mask)
        tile.mask += kv_head * shape->heads_per_kv * job->mask_stride_head + row0 * job->mask_stride_row;
    return tile;
}

static int32_t smallest_position(const attention_job *tile)
{
    int32_t smallest = INT32_MAX;
    for (size_t r = 0; r < tile->rows; r++)
        smallest = tile->q_positions[r] < smallest ? tile->q_positions[r] : smallest;
    return smallest;
}

static inline int32_t position_of(const kv_block *b, int32_t slot)
{
    return b->positions ? b->positions[slot] : b->min_position + slot;
}

/* Slots of a block up to the last one whose position is at most `last`. */
static size_t visible_slots(const kv_block *b, int32_t last)
{
    int32_t slots = b->count;
    if (b->max_position > last)
        while (slots > 0 && position_of(b, slots - 1) > last)
            slots--;
    return (size_t)slots;
}

size_t tile_visible_blocks(const attention_shape *shape, const attention_job *tile, size_t *next, size_t limit,
                           visible_block *blocks)
{
    const int32_t last = last_position(shape, tile->rows, tile->q_positions);
    size_t n = 0;
    for (; *next < tile->n_blocks && n < limit; ++*next) {
        const kv_block *b = &tile->blocks[*next];
        if (b->count > 0 && b->min_position <= last)
            blocks[n++] = (visible_block){b, visible_slots(b, last)};
    }
    return n;
}

/* The scores of one query row against one block. */
static void mask_scores(const kv_block *b, bool causal, int32_t position, const float *mask, float *s)
{
    if (mask)
        for (int32_t j = 0; j < b->count; j++) {
            const float m = mask[position_of(b, j)];
            s[j] = m == -INFINITY ? m : s[j] + m; /* a score that is not a number is not seen either */
        }
    if (causal && b->max_position > position)
        for (int32_t j = 0; j < b->count; j++)
            s[j] = position_of(b, j) <= position ? s[j] : -INFINITY;
    for (int32_t j = b->count; j < KV_BLOCK; j++)
        s[j] = -INFINITY;
}

/* y (+)= x W^T with all outputs of W in bytes (kv_block). Few queries take the bytes as they are, unless few and many
 * must give the same bits: products of bytes may be those of a lower level. For more of them as many bytes are expanded
 * at once as can be multiplied out of the caches. */
static void multiply_q8(const attention_shape *shape, const gemm_weights *w, const gemm_input *x, const gemm_output *y,
                        bf16 *panel)
{
    const gemm_kernel *g = attention_gemm(shape);
    const size_t nr = (size_t)g->nr, kr = (size_t)g->kr;
    if (shape->kernels->bytes.tile && x->rows <= ATTENTION_FEW_QUERIES && !shape->pagewise) {
        gemm(&shape->kernels->bytes, w, x, y);
        return;
    }
    const int8_t *bytes = w->w;
    for (size_t out = 0; out < w->n; out += nr, bytes += nr * round_up(w->k, kr)) {
        const size_t columns = w->n - out < nr ? w->n - out : nr;
        shape->kernels->bytes_to_bf16(nr * round_up(w->k1, kr), bytes, panel);
        gemm(g, &(gemm_weights){.w = panel, .n = columns, .k = w->k1, .n1 = columns, .k1 = w->k1}, x,
             &(gemm_output){y->y + out, y->stride, y->accumulate});
    }
}

static void scores_q8(const attention_shape *shape, const kv_block *b, size_t slots, const gemm_input *q,
                      const gemm_output *y, bf16 *panel)
{
    const size_t dim = shape->head_dim;
    multiply_q8(shape, &(gemm_weights){.w = kv_block_q8(b->k, b->slots), .n = slots, .k = dim, .n1 = slots, .k1 = dim},
                q, y, panel);
    float *s = y->y;
    for (size_t i = 0; i < q->rows; i++, s += y->stride)
        shape->kernels->multiply(slots, s, b->k, s, QWEN3_DTYPE_F32);
}

void tile_scores(const attention_shape *shape, const attention_job *tile, size_t n, const visible_block *blocks,
                 float *s, size_t stride, bf16 *panel)
{
    const gemm_kernel *g = attention_gemm(shape);
    const size_t dim = shape->head_dim;
    const gemm_input q = {tile->q, tile->rows * shape->heads_per_kv, attention_q_stride(shape)};
    const int32_t first = shape->causal ? smallest_position(tile) : INT32_MAX;
    for (size_t i = 0; i < n; i++, s += KV_BLOCK) {
        const kv_block *b = blocks[i].block;
        const void *next = i + 1 < n ? blocks[i + 1].block->k : blocks[0].block->v;
        /* Panels without a key that is seen are not read; their scores are set below. */
        const size_t panels_end = round_up(blocks[i].slots, (size_t)g->nr);
        const size_t slots = panels_end < b->slots ? panels_end : b->slots;
        const gemm_output y = {.y = s, .stride = stride};
        if (b->row_stride)
            shape->kernels->dot_rows(q.rows, (size_t)b->count, dim, q.x, q.stride, b->k, b->row_stride, s, stride);
        else if (shape->kv_type == QWEN3_DTYPE_Q8)
            scores_q8(shape, b, slots, &q, &y, panel);
        else
            gemm(g, &(gemm_weights){b->k, b->slots, dim, 0, slots, 0, dim, next}, &q, &y);
        if (b->count == KV_BLOCK && b->max_position <= first && !tile->mask)
            continue;
        for (size_t r = 0; r < tile->rows; r++)
            for (size_t h = 0; h < shape->heads_per_kv; h++) {
                const float *mask = tile->mask;
                if (mask)
                    mask += h * tile->mask_stride_head + r * tile->mask_stride_row;
                mask_scores(b, shape->causal, tile->q_positions[r], mask, s + (r * shape->heads_per_kv + h) * stride);
            }
    }
}

/* p = exp(s - m), times the scales of the values where these are Q8. Returns the sum of exp(s - m). */
static float probabilities(const attention_shape *shape, size_t n, const visible_block *blocks, float *s, float m,
                           void *p, qwen3_dtype p_type)
{
    const kernels *k = shape->kernels;
    if (shape->kv_type != QWEN3_DTYPE_Q8)
        return k->exp_sum(n * KV_BLOCK, s, m, p, p_type);
    const float sum = k->exp_sum(n * KV_BLOCK, s, m, s, QWEN3_DTYPE_F32);
    for (size_t i = 0; i < n; i++) {
        const size_t used = round_up(blocks[i].slots, (size_t)attention_gemm(shape)->kr), size = dtype_size(p_type);
        char *to = (char *)p + i * KV_BLOCK * size;
        k->multiply(used, s + i * KV_BLOCK, blocks[i].block->v, to, p_type);
        memset(to + used * size, 0, (round_up(used, ACTIVATION_PAD) - used) * size); /* kernels read so far */
    }
    return sum;
}

/* Whether a query row sees a key at all. The score of a key that it sees may be -INFINITY, too: by overflow. */
static bool sees_key(const attention_shape *shape, const attention_job *tile, size_t row, size_t n,
                     const visible_block *blocks)
{
    const size_t r = row / shape->heads_per_kv, h = row % shape->heads_per_kv;
    const int32_t last = shape->causal ? tile->q_positions[r] : INT32_MAX;
    for (size_t i = 0; i < n; i++) {
        const kv_block *b = blocks[i].block;
        if (b->min_position > last)
            continue;
        if (!tile->mask)
            return true;
        const float *mask = tile->mask + h * tile->mask_stride_head + r * tile->mask_stride_row;
        for (int32_t j = 0; j < b->count; j++)
            if (position_of(b, j) <= last && mask[position_of(b, j)] != -INFINITY)
                return true;
    }
    return false;
}

void tile_softmax(const attention_shape *shape, const attention_job *tile, size_t n, const visible_block *blocks,
                  float *s, void *p, size_t stride)
{
    const kernels *k = shape->kernels;
    const qwen3_dtype p_type = attention_gemm(shape)->activation;
    const size_t size = dtype_size(p_type), columns = n * KV_BLOCK;
    char *p_row = p;
    for (size_t i = 0; i < tile->rows * shape->heads_per_kv; i++, s += stride, p_row += stride * size) {
        float max = k->max(columns, s);
        if (!(max >= -FLT_MAX))
            max = sees_key(shape, tile, i, n, blocks) ? -FLT_MAX : -INFINITY;
        if (max > tile->m[i]) {
            if (tile->l[i] > 0.0f) {
                float w = expf(tile->m[i] - max);
                float *o = tile->o + i * shape->head_dim;
                tile->l[i] *= w;
                k->scale(shape->head_dim, w, o, o, QWEN3_DTYPE_F32);
            }
            tile->m[i] = max;
        }
        /* Where no key is seen there may be no finite m to subtract. */
        if (max == -INFINITY)
            memset(p_row, 0, columns * size);
        else
            tile->l[i] += probabilities(shape, n, blocks, s, tile->m[i], p_row, p_type);
    }
}

void tile_values(const attention_shape *shape, const attention_job *tile, size_t n, const visible_block *blocks,
                 const void *p, size_t stride, bf16 *panel)
{
    const gemm_kernel *g = attention_gemm(shape);
    const size_t queries = tile->rows * shape->heads_per_kv, dim = shape->head_dim;
    const gemm_output y = {.y = tile->o, .stride = dim, .accumulate = true};
    const char *p_block = p;
    for (size_t i = 0; i < n; i++, p_block += KV_BLOCK * dtype_size(g->activation)) {
        const kv_block *b = blocks[i].block;
        const void *next = i + 1 < n ? blocks[i + 1].block->v : NULL;
        const size_t slots = blocks[i].slots, used = round_up(slots, (size_t)g->kr);
        const gemm_input x = {p_block, queries, stride};
        if (b->row_stride)
            shape->kernels->weighted_rows(queries, slots, dim, (const float *)(const void *)p_block, stride, b->v,
                                          b->row_stride, tile->o, dim);
        else if (shape->kv_type == QWEN3_DTYPE_Q8)
            multiply_q8(shape, &(gemm_weights){kv_block_q8(b->v, b->slots), dim, b->slots, 0, dim, 0, used, NULL}, &x,
                        &y, panel);
        else
            gemm(g, &(gemm_weights){b->v, dim, b->slots, 0, dim, 0, used, next}, &x, &y);
    }
}

size_t tile_workspace_layout(const attention_shape *shape, size_t tile_rows, size_t n_blocks, void *data,
                             tile_workspace *parts)
{
    const gemm_kernel *g = attention_gemm(shape);
    const size_t depth = shape->head_dim > KV_BLOCK ? shape->head_dim : KV_BLOCK;
    const size_t panel_bytes = shape->kv_type == QWEN3_DTYPE_Q8 ? gemm_packed_bytes(g, (size_t)g->nr, depth) : 0;
    size_t elements = tile_rows * shape->heads_per_kv * tile_stride(n_blocks);
    size_t scores_at = round_up(n_blocks * sizeof(visible_block), CACHE_LINE);
    size_t probabilities_at = scores_at + elements * sizeof(float);
    size_t panel_at = probabilities_at + (g->activation == QWEN3_DTYPE_F32 ? 0 : elements * dtype_size(g->activation));
    if (data) {
        parts->blocks = data;
        parts->scores = (float *)((char *)data + scores_at);
        parts->probabilities =
            g->activation == QWEN3_DTYPE_F32 ? parts->scores : (void *)((char *)data + probabilities_at);
        parts->panel = (bf16 *)((char *)data + panel_at);
    }
    return panel_at + panel_bytes;
}
