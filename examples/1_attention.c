/* Step 1: one attention operator on your own arrays.
 *
 * Every rank holds the queries, keys and values of some positions of one sequence, and receives the output of its own
 * queries. No rank ever holds the whole sequence. The shards differ in size on purpose.
 *
 *   mpirun -n 3 1_attention
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "qwen3.h"

enum { HEADS = 8, KV_HEADS = 4, HEAD_DIM = 64, POSITIONS = 100 };

/* Some smooth data that depends on the global position, as a real model's would. */
static void fill(float *x, size_t heads, size_t first, size_t count, float phase)
{
    for (size_t h = 0; h < heads; h++)
        for (size_t i = 0; i < count; i++)
            for (size_t d = 0; d < HEAD_DIM; d++)
                x[(h * count + i) * HEAD_DIM + d] = sinf(phase + (float)h + 0.1f * (float)((first + i) * (d + 1)));
}

static qwen3_status attend(qwen3_comm *world, qwen3_error *err)
{
    size_t rank = (size_t)qwen3_comm_rank(world), size = (size_t)qwen3_comm_size(world);
    /* Rank r gets the positions from r^2 / R^2 to (r + 1)^2 / R^2 of the sequence: the last rank has most of it. */
    size_t first = POSITIONS * rank * rank / (size * size);
    size_t count = POSITIONS * (rank + 1) * (rank + 1) / (size * size) - first;

    /* q, out [1, HEADS, count, HEAD_DIM]; k, v [1, KV_HEADS, count, HEAD_DIM] */
    float *q = calloc(HEADS * count * HEAD_DIM + 1, sizeof *q);
    float *k = calloc(KV_HEADS * count * HEAD_DIM + 1, sizeof *k);
    float *v = calloc(KV_HEADS * count * HEAD_DIM + 1, sizeof *v);
    float *out = calloc(HEADS * count * HEAD_DIM + 1, sizeof *out);
    qwen3_status status = QWEN3_ERR_MEMORY;
    if (!q || !k || !v || !out)
        goto done;
    fill(q, HEADS, first, count, 0.0f);
    fill(k, KV_HEADS, first, count, 1.0f);
    fill(v, KV_HEADS, first, count, 2.0f);

    qwen3_attention_args args = qwen3_attention_args_default();
    args.batch = 1;
    args.heads = HEADS;
    args.kv_heads = KV_HEADS; /* grouped-query attention: two query heads read one KV head */
    args.q_len = args.kv_len = count;
    args.head_dim = HEAD_DIM;
    args.q = q;
    args.k = k;
    args.v = v;
    args.out = out;
    args.causal = true;
    args.layout = QWEN3_INPUT_SHARDED;
    args.global_seq_len = POSITIONS; /* checked against the sum over the ranks */
    status = qwen3_attention_sequence_online_softmax(&args, world, err);
    if (status == QWEN3_OK && count > 0)
        printf("rank %zu of %zu: positions %zu..%zu, head 0 of the last one: %.6f %.6f %.6f ...\n", rank, size, first,
               first + count - 1, out[(count - 1) * HEAD_DIM], out[(count - 1) * HEAD_DIM + 1],
               out[(count - 1) * HEAD_DIM + 2]);
done:
    free(out);
    free(v);
    free(k);
    free(q);
    return status;
}

int main(int argc, char **argv)
{
    qwen3_error err = {0};
    qwen3_comm *world;
    qwen3_status status = qwen3_init(&argc, &argv, &world, &err);
    if (status == QWEN3_OK)
        status = attend(world, &err);
    if (status != QWEN3_OK)
        fprintf(stderr, "%s: %s\n", qwen3_status_name(status), err.message);
    qwen3_finalize();
    return status == QWEN3_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
