/* roofline.c - the limits of the machine: reads of memory and multiply-adds (Williams et al. 2009).
 *
 * All ranks measure at once, because that is how they compute. In a pass each rank does its part between
 * barriers; it takes the time of the slowest. The rate is the work of all passes over their time: what is held
 * against it also runs for a while, through every pause that the machine makes. The best pass would be a limit
 * that a shared machine reaches for milliseconds and never for a second.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/team.h"
#include "kernels/kernels.h"

#define NODE_BYTES ((size_t)1 << 30) /* larger than caches */
#define READ_GRAIN 1024              /* that read_memory wants */
#define READ_PASSES 8
#define FLOP_PASSES 10
#define FLOP_SECONDS 0.015 /* about, per pass */

typedef struct measurement {
    qwen3_comm *comm;
    int threads;
    const kernels *k, *reader; /* the level, and the one that reads in this pass */
    qwen3_dtype type;
    unsigned char *buffer;
    size_t bytes;
    size_t repeats;
    double work;   /* of this rank in the last pass; set by its thread 0 */
    double *slots; /* [1 + ranks] seconds of the slowest, then the work of each rank */
} measurement;

/* Each thread fills what it reads later, so that the pages are near it. */
static void fill_pass(team *t, void *arg)
{
    measurement *m = arg;
    size_t begin, end;
    team_part(t, m->bytes, READ_GRAIN, &begin, &end);
    memset(m->buffer + begin, 1 + t->tid % 100, end - begin);
}

static void read_pass(team *t, void *arg)
{
    measurement *m = arg;
    size_t begin, end;
    team_part(t, m->bytes, READ_GRAIN, &begin, &end);
    volatile uint64_t seen = m->reader->read_memory(m->buffer + begin, end - begin);
    (void)seen;
    if (t->tid == 0)
        m->work = (double)m->bytes;
}

static void flop_pass(team *t, void *arg)
{
    measurement *m = arg;
    const double operations = (double)m->k->multiply_add[m->type](m->repeats);
    if (t->tid == 0)
        m->work = operations * t->size;
}

/* The next level below, above plain C, that reads in another way; k where there is none. */
static const kernels *narrower(const kernels *k)
{
    for (const kernels *level = k->below; level && level->below; level = level->below)
        if (level->read_memory != k->read_memory)
            return level;
    return k;
}

/* Work per second of all ranks together. Passes take turns with the level below, and the faster of the two counts: wide
 * loads read a tenth faster on Zen 5, narrow ones on Zen 4. Collective. */
static double mean_rate(measurement *m, int passes, void (*pass)(team *t, void *arg))
{
    const int ranks = qwen3_comm_size(m->comm);
    double work[2] = {0}, seconds[2] = {0};
    for (int i = 0; i < passes; i++) {
        memset(m->slots, 0, ((size_t)ranks + 1) * sizeof *m->slots);
        m->reader = i % 2 ? narrower(m->k) : m->k;
        qwen3_comm_barrier(m->comm);
        const double start = seconds_now();
        team_run(m->threads, pass, m);
        m->slots[0] = seconds_now() - start;
        m->slots[1 + qwen3_comm_rank(m->comm)] = m->work;
        qwen3_comm_max(m->comm, m->slots, (size_t)ranks + 1);
        seconds[i % 2] += m->slots[0];
        for (int r = 0; r < ranks; r++)
            work[i % 2] += m->slots[1 + r];
    }
    return fmax(work[0] / seconds[0], work[1] / seconds[1]);
}

static double flop_rate(measurement *m, qwen3_dtype type)
{
    m->type = type;
    m->k->multiply_add[type](10);
    const double start = seconds_now();
    m->k->multiply_add[type](100);
    const double elapsed = fmax(seconds_now() - start, 1e-6);
    m->repeats = 1 + (size_t)(100 * FLOP_SECONDS / elapsed);
    return mean_rate(m, FLOP_PASSES, flop_pass);
}

/* Collective: every rank gets here whether or not it could set up so far. */
static qwen3_status set_up(measurement *m, int threads, qwen3_isa isa, qwen3_error *err)
{
    const int ranks = qwen3_comm_size(m->comm);
    if (!team_check_threads(threads, err))
        kernels_choose(isa, &m->k, err);
    if (qwen3_comm_agree(m->comm, err))
        return err->status;
    qwen3_rank_info info;
    if (qwen3_comm_topology(m->comm, &info, err))
        return err->status;
    m->threads = threads ? threads : info.default_threads;
    const size_t ranks_per_node = (size_t)((ranks + info.nodes - 1) / info.nodes);
    const size_t node_bytes = memory_total() / 4 < NODE_BYTES ? memory_total() / 4 : NODE_BYTES;
    m->bytes = node_bytes / ranks_per_node / READ_GRAIN * READ_GRAIN;
    m->slots = calloc((size_t)ranks + 1, sizeof *m->slots);
    void *buffer = NULL;
    if (!m->slots)
        fail(err, QWEN3_ERR_MEMORY, "roofline: out of memory for %d ranks", ranks);
    else if (!team_check_stacks(m->threads, err))
        memory_alloc(&buffer, m->bytes, "buffer to measure the read bandwidth", err);
    m->buffer = buffer;
    return qwen3_comm_agree(m->comm, err);
}

qwen3_status qwen3_roofline_measure(qwen3_comm *c, int threads, qwen3_isa isa, qwen3_roofline *out, qwen3_error *err)
{
    qwen3_error local = {0}; /* the ranks agree on one even where the caller wants none */
    measurement m = {.comm = c};
    missing(out, "out", &local);
    const qwen3_status status = set_up(&m, threads, isa, &local);
    if (status == QWEN3_OK) {
        team_run(m.threads, fill_pass, &m);
        out->read_bytes_per_second = mean_rate(&m, READ_PASSES, read_pass);
        out->f32_flops = flop_rate(&m, QWEN3_DTYPE_F32);
        out->bf16_flops = flop_rate(&m, QWEN3_DTYPE_BF16);
    } else if (err) {
        *err = local;
    }
    memory_free(m.buffer, m.bytes);
    free(m.slots);
    return status;
}
