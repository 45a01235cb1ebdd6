/* digest.h - a digest of 64 bits, to see whether two ranks hold the same. Not meant against an adversary. */
#ifndef QWEN3_BASE_DIGEST_H
#define QWEN3_BASE_DIGEST_H

#include <stddef.h>
#include <string.h>

#include "base/random.h"

/* Goes on from the digest of what came before, 0 at the beginning. */
static inline uint64_t digest_bytes(uint64_t before, const void *data, size_t n)
{
    uint64_t digest = mix64(before ^ n), word;
    const unsigned char *at = data;
    for (; n >= sizeof word; at += sizeof word, n -= sizeof word) {
        memcpy(&word, at, sizeof word);
        digest = mix64(digest ^ word) + GOLDEN_GAMMA;
    }
    word = 0;
    for (size_t i = 0; i < n; i++)
        word |= (uint64_t)at[i] << 8 * i;
    return mix64(digest ^ word);
}

#endif
