/* memory_plan.h - room for many buffers in one allocation, by their lifetimes.
 *
 * Time is a sequence of numbered phases. A buffer is alive from the beginning of one phase to the end of another;
 * buffers that are never alive in the same phase may share room. Add all buffers, place them, bind them to memory.
 */
#ifndef QWEN3_BASE_MEMORY_PLAN_H
#define QWEN3_BASE_MEMORY_PLAN_H

#include <stdbool.h>
#include <stddef.h>

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

/* Forgets all buffers and keeps the table. A zeroed plan is empty. */
void memory_plan_clear(memory_plan *p);
void memory_plan_free(memory_plan *p);
/* A buffer for phases [first, last], both included. `pointer` is the address of an object pointer, which must stay
 * where it is until memory_plan_bind sets it (to NULL where bytes = 0). */
void memory_plan_add(memory_plan *p, void *pointer, size_t bytes, int first, int last);
/* Gives every buffer its place, at a multiple of CACHE_LINE, and returns the bytes they take together. False where the
 * table had no memory. */
bool memory_plan_place(memory_plan *p, size_t *bytes);
/* Sets all pointers to their places in memory that begins at `base`. */
void memory_plan_bind(const memory_plan *p, void *base);

#endif
