/* self.c - the backend for one rank: everything stays where it is. Needs no MPI. */
#include <string.h>

#include "comm/comm_backend.h"

static void self_barrier(comm *c)
{
    (void)c;
}

static void self_allgather(comm *c, const void *send, void *recv, const size_t *bytes)
{
    (void)c;
    if (bytes[0] && send != recv)
        memmove(recv, send, bytes[0]);
}

static void self_alltoall(comm *c, const void *send, const size_t *send_bytes, void *recv, const size_t *recv_bytes)
{
    (void)recv_bytes;
    self_allgather(c, send, recv, send_bytes);
}

static void self_broadcast(comm *c, void *data, size_t bytes, int root)
{
    (void)c, (void)data, (void)bytes, (void)root;
}

static qwen3_status self_split(comm *c, int color, int key, comm **out, qwen3_error *err)
{
    (void)color, (void)key;
    return comm_create(&comm_backend_self, 0, 1, c, out, err);
}

static qwen3_status self_split_node(comm *c, comm **out, qwen3_error *err)
{
    return comm_create(&comm_backend_self, 0, 1, c, out, err);
}

const comm_backend comm_backend_self = {
    .barrier = self_barrier,
    .allgather = self_allgather,
    .alltoall = self_alltoall,
    .gather = self_allgather,
    .broadcast = self_broadcast,
    .split = self_split,
    .split_node = self_split_node,
    .release = self_barrier,
};

/* Nothing is communicated and nothing counted. */
qwen3_comm *qwen3_comm_self(void)
{
    static size_t counts[2];
    static qwen3_comm self = {.backend = &comm_backend_self,
                              .size = 1,
                              .one_node = true,
                              .root = &self,
                              .stats = &self.own_stats,
                              .counts = counts};
    return &self;
}
