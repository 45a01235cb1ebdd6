/* orders.h - what rank 0 has the other ranks do before, and in, a step of the scheduler: a list in one buffer, which
 * is one broadcast. */
#ifndef QWEN3_ENGINE_ORDERS_H
#define QWEN3_ENGINE_ORDERS_H

#include "comm/comm.h"

typedef enum order_kind {
    ORDER_RESET, /* sequence a becomes empty */
    ORDER_FORK,  /* sequence b gets the first c tokens of a */
    ORDER_OPEN,  /* sequence a gets a sampler: options, bias, and b tokens, of which the last c are generated, follow */
    ORDER_CLOSE, /* and has none any more */
    ORDER_FORWARD, /* one step: a tokens, of which b rows are to be chosen from; both follow. c: some are filtered */
    ORDER_FAIL,    /* rank 0 cannot go on: its error follows */
    ORDER_END,     /* no more orders come */
} order_kind;

typedef struct order {
    int64_t kind, a, b, c;
} order;

typedef struct order_list {
    unsigned char *data; /* [n] every entry begins at a multiple of 8 */
    size_t n, room;
    size_t at;      /* what has been read */
    bool no_memory; /* something is missing */
} order_list;

/* An empty list with room for the first message. */
qwen3_status orders_open(order_list *l, qwen3_error *err);
/* Appends; rank 0. */
void orders_put(order_list *l, const void *data, size_t bytes);
static inline void orders_add(order_list *l, order_kind kind, int64_t a, int64_t b, int64_t c)
{
    orders_put(l, &(order){kind, a, b, c}, sizeof(order));
}
/* The next entry, of so many bytes. */
const void *orders_get(order_list *l, size_t bytes);
static inline bool orders_left(const order_list *l)
{
    return l->at < l->n;
}
void orders_clear(order_list *l);
void orders_free(order_list *l);
/* Those of rank 0 to all ranks. Collective. Waits for rank 0 without keeping a CPU busy for long. */
qwen3_status orders_share(order_list *l, comm *world, qwen3_error *err);

#endif
