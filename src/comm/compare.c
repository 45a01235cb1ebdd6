/* compare.c - whether all ranks have the same, and otherwise which of them differ, and in what. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/status.h"
#include "comm/comm.h"
#include "comm/rank_list.h"

typedef struct item_list {
    const qwen3_comm_item *items;
    size_t n;
} item_list;

/* ---- As text: the names and values one after the other, each with its zero byte ------------------ */

static uint64_t digest_items(const item_list *list)
{
    uint64_t digest = 0;
    for (size_t i = 0; i < list->n; i++) {
        digest = digest_bytes(digest, list->items[i].name, strlen(list->items[i].name));
        digest = digest_bytes(digest, list->items[i].value, strlen(list->items[i].value));
    }
    return digest;
}

static size_t text_bytes(const item_list *list)
{
    size_t bytes = 0;
    for (size_t i = 0; i < list->n; i++)
        bytes += strlen(list->items[i].name) + strlen(list->items[i].value) + 2;
    return bytes;
}

static void write_items(const item_list *list, char *text)
{
    for (size_t i = 0; i < list->n; i++) {
        text = stpcpy(text, list->items[i].name) + 1;
        text = stpcpy(text, list->items[i].value) + 1;
    }
}

/* An item that two ranks do not share. */
typedef struct difference {
    size_t index;
    const char *name, *own, *first; /* own value and that of rank 0; NULL: it has no such item */
} difference;

/* The first item that is not that of rank 0, whose items are text[bytes]. False where there is none. */
static bool find_difference(const item_list *own, const char *text, size_t bytes, difference *d)
{
    const char *end = text + bytes;
    for (size_t i = 0; i < own->n || text < end; i++) {
        const qwen3_comm_item *item = i < own->n ? &own->items[i] : NULL;
        const char *name = text < end ? text : NULL, *value = name ? name + strlen(name) + 1 : NULL;
        const bool same_name = item && name && strcmp(item->name, name) == 0;
        if (!same_name || strcmp(item->value, value) != 0) {
            *d =
                (difference){i, item ? item->name : name, item ? item->value : NULL, same_name || !item ? value : NULL};
            return true;
        }
        text = value + strlen(value) + 1;
    }
    return false;
}

/* ---- Between ranks ------------------------------------------------------------------------------ */

/* What rank 0 has, for the other ranks. *text [*bytes] is freed with free(). */
static qwen3_status fetch_first(comm *c, const item_list *list, char **text, size_t *bytes, qwen3_error *err)
{
    uint64_t size = text_bytes(list);
    comm_broadcast(c, &size, sizeof size, 0, QWEN3_COMM_CONTROL);
    *bytes = size;
    if (!(*text = malloc(size + 1)))
        fail(err, QWEN3_ERR_MEMORY, "no memory for the %zu bytes that rank 0 has to compare", *bytes);
    if (qwen3_comm_agree(c, err))
        return err->status;
    if (comm_rank(c) == 0)
        write_items(list, *text);
    comm_broadcast(c, *text, *bytes, 0, QWEN3_COMM_CONTROL);
    return QWEN3_OK;
}

/* *first: in which item ranks differ first; member [size]: the ranks that do in this one. */
static qwen3_status find_ranks(comm *c, const difference *own, bool *member, qwen3_error *err)
{
    const size_t size = (size_t)comm_size(c);
    double *flags = calloc(size, sizeof *flags);
    if (!flags)
        fail(err, QWEN3_ERR_MEMORY, "no memory for a table of %zu ranks", size);
    if (!qwen3_comm_agree(c, err)) {
        const double mine = own->name ? -(double)own->index : -INFINITY;
        double earliest = mine;
        qwen3_comm_max(c, &earliest, 1);
        flags[comm_rank(c)] = mine == earliest;
        qwen3_comm_max(c, flags, size);
        for (size_t r = 0; r < size; r++)
            member[r] = flags[r] > 0;
    }
    free(flags);
    return err->status;
}

static void quote(const char *value, char text[256])
{
    if (value)
        snprintf(text, 256, "\"%.240s\"", value);
    else
        snprintf(text, 256, "nothing");
}

/* The lowest rank that differs reports it. */
static qwen3_status report(comm *c, const char *subject, const difference *d, const bool *member, const char *advice,
                           qwen3_error *err)
{
    int lowest = 0;
    while (!member[lowest])
        lowest++;
    if (comm_rank(c) == lowest) {
        char ranks[128], own[256], first[256];
        rank_list(member, comm_size(c), ranks, sizeof ranks);
        quote(d->own, own);
        quote(d->first, first);
        fail(err, QWEN3_ERR_COMM, "%.200s: %.150s: got %s, rank 0 has %s (ranks that differ: %s); %s", subject, d->name,
             own, first, ranks, advice);
    }
    return qwen3_comm_agree(c, err);
}

qwen3_status qwen3_comm_compare(qwen3_comm *c, const char *subject, const qwen3_comm_item *items, size_t n,
                                const char *advice, qwen3_error *err)
{
    const item_list list = {items, n};
    if (err && !err->status && !missing(subject, "subject", err) && !missing(advice, "advice", err) && n > 0)
        missing(items, "items", err);
    const qwen3_status status = qwen3_comm_agree(c, err);
    if (status || !err)
        return status;
    const uint64_t own = digest_items(&list);
    uint64_t first = own;
    comm_broadcast(c, &first, sizeof first, 0, QWEN3_COMM_CONTROL);
    double differs = own != first;
    qwen3_comm_max(c, &differs, 1);
    if (differs == 0)
        return QWEN3_OK;
    char *text = NULL;
    size_t bytes;
    bool *member = calloc((size_t)comm_size(c), sizeof *member);
    if (!member)
        fail(err, QWEN3_ERR_MEMORY, "no memory for a table of %d ranks", comm_size(c));
    if (!fetch_first(c, &list, &text, &bytes, err)) {
        difference d = {0};
        find_difference(&list, text, bytes, &d);
        if (!find_ranks(c, &d, member, err))
            report(c, subject, &d, member, advice, err);
    }
    free(text);
    free(member);
    return err->status;
}
