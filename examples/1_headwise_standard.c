/* Step 1: an attention operator on whole arrays.
 *
 * Every rank has all of q, k and v, and receives all of the output. The ranks share the work by heads.
 *
 *   mpirun -n 2 1_headwise_standard
 */
#include "problem.h"

static qwen3_status attend(qwen3_comm *world, qwen3_error *err)
{
    const part queries = {.heads = HEADS, .count = POSITIONS}, keys = {.heads = KV_HEADS, .count = POSITIONS};
    arrays a;
    qwen3_attention_args args;
    err->status = arrays_make(&a, &queries, &keys, &args);
    /* If memory is short on one rank, all ranks must know: none may wait for a rank that gave up. */
    qwen3_status status = qwen3_comm_agree(world, err);
    args.layout = QWEN3_INPUT_REPLICATED;
    if (status == QWEN3_OK)
        status = qwen3_attention_headwise_standard(&args, world, err);
    if (status == QWEN3_OK) /* the same on all ranks: that of rank 0 counts */
        print_sum(a.out, qwen3_comm_rank(world) == 0 ? (size_t)HEADS * POSITIONS * HEAD_DIM : 0, world);
    arrays_free(&a);
    return status;
}

int main(int argc, char **argv)
{
    return run_example(argc, argv, attend);
}
