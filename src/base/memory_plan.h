/* memory_plan.h - room for many buffers in one allocation, by their lifetimes.
 *
 * Time is a sequence of numbered phases. A buffer is alive from the beginning of one phase to the end of another;
 * buffers that are never alive in the same phase may share room. Add all buffers, place them, bind them to memory.
 */
#ifndef QWEN3_BASE_MEMORY_PLAN_H
#define QWEN3_BASE_MEMORY_PLAN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

typedef struct planned_buffer {
    void *pointer; /* address of the pointer to be set */
    size_t bytes, offset;
    size_t order; /* of memory_plan_add */
    int first, last;
} planned_buffer;

typedef struct memory_plan {
    planned_buffer *buffers;
    size_t n, capacity;
    bool failed; /* no memory for this table */
} memory_plan;

/* Memory that grows with what is planned. Zero-initialise. */
typedef struct memory_region {
    void *data;
    size_t bytes;
} memory_region;

/* A zeroed plan is empty. */
void memory_plan_free(memory_plan *p);
/* A buffer for phases [first, last], both included. `pointer` is the address of an object pointer, which must stay
 * where it is until it is set (to NULL where bytes = 0). */
void memory_plan_add(memory_plan *p, void *pointer, size_t bytes, int first, int last);
/* Gives every buffer its place, at a multiple of CACHE_LINE, and returns the bytes they take together. False where the
 * table had no memory. */
bool memory_plan_place(memory_plan *p, size_t *bytes);
/* Sets all pointers to their places in memory that begins at `base`, and forgets the buffers. */
void memory_plan_bind(memory_plan *p, void *base);
/* Places the buffers, in new memory where the region is too small (what it held is lost), and binds them. `what` names
 * the memory in the error. On failure no pointer is set. */
qwen3_status memory_region_fit(memory_region *r, memory_plan *p, const char *what, qwen3_error *err);
void memory_region_free(memory_region *r);

#endif
