/* check.h - checks for tests that run on several ranks. A failing check is printed and counted and the test
 * goes on: leaving early on one rank would hang the others in their next collective call.
 *
 *   uint64_t random;
 *   qwen3_comm *world = check_begin(argc, argv, 20261124, &random);
 *   check(a == b, "a is %d, expected %d", a, b);
 *   ...
 *   return check_end(world);
 */
#ifndef QWEN3_TESTS_CHECK_H
#define QWEN3_TESTS_CHECK_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "qwen3.h"

#define CHECK_PRINTED 10 /* failures that one rank prints */

static uint64_t check_count, check_failures;

#define check(condition, ...)                                                                                          \
    do {                                                                                                               \
        check_count++;                                                                                                 \
        if (!(condition) && check_failures++ < CHECK_PRINTED) {                                                        \
            fprintf(stderr, "%s:%d: check failed: %s: ", __FILE__, __LINE__, #condition);                              \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fputc('\n', stderr);                                                                                       \
        }                                                                                                              \
    } while (0)

/* Starts the ranks. *seed, of a randomised test, is QWEN3_TEST_SEED or else `standard`; rank 0 prints it. Without ranks
 * there is no test: the process ends. Collective. */
static inline qwen3_comm *check_begin(int argc, char **argv, uint64_t standard, uint64_t *seed)
{
    qwen3_comm *world = NULL;
    qwen3_error err = {0};
    if (qwen3_init(&argc, &argv, &world, &err) != QWEN3_OK) {
        fprintf(stderr, "rank %d on %s: %s: %s\n", err.rank, err.host, qwen3_status_name(err.status), err.message);
        exit(EXIT_FAILURE);
    }
    const char *text = getenv("QWEN3_TEST_SEED");
    *seed = text ? strtoull(text, NULL, 0) : standard;
    if (qwen3_comm_rank(world) == 0)
        printf("seed %" PRIu64 "\n", *seed);
    return world;
}

/* Adds the counts of all ranks, of which rank 0 prints "N checks, M failed", and ends the ranks. Returns the exit
 * status, the same on all ranks unless the group itself is broken. Collective. */
static inline int check_end(qwen3_comm *world)
{
    int size = qwen3_comm_size(world);
    uint64_t own[2] = {check_count, check_failures}, total[2] = {0, 0};
    uint64_t *all = calloc((size_t)size, sizeof own);
    if (all)
        qwen3_comm_gather(world, own, sizeof own, all);
    for (int r = 0; all && r < size; r++) {
        total[0] += all[2 * r];
        total[1] += all[2 * r + 1];
    }
    free(all);
    double failed = own[1] > 0;
    qwen3_comm_max(world, &failed, 1);
    if (qwen3_comm_rank(world) == 0)
        printf("%" PRIu64 " checks, %" PRIu64 " failed\n", total[0], total[1]);
    qwen3_finalize();
    return failed > 0 || own[1] > 0 || own[0] == 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* splitmix64 (Steele, Lea, Flood 2014) */
static inline uint64_t check_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Uniform in [-1, 1). */
static inline float check_random_float(uint64_t *state)
{
    return (float)((int64_t)(check_random(state) >> 40) - (1 << 23)) / (float)(1 << 23);
}

#endif
