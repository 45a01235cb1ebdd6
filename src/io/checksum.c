/* checksum.c - see checksum.h. */
#include "io/checksum.h"

#include <string.h>

#include "base/random.h"

/* Vectors as GNU C has them on every architecture. */
typedef uint32_t words __attribute__((vector_size(16)));

enum { VECTORS = CHECKSUM_STEP / sizeof(words) };

static inline void add_step(words a[VECTORS], words b[VECTORS], const void *step)
{
    words x[VECTORS];
    memcpy(x, step, sizeof x);
    for (int v = 0; v < VECTORS; v++) {
        a[v] += x[v];
        b[v] += a[v];
    }
}

void checksum_add(checksum *sum, const void *data, size_t bytes)
{
    const unsigned char *at = data;
    const size_t whole = bytes / CHECKSUM_STEP * CHECKSUM_STEP;
    words a[VECTORS], b[VECTORS];
    memcpy(a, sum->a, sizeof a);
    memcpy(b, sum->b, sizeof b);
    for (size_t i = 0; i < whole; i += CHECKSUM_STEP)
        add_step(a, b, at + i);
    if (whole < bytes) {
        unsigned char last[CHECKSUM_STEP] = {0};
        memcpy(last, at + whole, bytes - whole);
        add_step(a, b, last);
    }
    memcpy(sum->a, a, sizeof a);
    memcpy(sum->b, b, sizeof b);
    sum->bytes += bytes;
}

uint64_t checksum_value(const checksum *sum)
{
    uint64_t value = mix64(sum->bytes);
    for (size_t j = 0; j < sizeof sum->a / sizeof *sum->a; j++)
        value = mix64(value + ((uint64_t)sum->b[j] << 32 | sum->a[j]));
    return value;
}
