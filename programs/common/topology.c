/* topology.c - see topology.h. */
#include "common/topology.h"

#include <stdlib.h>

#include "common/program.h"

qwen3_status topology_collect(qwen3_comm *world, const void *own, size_t size, void **all, qwen3_error *err)
{
    void *memory = NULL;
    if (qwen3_comm_rank(world) == 0)
        memory = allocate((size_t)qwen3_comm_size(world), size, "table of ranks", err);
    qwen3_status status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK) {
        qwen3_comm_gather(world, own, size, memory);
    } else {
        free(memory);
        memory = NULL;
    }
    *all = memory;
    return status;
}

static void print_more(int ranks, int max_ranks, FILE *out)
{
    if (ranks > max_ranks)
        fprintf(out, "           ... and %d more (--verbose)\n", ranks - max_ranks);
}

static void print_rank(int rank, const qwen3_rank_info *info, FILE *out)
{
    fprintf(out, "rank %-5d %s (node %d), CPUs %s: %d of %d, %d core%s, %d NUMA node%s", rank, info->host, info->node,
            info->binding, info->cpus_allowed, info->cpus_online, info->cores_allowed,
            info->cores_allowed == 1 ? "" : "s", info->numa_nodes, info->numa_nodes == 1 ? "" : "s");
    if (info->cpu_quota > 0)
        fprintf(out, ", CPU quota %.2f", info->cpu_quota);
    fprintf(out, "\n");
}

qwen3_status topology_print(qwen3_comm *world, int max_ranks, FILE *out, qwen3_error *err)
{
    qwen3_rank_info own, *all;
    qwen3_status status = qwen3_comm_topology(world, &own, err);
    if (status != QWEN3_OK)
        return status;
    void *memory = NULL;
    status = topology_collect(world, &own, sizeof own, &memory, err);
    all = memory;
    if (status == QWEN3_OK && all) {
        int ranks = qwen3_comm_size(world);
        fprintf(out, "ranks      %d on %d node%s\n", ranks, own.nodes, own.nodes == 1 ? "" : "s");
        fprintf(out, "processor  %s, %s\n", own.cpu, qwen3_isa_name(qwen3_isa_best()));
        for (int r = 0; r < ranks && r < max_ranks; r++)
            print_rank(r, &all[r], out);
        print_more(ranks, max_ranks, out);
        fflush(out);
    }
    free(memory);
    return status;
}

void scenario_place(qwen3_scenario *s, int ranks, int nodes)
{
    s->nodes = ranks % nodes ? 1 : nodes;
    s->ranks_per_node = ranks / s->nodes;
}

const char *plan_dtype_name(const qwen3_plan *plan)
{
    return plan->stored_types ? "stored" : qwen3_dtype_name(plan->dtype);
}

void plan_warn(const qwen3_comm *world, const qwen3_model *model)
{
    const qwen3_plan *plan = qwen3_model_plan(model);
    if (qwen3_comm_rank(world) == 0 && plan->warning[0])
        fprintf(stderr, "qwen3: warning: %s\n", plan->warning);
}

qwen3_status plan_print(qwen3_comm *world, const qwen3_model *model, int max_ranks, FILE *out, qwen3_error *err)
{
    const qwen3_plan *own = qwen3_model_plan(model);
    void *memory = NULL;
    qwen3_status status = topology_collect(world, own, sizeof *own, &memory, err);
    const qwen3_plan *all = memory;
    if (status == QWEN3_OK && all) {
        int ranks = qwen3_comm_size(world);
        fprintf(out, "plan       %s, grid %dx%d, %s, %s kernels, %d thread%s per rank, weights %s (%s)\n",
                qwen3_strategy_name(own->strategy), own->grid_sequence, own->grid_heads, plan_dtype_name(own),
                qwen3_isa_name(own->isa), own->threads, own->threads == 1 ? "" : "s",
                own->weights_shared ? "shared by the node" : "private", own->reason);
        plan_warn(world, model);
        for (int r = 0; r < ranks && r < max_ranks; r++)
            fprintf(
                out,
                "rank %-5d group %d of %d in sequence, %d of %d in heads: %lld query heads from %lld, %lld KV heads "
                "from %lld, %d thread%s, weights %.1f MiB\n",
                r, all[r].sequence_index, all[r].grid_sequence, all[r].head_index, all[r].grid_heads,
                (long long)all[r].num_heads, (long long)all[r].first_head, (long long)all[r].num_kv_heads,
                (long long)all[r].first_kv_head, all[r].threads, all[r].threads == 1 ? "" : "s",
                (double)all[r].owned_bytes / 1048576.0);
        print_more(ranks, max_ranks, out);
        fflush(out);
    }
    free(memory);
    return status;
}

qwen3_status placement_print(qwen3_comm *world, const qwen3_model *model, FILE *out, qwen3_error *err)
{
    struct placement {
        qwen3_rank_info info;
        char weights[128];
    } own;
    void *memory = NULL;
    qwen3_status status = qwen3_comm_topology(world, &own.info, err);
    if (status != QWEN3_OK)
        return status;
    qwen3_model_placement(model, own.weights, sizeof own.weights);
    status = topology_collect(world, &own, sizeof own, &memory, err);
    const struct placement *all = memory;
    if (status == QWEN3_OK && all) {
        for (int r = 0; r < qwen3_comm_size(world); r++)
            fprintf(out, "rank %-5d NUMA nodes: CPUs %s, weights %s; threads %s\n", r, all[r].info.numa, all[r].weights,
                    all[r].info.threads_bound ? "bound" : "not bound (OMP_PROC_BIND)");
        fflush(out);
    }
    free(memory);
    return status;
}
