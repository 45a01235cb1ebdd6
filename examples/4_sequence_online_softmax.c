/* Step 4: each rank has its own positions, of uneven number.
 *
 * Every rank holds the queries, keys and values of some positions of one sequence, and receives the output of its own
 * queries. No rank ever holds the whole sequence. The shards differ in size on purpose.
 *
 *   mpirun -n 3 4_sequence_online_softmax
 */
#include "problem.h"

static qwen3_status attend(qwen3_comm *world, qwen3_error *err)
{
    const size_t rank = (size_t)qwen3_comm_rank(world), size = (size_t)qwen3_comm_size(world);
    /* Rank r gets the positions from r^2 / R^2 to (r + 1)^2 / R^2 of the sequence: the last rank has most of it. */
    part queries = {.heads = HEADS, .start = POSITIONS * rank * rank / (size * size)};
    queries.count = POSITIONS * (rank + 1) * (rank + 1) / (size * size) - queries.start;
    part keys = queries;
    keys.heads = KV_HEADS;

    arrays a;
    qwen3_attention_args args;
    err->status = arrays_make(&a, &queries, &keys, &args);
    qwen3_status status = qwen3_comm_agree(world, err);
    args.layout = QWEN3_INPUT_SHARDED;
    args.global_seq_len = POSITIONS; /* checked against the sum over the ranks */
    if (status == QWEN3_OK)
        status = qwen3_attention_sequence_online_softmax(&args, world, err);
    if (status == QWEN3_OK)
        print_sum(a.out, queries.heads * queries.count * HEAD_DIM, world);
    arrays_free(&a);
    return status;
}

int main(int argc, char **argv)
{
    return run_example(argc, argv, attend);
}
