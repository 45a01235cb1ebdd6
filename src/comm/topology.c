/* topology.c - hosts, CPUs and their sharing among the ranks, by hwloc. */
#include "comm/topology.h"

#include <hwloc.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"
#include "comm/cpu_quota.h"

/* The machine as this process sees it. Disallowed CPUs are included: all ranks of a node then number the cores in the
 * same way, in whatever cgroups they are. */
typedef struct machine {
    hwloc_topology_t topology;
    hwloc_bitmap_t allowed; /* logical CPUs this process may run on */
} machine;

static void machine_close(machine *m)
{
    if (m->allowed)
        hwloc_bitmap_free(m->allowed);
    if (m->topology)
        hwloc_topology_destroy(m->topology);
}

/* If OpenMP binds threads, this thread is already bound to one place, but the process may run on all. */
static void add_places(hwloc_bitmap_t cpus)
{
    for (int place = 0; omp_get_proc_bind() != omp_proc_bind_false && place < omp_get_num_places(); place++) {
        int n = omp_get_place_num_procs(place), *ids = calloc((size_t)n + 1, sizeof *ids);
        if (ids)
            omp_get_place_proc_ids(place, ids);
        for (int i = 0; ids && i < n; i++)
            hwloc_bitmap_set(cpus, (unsigned)ids[i]);
        free(ids);
    }
}

static bool machine_open(machine *m)
{
    *m = (machine){0};
    if (hwloc_topology_init(&m->topology) != 0) {
        m->topology = NULL;
        return false;
    }
    hwloc_topology_set_flags(m->topology, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
    if (hwloc_topology_load(m->topology) == 0 && (m->allowed = hwloc_bitmap_alloc())) {
        hwloc_const_bitmap_t permitted = hwloc_topology_get_allowed_cpuset(m->topology);
        if (hwloc_get_cpubind(m->topology, m->allowed, HWLOC_CPUBIND_PROCESS) != 0)
            hwloc_bitmap_copy(m->allowed, permitted);
        add_places(m->allowed);
        hwloc_bitmap_and(m->allowed, m->allowed, permitted);
        return true;
    }
    machine_close(m);
    return false;
}

static int core_depth(const machine *m)
{
    return hwloc_get_type_or_below_depth(m->topology, HWLOC_OBJ_CORE);
}

static unsigned core_count(const machine *m)
{
    return hwloc_get_nbobjs_by_depth(m->topology, core_depth(m));
}

static void numa_nodes(const machine *m, char *text, size_t size)
{
    hwloc_nodeset_t nodes = hwloc_bitmap_alloc();
    if (nodes && hwloc_cpuset_to_nodeset(m->topology, m->allowed, nodes) == 0)
        hwloc_bitmap_list_snprintf(text, size, nodes);
    else
        snprintf(text, size, "unknown");
    hwloc_bitmap_free(nodes);
}

static void cpu_model(const machine *m, char *text, size_t size)
{
    hwloc_obj_t package = hwloc_get_obj_by_type(m->topology, HWLOC_OBJ_PACKAGE, 0);
    const char *model = package ? hwloc_obj_get_info_by_name(package, "CPUModel") : NULL;
    if (!model)
        model = hwloc_obj_get_info_by_name(hwloc_get_root_obj(m->topology), "CPUModel");
    snprintf(text, size, "%s", model ? model : "unknown");
    for (size_t n = strlen(text); n > 0 && text[n - 1] == ' '; n--) /* some processors fill their name with spaces */
        text[n - 1] = '\0';
}

/* Sets of allowed CPUs that have memory near them. Nodes with the same CPUs, one of another kind of memory, are one. */
static int numa_allowed(const machine *m)
{
    int count = 0;
    for (hwloc_obj_t node = NULL; (node = hwloc_get_next_obj_by_type(m->topology, HWLOC_OBJ_NUMANODE, node));) {
        bool new = hwloc_bitmap_intersects(node->cpuset, m->allowed);
        for (hwloc_obj_t other = node->prev_cousin; other && new; other = other->prev_cousin)
            new = !hwloc_bitmap_isequal(other->cpuset, node->cpuset);
        count += new;
    }
    return count;
}

enum { CORES_MAX = 4096, CPUS_MAX = 8192 }; /* per node */

/* What a rank tells the others of its node. Bit i is core or logical CPU i of the node in hwloc's order. */
typedef struct rank_cpus {
    uint8_t cores[CORES_MAX / 8]; /* that it may run on */
    uint8_t cpus[CPUS_MAX / 8];
    uint8_t permitted[CORES_MAX / 8]; /* cores of its cpuset, whatever it is bound to */
} rank_cpus;

static void set_bit(uint8_t *bits, unsigned i)
{
    bits[i / 8] |= (uint8_t)(1 << i % 8);
}

static bool has_bit(const uint8_t *bits, unsigned i)
{
    return bits[i / 8] >> i % 8 & 1;
}

static void describe_machine(const machine *m, qwen3_rank_info *info, rank_cpus *own)
{
    hwloc_const_bitmap_t permitted = hwloc_topology_get_allowed_cpuset(m->topology);
    const unsigned cpus = (unsigned)hwloc_get_nbobjs_by_type(m->topology, HWLOC_OBJ_PU);
    info->cpus_allowed = hwloc_bitmap_weight(m->allowed);
    info->cpus_online = (int)cpus;
    for (unsigned core = 0; core < core_count(m) && core < CORES_MAX; core++) {
        hwloc_obj_t obj = hwloc_get_obj_by_depth(m->topology, core_depth(m), core);
        if (hwloc_bitmap_intersects(obj->cpuset, m->allowed))
            set_bit(own->cores, core);
        if (hwloc_bitmap_intersects(obj->cpuset, permitted))
            set_bit(own->permitted, core);
        info->cores_allowed += has_bit(own->cores, core);
    }
    for (unsigned i = 0; i < cpus && i < CPUS_MAX; i++)
        if (hwloc_bitmap_isset(m->allowed, hwloc_get_obj_by_type(m->topology, HWLOC_OBJ_PU, i)->os_index))
            set_bit(own->cpus, i);
    info->numa_nodes = hwloc_get_nbobjs_by_type(m->topology, HWLOC_OBJ_NUMANODE);
    info->numa_allowed = numa_allowed(m);
    hwloc_bitmap_list_snprintf(info->binding, sizeof info->binding, m->allowed);
    info->threads_bound = omp_get_proc_bind() != omp_proc_bind_false;
    numa_nodes(m, info->numa, sizeof info->numa);
    cpu_model(m, info->cpu, sizeof info->cpu);
}

/* Numbers the nodes in the order of their lowest ranks. bytes, firsts: [size of c]. Collective. */
static void number_nodes(comm *c, comm *node, size_t *bytes, int *firsts, qwen3_rank_info *info)
{
    int first = comm_rank(c);
    comm_broadcast(node, &first, sizeof first, 0, QWEN3_COMM_CONTROL);
    for (int r = 0; r < comm_size(c); r++)
        bytes[r] = sizeof first;
    comm_allgather(c, &first, firsts, bytes, QWEN3_COMM_CONTROL);
    for (int r = 0; r < comm_size(c); r++) {
        info->nodes += firsts[r] == r;
        info->node += firsts[r] == r && r < first;
    }
}

/* The sum over the bits of this rank of 1 / (ranks of the node with that bit). all: those of rank 0 of the node. */
static double share_of_bits(const uint8_t *own, const uint8_t *all, unsigned bits, size_t ranks)
{
    double share = 0;
    for (unsigned i = 0; i < bits; i++) {
        int users = 0;
        for (size_t r = 0; has_bit(own, i) && r < ranks; r++)
            users += has_bit(all + r * sizeof(rank_cpus), i);
        share += users ? 1.0 / users : 0;
    }
    return share;
}

static int whole_cpus(double share)
{
    return share + 1e-6 < 1 ? 1 : (int)(share + 1e-6);
}

/* Divides cores, CPUs and quotas among the ranks of the node. Collective over it. */
static void share_node(comm *node, const rank_cpus *own, rank_cpus *all, cpu_quotas *quotas, size_t *bytes,
                       qwen3_rank_info *info)
{
    const size_t ranks = (size_t)comm_size(node);
    cpu_quotas own_quotas;
    cpu_quotas_read("", &own_quotas);
    for (size_t r = 0; r < ranks; r++)
        bytes[r] = sizeof *own;
    comm_allgather(node, own, all, bytes, QWEN3_COMM_CONTROL);
    for (size_t r = 0; r < ranks; r++)
        bytes[r] = sizeof own_quotas;
    comm_allgather(node, &own_quotas, quotas, bytes, QWEN3_COMM_CONTROL);

    const double cores = share_of_bits(own->cores, all->cores, CORES_MAX, ranks);
    info->ranks_on_node = (int)ranks;
    info->cpu_share = share_of_bits(own->cpus, all->cpus, CPUS_MAX, ranks);
    info->cpu_quota = cpu_quota_share(quotas, ranks, (size_t)comm_rank(node));
    info->default_threads = getenv("OMP_NUM_THREADS")                        ? omp_get_max_threads()
                            : info->cpu_quota > 0 && info->cpu_quota < cores ? whole_cpus(info->cpu_quota)
                                                                             : whole_cpus(cores);
    for (unsigned core = 0; core < CORES_MAX; core++) {
        bool permitted = false, used = false;
        for (size_t r = 0; r < ranks; r++) {
            permitted |= has_bit(all[r].permitted, core);
            used |= has_bit(all[r].cores, core);
        }
        info->cores_idle += permitted && !used;
    }
}

/* What is collective, after all ranks know their own machine. */
static qwen3_status compare_ranks(comm *c, const rank_cpus *own, qwen3_rank_info *info, qwen3_error *err)
{
    comm *node = NULL;
    comm_split_node(c, &node, err);
    const size_t size = (size_t)comm_size(c), ranks = node ? (size_t)comm_size(node) : 1;
    int *firsts = malloc(size * sizeof *firsts); /* lowest rank of each rank's node */
    size_t *bytes = malloc(size * sizeof *bytes);
    rank_cpus *all = malloc(ranks * sizeof *all);
    cpu_quotas *quotas = malloc(ranks * sizeof *quotas);
    if (!firsts || !bytes || !all || !quotas)
        fail(err, QWEN3_ERR_MEMORY, "topology of %zu ranks: out of memory", size);
    const qwen3_status status = qwen3_comm_agree(c, err);
    if (status == QWEN3_OK) {
        number_nodes(c, node, bytes, firsts, info);
        share_node(node, own, all, quotas, bytes, info);
    }
    comm_free(node);
    free(firsts);
    free(bytes);
    free(all);
    free(quotas);
    return status;
}

qwen3_status qwen3_comm_topology(qwen3_comm *c, qwen3_rank_info *info, qwen3_error *err)
{
    machine m;
    rank_cpus own = {0};
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(info, "info", err))
        return qwen3_comm_agree(c, err);
    *info = (qwen3_rank_info){0};
    if (gethostname(info->host, sizeof info->host - 1) != 0)
        snprintf(info->host, sizeof info->host, "unknown");
    if (machine_open(&m)) {
        describe_machine(&m, info, &own);
        machine_close(&m);
    } else {
        fail(err, QWEN3_ERR_UNSUPPORTED, "hwloc cannot read the topology of this machine");
    }
    qwen3_status status = qwen3_comm_agree(c, err);
    return status == QWEN3_OK ? compare_ranks(c, &own, info, err) : status;
}

/* The part of rank `rank` of `ranks` of the cores that this process's cpuset permits. False: too few cores. */
static bool share_of_cores(const machine *m, unsigned rank, unsigned ranks, hwloc_bitmap_t cpus)
{
    hwloc_const_bitmap_t permitted = hwloc_topology_get_allowed_cpuset(m->topology);
    unsigned cores = 0, at = 0;
    for (unsigned core = 0; core < core_count(m); core++)
        cores += hwloc_bitmap_intersects(hwloc_get_obj_by_depth(m->topology, core_depth(m), core)->cpuset, permitted);
    for (unsigned core = 0; core < core_count(m); core++) {
        hwloc_obj_t obj = hwloc_get_obj_by_depth(m->topology, core_depth(m), core);
        if (!hwloc_bitmap_intersects(obj->cpuset, permitted))
            continue;
        if (at >= cores * rank / ranks && at < cores * (rank + 1) / ranks)
            hwloc_bitmap_or(cpus, cpus, obj->cpuset);
        at++;
    }
    hwloc_bitmap_and(cpus, cpus, permitted);
    return cores >= ranks;
}

static void bind_to_share(comm *node, qwen3_error *err)
{
    machine m;
    if (!machine_open(&m)) {
        fail(err, QWEN3_ERR_UNSUPPORTED, "hwloc cannot read the topology of this machine");
        return;
    }
    hwloc_bitmap_t cpus = hwloc_bitmap_alloc();
    if (!cpus)
        fail(err, QWEN3_ERR_MEMORY, "topology: out of memory");
    else if (share_of_cores(&m, (unsigned)comm_rank(node), (unsigned)comm_size(node), cpus) &&
             hwloc_set_cpubind(m.topology, cpus, HWLOC_CPUBIND_PROCESS) != 0)
        fail(err, QWEN3_ERR_UNSUPPORTED, "this system does not let a process choose its cores");
    hwloc_bitmap_free(cpus);
    machine_close(&m);
}

qwen3_status qwen3_comm_bind(qwen3_comm *c, qwen3_error *err)
{
    comm *node = NULL;
    qwen3_error local;
    err = error_begin(err, &local);
    if (qwen3_comm_agree(c, err))
        return err->status;
    comm_split_node(c, &node, err);
    qwen3_status status = qwen3_comm_agree(c, err);
    if (status == QWEN3_OK) {
        bind_to_share(node, err);
        status = qwen3_comm_agree(c, err);
    }
    comm_free(node);
    return status;
}

enum { PLACEMENT_NODES = 1024 };

void memory_placement(const void *const *addresses, size_t n, char *text, size_t size)
{
    machine m;
    unsigned counts[PLACEMENT_NODES] = {0}, known = 0;
    snprintf(text, size, "unknown");
    if (!machine_open(&m))
        return;
    hwloc_nodeset_t nodes = hwloc_bitmap_alloc();
    for (size_t i = 0; nodes && i < n; i++) {
        if (hwloc_get_area_memlocation(m.topology, addresses[i], 1, nodes, HWLOC_MEMBIND_BYNODESET) != 0)
            continue;
        int node = hwloc_bitmap_first(nodes); /* -1: the page is not in memory */
        if (node < 0 || node >= PLACEMENT_NODES)
            continue;
        counts[node]++;
        known++;
    }
    hwloc_bitmap_free(nodes);
    machine_close(&m);
    size_t used = 0;
    for (size_t node = 0; node < PLACEMENT_NODES && used < size; node++)
        if (counts[node])
            used += (size_t)snprintf(text + used, size - used, "%s%zu: %.0f %%", used ? ", " : "", node,
                                     100.0 * counts[node] / known);
}
