/* random.h - random numbers by index: a counter-based generator (Salmon et al. 2011) made of the finaliser of
 * SplitMix64 (Steele, Lea & Flood 2014). mix64(key + i * GOLDEN_GAMMA) is number i of the stream `key`. */
#ifndef QWEN3_BASE_RANDOM_H
#define QWEN3_BASE_RANDOM_H

#include <stdint.h>

#define GOLDEN_GAMMA UINT64_C(0x9e3779b97f4a7c15)

static inline uint64_t mix64(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

#endif
