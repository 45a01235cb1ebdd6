/* movement.h - how the queries, keys and partial results of several ranks come together.
 *
 * A movement brings queries and keys together on some rank, has the algorithm attend them there, and leaves the
 * un-normalised result on the rank that needs it. It never looks into a tile. The engine's attention block and the
 * public operators describe what there is to attend as an attention_problem, let movement_choose compare the
 * movements, and run the one it returns through an exchange:
 *
 *   exchange_begin    chooses, adds buffers to a memory_plan             once per problem
 *   exchange_plan     work for the threads, from the keys' positions      per layer, one thread
 *   exchange_start    starts what can go on while the caller computes     per layer, all threads, own keys stored
 *   exchange_clear    no keys seen yet                                    per layer, all threads
 *   exchange_run      messages and attention                              per layer, all threads, own queries written
 *
 * A new movement is one file with a `movement` and its name in MOVEMENTS.
 */
#ifndef QWEN3_ATTENTION_MOVEMENT_H
#define QWEN3_ATTENTION_MOVEMENT_H

#include "attention/kv_shard.h"
#include "attention/movement_prices.h"
#include "base/memory_plan.h"
#include "base/status.h"
#include "comm/comm.h"

typedef struct exchange exchange;

/* Keys that an exchange of the same ranks brings before this one, in every layer: they need not travel again. */
typedef struct brought_keys {
    exchange *by;         /* NULL: none */
    const size_t *blocks; /* [ranks][n_jobs] how many of the first KV blocks of each rank, which are full */
    const int32_t *jobs;  /* [n_jobs] which job of `by`; -1: none, and no blocks */
} brought_keys;

/* What is attended. All ranks of `comm` describe the same problem. A job is one sequence; every rank has the same jobs,
 * perhaps without rows or keys. */
typedef struct attention_problem {
    comm *comm; /* the ranks among which the keys are split */
    const attention_shape *shape;
    const attention_algorithm *algorithm;
    int threads;
    size_t n_jobs;
    /* false: each rank has its own queries and needs their results.
     * true: every rank has all queries, and needs the results of some heads. */
    bool replicated;
    bool queries_stay;        /* queries must not travel (a mask goes with them) */
    bool brings_shard;        /* exchange.shard holds this rank's keys, which saves movements a copy */
    const size_t *rows;       /* [ranks][n_jobs] queries of each rank; replicated: [1][n_jobs] */
    const int32_t *positions; /* of these rows, in this order */
    const size_t *keys;       /* [ranks][n_jobs] of each rank: blocks of KV_BLOCK, and what is left */
    brought_keys brought;
    bool followed;            /* another exchange has this one in brought.by */
    const size_t *head_first; /* replicated: [ranks + 1] rank r needs query heads [head_first[r], head_first[r + 1]) */
    const movement_prices *prices; /* the same on all ranks; NULL = those of movements.c */
} attention_problem;

/* What a movement sends for one layer. */
typedef struct movement_cost {
    double bytes;  /* payload, summed over the ranks */
    int messages;  /* that follow each other */
    bool overlaps; /* with attention */
} movement_cost;

typedef struct movement {
    const char *name;
    bool sends_keys; /* they must be packed then */
    bool (*applies)(const attention_problem *p);
    movement_cost (*cost)(const attention_problem *p);
    /* Lists the jobs with the rows and the most blocks that they will have, and adds buffers to the plan. */
    void (*layout)(exchange *x, memory_plan *m);
    void (*plan)(const team *t, exchange *x);
    void (*start)(team *t, exchange *x); /* NULL: nothing can go on before the queries are there */
    /* Ends in a barrier. x->result is set. */
    void (*run)(team *t, exchange *x);
} movement;

/* The table of movements: for each NAME a file NAME.c with `const movement movement_NAME`. */
#define MOVEMENTS(X) X(local) X(split_heads) X(gather_kv) X(pass_kv) X(pass_q)
#define MOVEMENT_DECLARE(name) extern const movement movement_##name;
MOVEMENTS(MOVEMENT_DECLARE)

/* The movement with the least predicted cost. Needs only the problem; the same on all ranks. */
const movement *movement_choose(const attention_problem *p);
/* That cost: bytes of a rank and messages as bytes. */
double movement_price(const attention_problem *p, const movement *m);

/* When the buffers of an exchange are alive, in phases of the memory plan. */
typedef struct exchange_phases {
    int plan;        /* exchange_plan */
    int queries;     /* exchange_start; the caller writes queries */
    int attend;      /* exchange_run */
    int collect;     /* the caller reads the result */
    int first, last; /* of all layers: where problem.followed, keys are alive as long */
} exchange_phases;

#define EXCHANGE_BUFFERS 5

/* One problem on its way through a movement. Zero-initialise; free with exchange_close. */
struct exchange {
    const movement *movement;
    const attention_problem *problem;
    exchange_phases phases;
    int slot; /* of comm, for what is started; set by the caller */
    int turn; /* 0 and 1 in alternate layers: which of two buffers is used where problem.followed */
    /* Written by the caller. */
    void *q;         /* own queries, job after job: [kv_heads, rows, heads_per_kv, q_stride] activation, scaled */
    kv_block *views; /* own keys, job after job: [kv_heads][blocks]; written before exchange_plan */
    void *shard;     /* where problem.brings_shard: own keys, in memory of exchange_shard_bytes */
    const float *const *masks; /* NULL, or of each own job (attention_job.mask) */
    size_t mask_stride_head, mask_stride_row;
    /* Read by the caller after exchange_run. Own jobs one after the other [kv_heads, rows, heads_per_kv], or,
     * replicated, [rows of all jobs, own heads]. */
    partial_run result;
    /* The movement's. */
    attention_job *jobs; /* [n_jobs] */
    size_t n_jobs;
    float *partials;                            /* runs of the jobs, one run for each rank whose rows they are */
    void *buffers[EXCHANGE_BUFFERS];            /* each movement has an enum for its own */
    size_t *send_bytes, *receive_bytes, *pairs; /* [ranks] */
    attention_workspace workspace;
    memory_plan table_plan; /* jobs, send_bytes, receive_bytes, pairs */
    memory_region tables;
};

/* Chooses a movement (`with` NULL), or takes `with`, which must apply, and adds its buffers to the plan. The problem
 * must last as long as the exchange is used. Local. */
qwen3_status exchange_begin(exchange *x, const attention_problem *p, const movement *with, exchange_phases phases,
                            memory_plan *m, qwen3_error *err);
void exchange_close(exchange *x);
/* To be called by one thread when x->views are written; a barrier must follow before exchange_run. */
static inline void exchange_plan(const team *t, exchange *x)
{
    x->turn = 1 - x->turn;
    x->movement->plan(t, x);
}
/* Nothing attended yet: all threads, after exchange_plan and a barrier; a barrier must follow. */
void exchange_clear(const team *t, const exchange *x);
/* Collective over the problem's comm; all threads, after a barrier. Returns whether something is under way now. */
static inline bool exchange_start(team *t, exchange *x)
{
    if (x->movement->start)
        x->movement->start(t, x);
    return x->movement->start && comm_overlaps(x->problem->comm);
}
/* Collective over the problem's comm; all threads, after exchange_start; ends in a barrier. */
static inline void exchange_run(team *t, exchange *x)
{
    x->movement->run(t, x);
}

/* Bytes of the largest shard that a rank of the problem has. */
size_t exchange_shard_bytes(const attention_problem *p);

/* ---- For movements (exchange.c) ---------------------------------------------------------------- */

/* Rows of all jobs of rank r (replicated: of all ranks, r = 0). */
size_t problem_rows(const attention_problem *p, int r);
/* KV blocks of job j of rank r, and of all its jobs. */
static inline size_t problem_job_blocks(const attention_problem *p, int r, size_t j)
{
    return kv_blocks_for(p->keys[(size_t)r * p->n_jobs + j]);
}
size_t problem_blocks(const attention_problem *p, int r);
static inline size_t problem_heads(const attention_problem *p)
{
    return p->shape->kv_heads * p->shape->heads_per_kv;
}
/* Bytes of the queries of one row, all heads. */
size_t problem_query_bytes(const attention_problem *p);

/* Adds a buffer of `bytes` for phases [first, last] at x->buffers[index]. */
static inline void exchange_buffer(exchange *x, memory_plan *m, int index, size_t bytes, int first, int last)
{
    memory_plan_add(m, &x->buffers[index], bytes, first, last);
}
/* The jobs of ranks [first, end): their rows, and own blocks as the most. */
void exchange_size_jobs(exchange *x, int first, int end);
/* Their queries at q, partials at x->partials, and this rank's keys. */
void exchange_bind_jobs(exchange *x, int first, int end, const void *q);
/* The two for movements whose result is that of own jobs: with own blocks as the most, and x->result as the partials.
 */
void exchange_add_own_rows(exchange *x, memory_plan *m);
void exchange_bind_own_rows(exchange *x);
/* A `plan` for those whose own keys are attended first. */
void exchange_plan_own_rows(const team *t, exchange *x);
/* Hands the jobs to attention_plan. */
void exchange_plan_jobs(const team *t, exchange *x);
/* KV blocks of job j of rank r that travel. */
static inline size_t problem_blocks_sent(const attention_problem *p, int r, size_t j)
{
    return problem_job_blocks(p, r, j) - (p->brought.by ? p->brought.blocks[(size_t)r * p->n_jobs + j] : 0);
}
/* Own keys, but for those that were brought before, as a shard in memory at `buffer`, unless the problem brings one:
 * all threads, after a barrier; ends in one. */
void exchange_make_shard(team *t, const exchange *x, void *buffer);
/* Bytes of the shard of rank r. */
size_t exchange_bytes_of_shard(const attention_problem *p, int r);
/* Of all shards, each to all other ranks. */
double exchange_shard_traffic(const attention_problem *p);
/* Points own jobs at the blocks [job after job] of a shard of rank `owner`. */
void exchange_view_shard(const exchange *x, const void *shard, int owner, kv_block *views);
/* Sends runs of x->pairs[r] partials to each rank r and merges the runs that arrive in rank order. The result is the
 * first run of `received` [ranks][own pairs]. Ends in a barrier. */
void exchange_return(team *t, exchange *x, const float *send, float *received);

#endif
