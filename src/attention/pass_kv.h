/* pass_kv.h - keys travel to the queries: each rank's K and V go once around the ring of the sequence
 * group, and every rank's queries attend to them as they pass (Liu et al. 2023, ring attention). */
#ifndef QWEN3_ATTENTION_PASS_KV_H
#define QWEN3_ATTENTION_PASS_KV_H

#include "attention/kv_shard.h"
#include "comm/comm.h"

typedef struct pass_kv {
    comm *group;
    const attention_shape *shape;
    const attention_algorithm *algorithm;
    const attention_workspace *workspace;
    /* Shards hold, job after job, the blocks of that job's sequence. Number of blocks by rank and job. */
    const size_t *blocks; /* [ranks][n_jobs] */
    size_t n_jobs;
    void *buffers[2]; /* each of kv_shard_bytes(largest shard); the first holds this rank's shard */
    kv_block *views;  /* room for kv_heads * (blocks of the largest shard) */
} pass_kv;

/* Attends this rank's queries to the keys of all ranks: first to those that the jobs already name (the own
 * ones), then to those that arrive. jobs [n_jobs]; their partials are merged into, their blocks are
 * replaced. Runs on all threads of the team, which see the same `jobs`; ends in a barrier. */
void pass_kv_run(team *t, const pass_kv *p, attention_job *jobs);

#endif
