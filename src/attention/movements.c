/* movements.c - the choice between movements. */
#include "attention/movement.h"

#define ENTRY(name) &movement_##name,
static const movement *const movements[] = {MOVEMENTS(ENTRY)};

/* What a collective costs beside its bytes, as bytes: latency times bandwidth. Shared memory (1 to 2 us at 10 GB/s) and
 * 10 Gbit/s (15 to 35 us at 1 GB/s) give about the same. */
#define MESSAGE_BYTES 16384.0
/* What a hop of a ring costs beside its bytes: waiting for both neighbours, another plan of work, more barriers, and
 * tiles of fewer keys (docs/notebook/2026-11-27-movements.md). */
#define HOP_BYTES 1048576.0

double movement_price(const attention_problem *p, const movement *m)
{
    const movement_cost cost = m->cost(p);
    const double bytes = cost.bytes / comm_size(p->comm), hops = cost.messages * HOP_BYTES;
    if (!cost.overlaps)
        return bytes + cost.messages * MESSAGE_BYTES;
    return bytes > hops ? bytes : hops;
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
