/* allocations.h - makes the n-th allocation of the library fail, and knows what it has not freed.
 *
 * For programs that contain the library's object files and are linked with --wrap for each function that allocations.c
 * replaces: calls from these object files come here. What the libraries below (C, MPI, OpenMP) allocate for
 * themselves does not.
 */
#ifndef QWEN3_TESTS_ALLOCATIONS_H
#define QWEN3_TESTS_ALLOCATIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The n-th allocation from now on fails, once; 0: none. Starts counting. */
void allocations_fail(uint64_t n);
/* Whether it has failed, and from where it was called: an address for addr2line. */
bool allocations_failed(uintptr_t *caller);

/* What is not freed yet: blocks, and bytes of mappings. */
typedef struct allocations {
    size_t blocks, mapped;
} allocations;

allocations allocations_live(void);
/* Prints the blocks beyond the first `known`, each with the address for addr2line. */
void allocations_print(size_t known);

/* malloc as the library calls it, for libraries whose allocations are the library's concern. */
void *allocations_malloc(size_t bytes);
void allocations_free(void *p);

#endif
