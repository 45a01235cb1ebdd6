/* test_team.c - how the threads of a rank divide work: everything once, whatever the sizes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/team.h"

#define MOST 300

typedef struct division {
    size_t n, grain;
    atomic_int taken[MOST];
    atomic_int pieces, misplaced;
} division;

static void take_pieces(team *t, void *arg)
{
    division *d = arg;
    for (int round = 0; round < 3; round++) {
        team_pieces p = team_pieces_begin(t, d->n, d->grain);
        for (size_t begin, end; team_pieces_next(t, &p, &begin, &end);) {
            atomic_fetch_add(&d->pieces, 1);
            if (begin >= end || end > d->n || begin % d->grain || (end % d->grain && end != d->n))
                atomic_fetch_add(&d->misplaced, 1);
            for (size_t i = begin; i < end && i < MOST; i++)
                atomic_fetch_add(&d->taken[i], 1);
        }
        team_barrier(t);
    }
}

static void test_pieces(void **state)
{
    (void)state;
    static const size_t grains[] = {1, 2, 16, 64};
    for (int threads = 1; threads <= 7; threads++)
        for (size_t n = 0; n <= MOST; n += n < 20 ? 1 : 37)
            for (size_t g = 0; g < sizeof grains / sizeof *grains; g++) {
                division d = {.n = n, .grain = grains[g]};
                team_run(threads, take_pieces, &d);
                assert_int_equal(d.misplaced, 0);
                for (size_t i = 0; i < n; i++)
                    assert_int_equal(d.taken[i], 3);
            }
}

/* A thread that is alone takes what it would take with others, in order. */
static void test_alone(void **state)
{
    (void)state;
    division d = {.n = 64, .grain = 1};
    team_run(1, take_pieces, &d);
    assert_in_range(d.pieces, 3 * 2, 3 * 5);
}

/* What each thread writes before a barrier all of them read after it. */
typedef struct meeting {
    size_t rounds;
    size_t written[70]; /* plain: a barrier alone orders them */
    atomic_size_t wrong;
} meeting;

static void meet(team *t, void *arg)
{
    meeting *m = arg;
    for (size_t round = 1; round <= m->rounds; round++) {
        m->written[t->tid] = round;
        team_barrier(t);
        for (int i = 0; i < t->size; i++)
            if (m->written[i] != round)
                atomic_fetch_add(&m->wrong, 1);
        team_barrier(t);
    }
}

/* Groups of one size and of two, more threads than CPUs. */
static void test_barrier(void **state)
{
    (void)state;
    static const int threads[] = {1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 64, 67};
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        meeting m = {.rounds = threads[i] <= 4 ? 2000 : 4000 / (size_t)(threads[i] * threads[i]) + 5};
        team_run(threads[i], meet, &m);
        assert_int_equal(m.wrong, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pieces), cmocka_unit_test(test_alone),
                                       cmocka_unit_test(test_barrier)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
