/* movements.c - the table of movements, and the choice between them. */
#include "attention/movement.h"

static const movement *const movements[] = {
    &movement_local, &movement_split_heads, &movement_pass_kv, &movement_gather_kv, &movement_pass_q,
};

/* What a message costs beside its bytes: latency times bandwidth. Shared memory (1 to 2 us at 10 GB/s) and 10 Gbit/s
 * (15 to 35 us at 1 GB/s) give about the same. */
#define MESSAGE_BYTES 16384.0

double movement_price(const attention_problem *p, const movement *m)
{
    const movement_cost cost = m->cost(p);
    const double bytes = cost.bytes / comm_size(p->comm), messages = cost.messages * MESSAGE_BYTES;
    if (!cost.overlaps)
        return bytes + messages;
    return bytes > messages ? bytes : messages; /* latencies pass while earlier keys are attended */
}

const movement *movement_choose(const attention_problem *p)
{
    const movement *best = NULL;
    double best_price = 0;
    for (size_t i = 0; i < sizeof movements / sizeof *movements; i++) {
        if (!movements[i]->applies(p))
            continue;
        const double price = movement_price(p, movements[i]);
        if (best && price >= best_price)
            continue;
        best = movements[i];
        best_price = price;
    }
    return best;
}
