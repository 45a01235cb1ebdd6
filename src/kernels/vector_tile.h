/* vector_tile.h - the tile of F32, of BF16 and of bytes out of the products of single groups. The including file
 * provides before:
 *   the vectors of a level (vector_*.h), NR
 *   tile_activation   the type of x: float or bf16
 *   add_group(rows, storage, x, x_stride, group, sum)   sum += x * weights of one group
 */

/* The groups of whole steps, with step_bytes of `later` prefetched in each. */
TEMPLATE void add_steps(const int rows, const qwen3_dtype storage, size_t steps, const tile_activation *x,
                        size_t x_stride, const char *group, const char *later, size_t step_bytes, const int level,
                        vec sum[MR][VECS])
{
    const size_t kr = GROUP_VALUES(storage), group_bytes = NR * GROUP_BYTES(storage), groups = PREFETCH_STEP / kr;
    const size_t parts = level == 1 ? PREFETCH_PARTS : groups;
    for (size_t s = 0; s < steps; s++, later += step_bytes) {
        if (level == 1)
            prefetch_rows(rows, x, x_stride * sizeof *x, PREFETCH_STEP * sizeof *x);
        for (size_t part = 0; part < parts; part++) {
            prefetch_part(later, step_bytes, part, parts, level);
            for (size_t i = 0; i < groups / parts; i++, group += group_bytes, x += kr)
                add_group(rows, storage, x, x_stride, group, sum);
        }
    }
}

TEMPLATE void tile_rows(const int rows, const qwen3_dtype storage, size_t k_groups, const tile_activation *x,
                        size_t x_stride, const char *w, float *y, size_t y_stride, bool accumulate,
                        const gemm_prefetch *prefetch)
{
    const size_t kr = GROUP_VALUES(storage), group_bytes = NR * GROUP_BYTES(storage);
    const size_t steps = prefetch ? k_groups / (PREFETCH_STEP / kr) : 0;
    vec sum[MR][VECS];
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < VECS; v++)
            sum[r][v] = accumulate ? vec_load(y + (size_t)r * y_stride + v * LANES) : vec_set1(0.0f);
    }
    if (prefetch && prefetch->level == 1)
        add_steps(rows, storage, steps, x, x_stride, w, prefetch->from, prefetch->step_bytes, 1, sum);
    else if (prefetch)
        add_steps(rows, storage, steps, x, x_stride, w, prefetch->from, prefetch->step_bytes, 2, sum);
    for (size_t g = steps * (PREFETCH_STEP / kr); g < k_groups; g++)
        add_group(rows, storage, x + g * kr, x_stride, w + g * group_bytes, sum);
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < VECS; v++)
            vec_store(y + (size_t)r * y_stride + v * LANES, sum[r][v]);
    }
}
