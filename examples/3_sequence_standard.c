/* Step 3: each rank has its own positions, and a mask of its own says which keys are seen.
 *
 * Rank r of R has positions from POSITIONS r / R to POSITIONS (r + 1) / R of the sequence. The mask is additive; its
 * rows are the queries of this rank, its columns the keys of the whole sequence. This one is the causal mask, written
 * out.
 *
 *   mpirun -n 2 3_sequence_standard
 */
#include "problem.h"

static float *causal_mask(const part *queries)
{
    float *mask = calloc(queries->count * POSITIONS + 1, sizeof *mask);
    for (size_t i = 0; mask && i < queries->count; i++)
        for (size_t j = queries->start + i + 1; j < POSITIONS; j++)
            mask[i * POSITIONS + j] = -INFINITY;
    return mask;
}

static qwen3_status attend(qwen3_comm *world, qwen3_error *err)
{
    const size_t rank = (size_t)qwen3_comm_rank(world), size = (size_t)qwen3_comm_size(world);
    part queries = {.heads = HEADS, .start = POSITIONS * rank / size};
    queries.count = POSITIONS * (rank + 1) / size - queries.start;
    part keys = queries;
    keys.heads = KV_HEADS;

    arrays a;
    qwen3_attention_args args;
    float *mask = causal_mask(&queries);
    err->status = arrays_make(&a, &queries, &keys, &args);
    if (!mask)
        err->status = QWEN3_ERR_MEMORY;
    qwen3_status status = qwen3_comm_agree(world, err);
    args.layout = QWEN3_INPUT_SHARDED;
    args.causal = false;
    args.mask = mask;
    args.mask_stride_query = POSITIONS; /* strides of batch and head stay 0: one mask for all of them */
    if (status == QWEN3_OK)
        status = qwen3_attention_sequence_standard(&args, world, err);
    if (status == QWEN3_OK)
        print_sum(a.out, queries.heads * queries.count * HEAD_DIM, world);
    free(mask);
    arrays_free(&a);
    return status;
}

int main(int argc, char **argv)
{
    return run_example(argc, argv, attend);
}
