/* bench_comm.c - time of each collective by size, beside that of the MPI library's own.
 *
 *   mpirun -n R bench_comm [OPTION]... [COLLECTIVE]...     all collectives where none is named
 *     --max BYTES       longest size (default 32 MiB)
 *     --turns N         measurements of each, of which the median is taken (default 9)
 *     --messages        without shared memory, as if each rank had a node of its own
 *     --output json     an object a line instead of the table
 *
 * A size is the longest buffer of a rank: the vector of a sum or broadcast, all pieces of an allgather, gather or
 * alltoall together, the message of a ring hop. Both are measured in turns, each turn a loop of calls that takes about
 * 2 ms; its time is that of the slowest rank. Before each call the ranks write into every cache line of what they send,
 * or a library that reads it directly would find it in its own cache from the call before; the time of writing alone is
 * subtracted. Both medians and the best of all turns are printed: others who use the
 * machine disturb the former. Every size is first run once and its result checked.
 *
 * sendrecv is the floor: one MPI_Sendrecv between the first and the last rank, nothing else running.
 */
#include <getopt.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "comm/comm_backend.h"
#include "qwen3_mpi.h"

#define TURN_SECONDS 2e-3
#define MOST_CALLS 500
#define MOST_TURNS 99

typedef struct bench {
    comm *c;
    MPI_Comm mpi;
    int rank, size;
    size_t bytes; /* of this measurement */
    size_t piece; /* bytes of each rank's piece where the buffer has one for each */
    unsigned char *send, *recv;
    size_t *pieces; /* [size] all of them `piece` */
    int root;       /* of a broadcast, the next rank after each call */
} bench;

typedef struct collective {
    const char *name;
    void (*ours)(bench *b);
    void (*mpi)(bench *b);
    void (*fill)(bench *b);
    bool (*right)(const bench *b);
    void (*touch)(bench *b); /* writes into every line of what is sent; NULL: the call itself does */
} collective;

/* ---- Contents ---------------------------------------------------------------------------------- */

static unsigned char content(int number, size_t i)
{
    return (unsigned char)((size_t)number * 37 + i * 11 + (i >> 8));
}

static void fill(unsigned char *data, int number, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        data[i] = content(number, i);
}

static bool holds(const unsigned char *data, int number, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (data[i] != content(number, i))
            return false;
    return true;
}

static void fill_own(bench *b)
{
    fill(b->send, b->rank, b->bytes);
}

static void fill_pieces(bench *b)
{
    for (int r = 0; r < b->size; r++)
        fill(b->send + (size_t)r * b->piece, b->rank * b->size + r, b->piece);
}

static void fill_floats(bench *b)
{
    float *x = (float *)b->recv;
    for (size_t i = 0; i < b->bytes / sizeof *x; i++)
        x[i] = (float)(b->rank + (int)(i % 16));
}

static void fill_broadcast(bench *b)
{
    b->root = b->size - 1;
    if (b->rank == b->root)
        fill(b->recv, b->root, b->bytes);
}

static bool right_sums(const bench *b)
{
    const float *x = (const float *)b->recv;
    for (size_t i = 0; i < b->bytes / sizeof *x; i++)
        if (x[i] != (float)(b->size * (b->size - 1) / 2 + b->size * (int)(i % 16)))
            return false;
    return true;
}

static bool right_gathered(const bench *b)
{
    bool right = true;
    for (int r = 0; r < b->size; r++)
        right &= holds(b->recv + (size_t)r * b->piece, r, b->piece);
    return right;
}

static bool right_on_first(const bench *b)
{
    return b->rank != 0 || right_gathered(b);
}

static bool right_pieces(const bench *b)
{
    bool right = true;
    for (int r = 0; r < b->size; r++)
        right &= holds(b->recv + (size_t)r * b->piece, r * b->size + b->rank, b->piece);
    return right;
}

static bool right_broadcast(const bench *b)
{
    return holds(b->recv, b->size - 1, b->bytes);
}

static bool right_hop(const bench *b)
{
    return holds(b->recv, (b->rank + b->size - 1) % b->size, b->bytes);
}

static void touch(unsigned char *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += CACHE_LINE)
        *(volatile unsigned char *)(data + i) = data[i];
}

static void touch_bytes(bench *b)
{
    touch(b->send, b->bytes);
}

static void touch_piece(bench *b)
{
    touch(b->send, b->piece);
}

static void touch_root(bench *b)
{
    if (b->rank == b->root)
        touch(b->recv, b->bytes);
}

/* ---- Collectives ------------------------------------------------------------------------------- */

static void our_barrier(bench *b)
{
    qwen3_comm_barrier(b->c);
}

static void mpi_barrier(bench *b)
{
    MPI_Barrier(b->mpi);
}

static void our_allreduce(bench *b)
{
    comm_allreduce(b->c, (float *)b->recv, b->bytes / sizeof(float), QWEN3_COMM_REDUCE);
}

static void mpi_allreduce(bench *b)
{
    MPI_Allreduce(MPI_IN_PLACE, b->recv, (int)(b->bytes / sizeof(float)), MPI_FLOAT, MPI_SUM, b->mpi);
}

static void our_allgather(bench *b)
{
    comm_allgather(b->c, b->send, b->recv, b->pieces, QWEN3_COMM_QUERY);
}

static void mpi_allgather(bench *b)
{
    MPI_Allgather(b->send, (int)b->piece, MPI_BYTE, b->recv, (int)b->piece, MPI_BYTE, b->mpi);
}

static void our_alltoall(bench *b)
{
    comm_alltoall(b->c, b->send, b->pieces, b->recv, b->pieces, QWEN3_COMM_PARTIAL);
}

static void mpi_alltoall(bench *b)
{
    MPI_Alltoall(b->send, (int)b->piece, MPI_BYTE, b->recv, (int)b->piece, MPI_BYTE, b->mpi);
}

static void our_gather(bench *b)
{
    comm_gather(b->c, b->send, b->recv, b->pieces, QWEN3_COMM_LOGITS);
}

static void mpi_gather(bench *b)
{
    MPI_Gather(b->send, (int)b->piece, MPI_BYTE, b->recv, (int)b->piece, MPI_BYTE, 0, b->mpi);
}

static void our_broadcast(bench *b)
{
    comm_broadcast(b->c, b->recv, b->bytes, b->root, QWEN3_COMM_CONTROL);
    b->root = (b->root + 1) % b->size;
}

static void mpi_broadcast(bench *b)
{
    MPI_Bcast(b->recv, (int)b->bytes, MPI_BYTE, b->root, b->mpi);
    b->root = (b->root + 1) % b->size;
}

static void our_ring(bench *b)
{
    comm_ring_start(b->c, 0, b->send, b->bytes, b->recv, b->bytes, QWEN3_COMM_KV);
    comm_wait(b->c, 0);
}

static void mpi_ring(bench *b)
{
    MPI_Sendrecv(b->send, (int)b->bytes, MPI_BYTE, (b->rank + 1) % b->size, 0, b->recv, (int)b->bytes, MPI_BYTE,
                 (b->rank + b->size - 1) % b->size, 0, b->mpi, MPI_STATUS_IGNORE);
}

static void mpi_sendrecv(bench *b)
{
    if (b->rank == 0 || b->rank == b->size - 1)
        MPI_Sendrecv(b->send, (int)b->bytes, MPI_BYTE, b->size - 1 - b->rank, 0, b->recv, (int)b->bytes, MPI_BYTE,
                     b->size - 1 - b->rank, 0, b->mpi, MPI_STATUS_IGNORE);
}

static bool right_exchange(const bench *b)
{
    return (b->rank != 0 && b->rank != b->size - 1) || holds(b->recv, b->size - 1 - b->rank, b->bytes);
}

static const collective collectives[] = {
    {"sendrecv", NULL, mpi_sendrecv, fill_own, right_exchange, touch_bytes},
    {"barrier", our_barrier, mpi_barrier, NULL, NULL, NULL},
    {"allreduce", our_allreduce, mpi_allreduce, fill_floats, right_sums, NULL},
    {"allgather", our_allgather, mpi_allgather, fill_own, right_gathered, touch_piece},
    {"alltoall", our_alltoall, mpi_alltoall, fill_pieces, right_pieces, touch_bytes},
    {"gather", our_gather, mpi_gather, fill_own, right_on_first, touch_piece},
    {"broadcast", our_broadcast, mpi_broadcast, fill_broadcast, right_broadcast, touch_root},
    {"ring", our_ring, mpi_ring, fill_own, right_hop, touch_bytes},
};

/* ---- Measuring --------------------------------------------------------------------------------- */

/* Runs it once and checks what it gives. Returns whether that is right on all ranks. */
static bool verify(bench *b, const collective *what, void (*run)(bench *b))
{
    int right = 1;
    memset(b->recv, 0, b->bytes);
    if (what->fill)
        what->fill(b);
    run(b);
    if (what->right)
        right = what->right(b);
    MPI_Allreduce(MPI_IN_PLACE, &right, 1, MPI_INT, MPI_MIN, b->mpi);
    return right;
}

/* Seconds of writing into what is sent, on this rank: the least of some. */
static double time_touching(bench *b, const collective *what)
{
    double least = what->touch ? 1 : 0;
    for (int i = 0; what->touch && i < 5; i++) {
        const double start = seconds_now();
        what->touch(b);
        const double seconds = seconds_now() - start;
        least = seconds < least ? seconds : least;
    }
    return least;
}

/* Seconds of a call, on this rank. */
static double time_calls(bench *b, const collective *what, void (*run)(bench *b), int calls)
{
    const double touching = time_touching(b, what);
    MPI_Barrier(b->mpi);
    const double start = seconds_now();
    for (int i = 0; i < calls; i++) {
        if (what->touch)
            what->touch(b);
        run(b);
    }
    return (seconds_now() - start) / calls - touching;
}

static int calls_of_turn(bench *b, const collective *what, void (*run)(bench *b))
{
    double seconds = time_calls(b, what, run, 2);
    MPI_Allreduce(MPI_IN_PLACE, &seconds, 1, MPI_DOUBLE, MPI_MAX, b->mpi);
    const double calls = TURN_SECONDS / seconds;
    return calls >= 1 && calls <= MOST_CALLS ? (int)calls : calls < 1 ? 1 : MOST_CALLS;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct timing {
    double median, best; /* seconds of a call on the slowest rank */
} timing;

static timing of_slowest(bench *b, double *seconds, int turns)
{
    MPI_Allreduce(MPI_IN_PLACE, seconds, turns, MPI_DOUBLE, MPI_MAX, b->mpi);
    qsort(seconds, (size_t)turns, sizeof *seconds, compare);
    return (timing){seconds[turns / 2], seconds[0]};
}

static bool measure(bench *b, const collective *what, int turns, timing *ours, timing *mpi)
{
    double seconds[2][MOST_TURNS];
    if ((what->ours && !verify(b, what, what->ours)) || !verify(b, what, what->mpi))
        return false;
    memset(b->recv, 0, b->bytes); /* sums must not grow without end */
    const int our_calls = what->ours ? calls_of_turn(b, what, what->ours) : 0,
              mpi_calls = calls_of_turn(b, what, what->mpi);
    for (int turn = 0; turn < turns; turn++) {
        seconds[0][turn] = what->ours ? time_calls(b, what, what->ours, our_calls) : 0;
        seconds[1][turn] = time_calls(b, what, what->mpi, mpi_calls);
    }
    *ours = of_slowest(b, seconds[0], turns);
    *mpi = of_slowest(b, seconds[1], turns);
    return true;
}

static void print_row(const collective *what, size_t bytes, timing ours, timing mpi, bool json)
{
    if (json)
        printf("{\"collective\": \"%s\", \"bytes\": %zu, \"seconds\": %.9f, \"mpi_seconds\": %.9f, "
               "\"best_seconds\": %.9f, \"mpi_best_seconds\": %.9f}\n",
               what->name, bytes, ours.median, mpi.median, ours.best, mpi.best);
    else if (what->ours)
        printf("%-10s %9zu %11.2f %11.2f %6.2f %11.2f %11.2f %6.2f %9.3f\n", what->name, bytes, ours.median * 1e6,
               mpi.median * 1e6, mpi.median / ours.median, ours.best * 1e6, mpi.best * 1e6, mpi.best / ours.best,
               (double)bytes / ours.best * 1e-9);
    else
        printf("%-10s %9zu %11s %11.2f %6s %11s %11.2f\n", what->name, bytes, "", mpi.median * 1e6, "", "",
               mpi.best * 1e6);
    fflush(stdout);
}

/* Returns whether every result was right. */
static bool run_all(bench *b, char *const *names, int n_names, size_t longest, int turns, bool json)
{
    static const size_t sizes[] = {4,        64,        1 << 10, 4 << 10, 16 << 10, 32 << 10,
                                   64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 32 << 20};
    for (size_t i = 0; i < sizeof collectives / sizeof *collectives; i++) {
        const collective *what = &collectives[i];
        bool named = n_names == 0;
        for (int n = 0; n < n_names; n++)
            named |= strcmp(names[n], what->name) == 0;
        for (size_t s = 0; named && s < sizeof sizes / sizeof *sizes && sizes[s] <= longest; s++) {
            timing ours, mpi;
            b->bytes = what->fill ? sizes[s] : 0;
            b->piece = b->bytes / (size_t)b->size > 4 ? b->bytes / (size_t)b->size : b->bytes ? 4 : 0;
            for (int r = 0; r < b->size; r++)
                b->pieces[r] = b->piece;
            if (!measure(b, what, turns, &ours, &mpi)) {
                if (b->rank == 0)
                    fprintf(stderr, "bench_comm: %s of %zu bytes gave a wrong result\n", what->name, sizes[s]);
                return false;
            }
            if (b->rank == 0)
                print_row(what, b->bytes, ours, mpi, json);
            if (!what->fill)
                break;
        }
    }
    return true;
}

static const char usage[] =
    "Usage: mpirun -n R bench_comm [OPTION]... [COLLECTIVE]...\n\n"
    "Time of each collective by size, beside that of the MPI library's own. All collectives where none is named.\n\n"
    "  --max BYTES     longest size (default 33554432)\n"
    "  --turns N       measurements of each, of which the median is taken (default 9)\n"
    "  --messages      without shared memory, as if each rank had a node of its own\n"
    "  --output json   an object a line instead of the table\n"
    "  --help          this text\n";

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"max", required_argument, NULL, 'm'}, {"turns", required_argument, NULL, 't'},
        {"messages", no_argument, NULL, 's'},  {"output", required_argument, NULL, 'o'},
        {"help", no_argument, NULL, 'h'},      {NULL, 0, NULL, 0}};
    size_t longest = (size_t)32 << 20;
    int turns = 9;
    bool messages = false, json = false, usable = true, help = false;
    qwen3_error err = {0};
    qwen3_rank_info info = {0};
    bench b = {0};
    if (qwen3_init(&argc, &argv, &b.c, &err) != QWEN3_OK) {
        fprintf(stderr, "bench_comm: %s\n", err.message);
        return EXIT_FAILURE;
    }
    b.rank = comm_rank(b.c);
    b.size = comm_size(b.c);
    opterr = b.rank == 0;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'm')
            longest = strtoull(optarg, NULL, 0);
        else if (option == 't')
            turns = atoi(optarg);
        else if (option == 's')
            messages = true;
        else if (option == 'o')
            json = strcmp(optarg, "json") == 0;
        else if (option == 'h')
            help = true;
        else
            usable = false;
    }
    usable &= turns >= 1 && turns <= MOST_TURNS;
    if (help || !usable) {
        if (b.rank == 0)
            fputs(usage, usable ? stdout : stderr);
        qwen3_finalize();
        return usable ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    b.mpi = MPI_COMM_WORLD;
    void *buffers[2] = {NULL, NULL};
    const size_t room = longest + 4 * (size_t)b.size;
    for (int i = 0; i < 2; i++)
        usable &= memory_alloc(&buffers[i], room, "buffer", &err) == QWEN3_OK;
    b.send = buffers[0];
    b.recv = buffers[1];
    b.pieces = malloc((size_t)b.size * sizeof *b.pieces);
    if (!usable || !b.pieces)
        MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
    if (messages)
        comm_use_messages(b.c);
    bool right = qwen3_comm_topology(b.c, &info, &err) == QWEN3_OK;
    if (b.rank == 0 && json)
        printf("{\"ranks\": %d, \"nodes\": %d, \"messages\": %s}\n", b.size, info.nodes, messages ? "true" : "false");
    else if (b.rank == 0)
        printf("%d ranks, %d nodes%s; microseconds, median and best of %d\n%-10s %9s %11s %11s %6s %11s %11s %6s %9s\n",
               b.size, info.nodes, messages ? ", by messages" : "", turns, "collective", "bytes", "ours", "MPI",
               "ratio", "ours, best", "MPI, best", "ratio", "GB/s");
    right = right && run_all(&b, argv + optind, argc - optind, longest, turns, json);
    memory_free(b.send, room);
    memory_free(b.recv, room);
    free(b.pieces);
    qwen3_finalize();
    return right ? EXIT_SUCCESS : EXIT_FAILURE;
}
