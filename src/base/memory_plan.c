/* memory_plan.c - first fit, largest buffer first: optimal or close to it for the few dozen buffers of a step. */
#include "base/memory_plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

void memory_plan_free(memory_plan *p)
{
    free(p->buffers);
    *p = (memory_plan){0};
}

void memory_plan_add(memory_plan *p, void *pointer, size_t bytes, int first, int last)
{
    if (p->n == p->capacity) {
        size_t capacity = 2 * p->capacity + 16;
        planned_buffer *buffers = realloc(p->buffers, capacity * sizeof *buffers);
        if (!buffers) {
            p->failed = true;
            return;
        }
        p->buffers = buffers;
        p->capacity = capacity;
    }
    p->buffers[p->n] = (planned_buffer){pointer, round_up(bytes, CACHE_LINE), 0, p->n, first, last};
    p->n++;
}

static bool alive_together(const planned_buffer *a, const planned_buffer *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* The lowest offset at which `b` meets none of the n buffers that are placed and alive with it. */
static size_t lowest_offset(const planned_buffer *placed, size_t n, const planned_buffer *b)
{
    size_t offset = 0;
    for (size_t i = 0; i < n;) {
        const planned_buffer *other = &placed[i++];
        if (alive_together(other, b) && offset < other->offset + other->bytes && other->offset < offset + b->bytes) {
            offset = other->offset + other->bytes;
            i = 0; /* it may meet one that it passed before */
        }
    }
    return offset;
}

/* Largest first; equals in the order in which they were added. */
static int by_size(const void *a, const void *b)
{
    const planned_buffer *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return (x->order > y->order) - (x->order < y->order);
}

bool memory_plan_place(memory_plan *p, size_t *bytes)
{
    *bytes = 0;
    if (p->failed)
        return false;
    if (p->n > 0)
        qsort(p->buffers, p->n, sizeof *p->buffers, by_size);
    for (size_t i = 0; i < p->n; i++) {
        planned_buffer *b = &p->buffers[i];
        b->offset = lowest_offset(p->buffers, i, b);
        if (b->offset + b->bytes > *bytes)
            *bytes = b->offset + b->bytes;
    }
    return true;
}

void memory_plan_bind(memory_plan *p, void *base)
{
    for (size_t i = 0; i < p->n; i++) {
        const planned_buffer *b = &p->buffers[i];
        void *place = b->bytes ? (char *)base + b->offset : NULL;
        memcpy(b->pointer, &place, sizeof place);
    }
    p->n = 0;
}

qwen3_status memory_region_fit(memory_region *r, memory_plan *p, const char *what, qwen3_error *err)
{
    size_t bytes;
    qwen3_status status = QWEN3_OK;
    if (!memory_plan_place(p, &bytes)) {
        status = fail(err, QWEN3_ERR_MEMORY, "no memory for a plan of %s", what);
    } else if (bytes > r->bytes) {
        memory_region_free(r);
        status = memory_alloc(&r->data, bytes, what, err);
        r->bytes = status ? 0 : bytes;
    }
    if (!status)
        memory_plan_bind(p, r->data);
    p->n = 0;
    p->failed = false;
    return status;
}

void memory_region_free(memory_region *r)
{
    memory_free(r->data, r->bytes);
    *r = (memory_region){0};
}
