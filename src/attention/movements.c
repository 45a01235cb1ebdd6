/* movements.c - the choice between movements. */
#include "attention/movement.h"

#define ENTRY(name) &movement_##name,
static const movement *const movements[] = {MOVEMENTS(ENTRY)};

/* Where nothing was measured. A collective: latency times bandwidth; shared memory (1 to 2 us at 10 GB/s) and 10 Gbit/s
 * (15 to 35 us at 1 GB/s) give about the same. A hop: waiting for both neighbours, another plan of work, more barriers,
 * and tiles of fewer keys (docs/notebook/2026-11-27-movements.md). */
static const movement_prices default_prices = {.message = 16384, .hop = 1048576};

double movement_price(const attention_problem *p, const movement *m)
{
    const movement_cost cost = m->cost(p);
    const movement_prices *prices = p->prices ? p->prices : &default_prices;
    const double bytes = cost.bytes / comm_size(p->comm), hops = cost.messages * prices->hop;
    if (!cost.overlaps)
        return bytes + cost.messages * prices->message;
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
