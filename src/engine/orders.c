#include "engine/orders.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* The orders of most steps of decode fit in the first message. */
enum { FIRST_BYTES = 4096, ENTRY_ALIGNMENT = 8 };

static bool reserve(order_list *l, size_t room)
{
    if (room <= l->room)
        return true;
    const size_t larger = room + room / 2 + FIRST_BYTES;
    unsigned char *data = realloc(l->data, larger);
    if (!data)
        return false;
    memset(data + l->room, 0, larger - l->room);
    l->data = data;
    l->room = larger;
    return true;
}

qwen3_status orders_open(order_list *l, qwen3_error *err)
{
    *l = (order_list){0};
    return reserve(l, FIRST_BYTES) ? QWEN3_OK : fail(err, QWEN3_ERR_MEMORY, "no memory for a list of orders");
}

void orders_put(order_list *l, const void *data, size_t bytes)
{
    const size_t padded = round_up(bytes, ENTRY_ALIGNMENT);
    if (!reserve(l, l->n + padded)) {
        l->no_memory = true;
        return;
    }
    if (bytes > 0)
        memcpy(l->data + l->n, data, bytes);
    l->n += padded;
}

const void *orders_get(order_list *l, size_t bytes)
{
    const void *entry = l->data + l->at;
    l->at += round_up(bytes, ENTRY_ALIGNMENT);
    return entry;
}

void orders_clear(order_list *l)
{
    l->n = l->at = 0;
    l->no_memory = false;
}

void orders_free(order_list *l)
{
    free(l->data);
    *l = (order_list){0};
}

qwen3_status orders_share(order_list *l, comm *world, qwen3_error *err)
{
    struct {
        uint64_t n;
        unsigned char data[FIRST_BYTES - sizeof(uint64_t)];
    } first;
    const bool root = comm_rank(world) == 0;
    if (comm_size(world) == 1)
        return QWEN3_OK;
    if (comm_check(world, err))
        return err->status;
    memset(&first, 0, sizeof first);
    first.n = l->n;
    if (root)
        memcpy(first.data, l->data, l->n < sizeof first.data ? l->n : sizeof first.data);
    comm_broadcast(world, &first, sizeof first, 0, QWEN3_COMM_CONTROL);
    const size_t n = first.n, more = n > sizeof first.data ? n - sizeof first.data : 0;
    if (!root && !reserve(l, n))
        fail(err, QWEN3_ERR_MEMORY, "no memory for %zu bytes of orders", n);
    if (more > 0 && qwen3_comm_agree(world, err))
        return err->status;
    if (err->status) /* what fits in the first message always has room */
        return err->status;
    if (!root)
        memcpy(l->data, first.data, n - more);
    l->n = n;
    if (more > 0)
        comm_broadcast(world, l->data + sizeof first.data, more, 0, QWEN3_COMM_CONTROL);
    return QWEN3_OK;
}
