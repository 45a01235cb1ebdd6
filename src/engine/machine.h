/* machine.h - what is known of a machine, for predictions (cost.h). */
#ifndef QWEN3_ENGINE_MACHINE_H
#define QWEN3_ENGINE_MACHINE_H

#include "base/status.h"
#include "qwen3.h"

#define MACHINE_MOST_RANKS (1 << 20) /* nodes, ranks, threads */

/* Rows of the products in qwen3_machine.product_values, ascending. */
extern const int machine_rows[QWEN3_MACHINE_ROWS];

/* Whether a machine that a caller made can be used: counts, level and rates. */
qwen3_status machine_check(const qwen3_machine *m, qwen3_error *err);

/* Keys and values of weights of this type, where nobody asks for another. */
static inline qwen3_dtype machine_kv_type(qwen3_dtype dtype)
{
    return dtype == QWEN3_DTYPE_F32 ? QWEN3_DTYPE_F32 : QWEN3_DTYPE_BF16;
}

/* ceil(log2(n)): the rounds of a collective in which those who know double in each. */
static inline int machine_doublings(int n)
{
    int rounds = 0;
    while ((1 << rounds) < n)
        rounds++;
    return rounds;
}

#endif
