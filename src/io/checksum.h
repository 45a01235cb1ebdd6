/* checksum.h - tells whether data have changed: Fletcher's sums (1982) modulo 2^32, as in ZFS, in 16 lanes. They are
 * additions alone, so that every processor computes them about as fast as it reads memory, without instructions of its
 * own. They find accidents, not attacks.
 *
 * The data are 32-bit words, filled up with zeros to whole steps of 16 words. For word x of lane j, a_j += x and then
 * b_j += a_j. The value mixes the lanes and the number of bytes into 64 bits, one to one in each lane: data that differ
 * in one word, or in words of one lane that do not cancel out in both sums, always differ in their value. */
#ifndef QWEN3_IO_CHECKSUM_H
#define QWEN3_IO_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

#define CHECKSUM_STEP 64 /* bytes */

/* Zeroed to begin with. */
typedef struct checksum {
    uint32_t a[CHECKSUM_STEP / 4], b[CHECKSUM_STEP / 4];
    uint64_t bytes;
} checksum;

/* The bytes that follow: before the last call a multiple of CHECKSUM_STEP. */
void checksum_add(checksum *sum, const void *data, size_t bytes);
uint64_t checksum_value(const checksum *sum);

#endif
