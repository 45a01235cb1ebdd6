/* topology.c - hosts, CPUs and their sharing among the ranks, by hwloc. */
#include "comm/topology.h"

#include <hwloc.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"

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

static bool core_allowed(const machine *m, unsigned core)
{
    hwloc_obj_t obj = hwloc_get_obj_by_depth(m->topology, core_depth(m), core);
    return obj && hwloc_bitmap_intersects(obj->cpuset, m->allowed);
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

/* Numbers the nodes in the order of their lowest ranks. Collective. */
static qwen3_status number_nodes(comm *c, qwen3_rank_info *info, qwen3_error *err)
{
    comm *node = NULL;
    size_t size = (size_t)comm_size(c);
    qwen3_error local = {0};
    int first = comm_rank(c);
    int *firsts = malloc(size * sizeof *firsts); /* lowest rank of each rank's node */
    size_t *bytes = malloc(size * sizeof *bytes);
    if (!firsts || !bytes)
        fail(&local, QWEN3_ERR_MEMORY, "topology of %zu ranks: out of memory", size);
    qwen3_status status = qwen3_comm_agree(c, &local);
    if (status == QWEN3_OK)
        status = comm_split_node(c, &node, &local);
    if (status == QWEN3_OK) {
        comm_broadcast(node, &first, sizeof first, 0, QWEN3_COMM_CONTROL);
        for (size_t r = 0; r < size; r++)
            bytes[r] = sizeof first;
        comm_allgather(c, &first, firsts, bytes, QWEN3_COMM_CONTROL);
        info->node = info->nodes = 0;
        for (int r = 0; r < (int)size; r++) {
            info->nodes += firsts[r] == r;
            info->node += firsts[r] == r && r < first;
        }
    } else if (err) {
        *err = local;
    }
    comm_free(node);
    free(firsts);
    free(bytes);
    return status;
}

qwen3_status qwen3_comm_topology(qwen3_comm *c, qwen3_rank_info *info, qwen3_error *err)
{
    machine m;
    qwen3_error local = {0};
    *info = (qwen3_rank_info){0};
    if (gethostname(info->host, sizeof info->host - 1) != 0)
        snprintf(info->host, sizeof info->host, "unknown");
    if (machine_open(&m)) {
        info->cpus_allowed = hwloc_bitmap_weight(m.allowed);
        info->cpus_online = hwloc_get_nbobjs_by_type(m.topology, HWLOC_OBJ_PU);
        for (unsigned core = 0; core < core_count(&m); core++)
            info->cores_allowed += core_allowed(&m, core);
        info->numa_nodes = hwloc_get_nbobjs_by_type(m.topology, HWLOC_OBJ_NUMANODE);
        hwloc_bitmap_list_snprintf(info->binding, sizeof info->binding, m.allowed);
        info->threads_bound = omp_get_proc_bind() != omp_proc_bind_false;
        numa_nodes(&m, info->numa, sizeof info->numa);
        cpu_model(&m, info->cpu, sizeof info->cpu);
        machine_close(&m);
    } else {
        fail(&local, QWEN3_ERR_UNSUPPORTED, "hwloc cannot read the topology of this machine");
    }
    if (qwen3_comm_agree(c, &local) != QWEN3_OK) {
        if (err)
            *err = local;
        return local.status;
    }
    return number_nodes(c, info, err);
}

#define CORES_MAX 4096 /* per node */

/* The sum over this rank's cores of 1 / (ranks that may use the core). Collective over a node's ranks. */
static double core_share(comm *node, const uint8_t *mine, uint8_t *masks, size_t *bytes)
{
    size_t size = (size_t)comm_size(node);
    double share = 0;
    for (size_t r = 0; r < size; r++)
        bytes[r] = CORES_MAX / 8;
    comm_allgather(node, mine, masks, bytes, QWEN3_COMM_CONTROL);
    for (size_t core = 0; core < CORES_MAX; core++) {
        int users = 0;
        for (size_t r = 0; r < size; r++)
            users += masks[r * (CORES_MAX / 8) + core / 8] >> core % 8 & 1;
        if (mine[core / 8] >> core % 8 & 1)
            share += 1.0 / users;
    }
    return share;
}

int default_threads(comm *c)
{
    machine m;
    comm *node = NULL;
    uint8_t mine[CORES_MAX / 8] = {0};
    double share = 1;
    if (machine_open(&m)) {
        for (unsigned core = 0; core < core_count(&m) && core < CORES_MAX; core++)
            mine[core / 8] |= (uint8_t)(core_allowed(&m, core) << core % 8);
        machine_close(&m);
    }
    if (comm_split_node(c, &node, NULL) == QWEN3_OK) {
        qwen3_error local = {0};
        uint8_t *masks = malloc((size_t)comm_size(node) * sizeof mine);
        size_t *bytes = malloc((size_t)comm_size(node) * sizeof *bytes);
        if (!masks || !bytes)
            fail(&local, QWEN3_ERR_MEMORY, "core masks: out of memory");
        if (qwen3_comm_agree(node, &local) == QWEN3_OK)
            share = core_share(node, mine, masks, bytes);
        free(masks);
        free(bytes);
        comm_free(node);
    }
    if (getenv("OMP_NUM_THREADS"))
        return omp_get_max_threads();
    return share + 1e-6 < 1 ? 1 : (int)(share + 1e-6);
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
