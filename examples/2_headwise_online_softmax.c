/* Step 2: each rank has its own heads.
 *
 * Rank r of R has KV heads from KV_HEADS r / R to KV_HEADS (r + 1) / R and the query heads that read them, of all
 * positions. It receives the output of its query heads. No score matrix is made, so that long sequences fit.
 *
 *   mpirun -n 3 2_headwise_online_softmax
 */
#include "problem.h"

static qwen3_status attend(qwen3_comm *world, qwen3_error *err)
{
    const size_t rank = (size_t)qwen3_comm_rank(world), size = (size_t)qwen3_comm_size(world);
    const size_t per_kv_head = HEADS / KV_HEADS;
    part keys = {.first = KV_HEADS * rank / size, .count = POSITIONS};
    keys.heads = KV_HEADS * (rank + 1) / size - keys.first;
    const part queries = {.first = keys.first * per_kv_head, .heads = keys.heads * per_kv_head, .count = keys.count};

    arrays a;
    qwen3_attention_args args;
    err->status = arrays_make(&a, &queries, &keys, &args);
    qwen3_status status = qwen3_comm_agree(world, err);
    args.layout = QWEN3_INPUT_SHARDED;
    if (status == QWEN3_OK)
        status = qwen3_attention_headwise_online_softmax(&args, world, err);
    if (status == QWEN3_OK)
        print_sum(a.out, queries.heads * queries.count * HEAD_DIM, world);
    arrays_free(&a);
    return status;
}

int main(int argc, char **argv)
{
    return run_example(argc, argv, attend);
}
