#include "model/partition.h"

range partition(int64_t n, int64_t grain, int64_t parts, int64_t index)
{
    int64_t units = (n + grain - 1) / grain;
    int64_t begin = units * index / parts * grain;
    int64_t end = units * (index + 1) / parts * grain;
    return (range){begin < n ? begin : n, end < n ? end : n};
}

head_shard partition_heads(int64_t heads, int64_t kv_heads, int64_t parts, int64_t index)
{
    int64_t group = heads / kv_heads;
    if (parts <= kv_heads) {
        range kv = partition(kv_heads, 1, parts, index);
        return (head_shard){{kv.begin * group, kv.end * group}, kv};
    }
    /* Parts first .. first + count - 1 share KV head kv. */
    int64_t kv = index * kv_heads / parts;
    int64_t first = (kv * parts + kv_heads - 1) / kv_heads;
    int64_t count = ((kv + 1) * parts + kv_heads - 1) / kv_heads - first;
    range part = partition(group, 1, count, index - first);
    head_shard shard = {{kv * group + part.begin, kv * group + part.end}, {kv, kv + 1}};
    if (range_size(part) == 0)
        shard.kv_heads.end = kv;
    return shard;
}

int64_t partition_zigzag_owner(int64_t n, int64_t parts, int64_t i)
{
    int64_t chunks = 2 * parts;
    /* Chunk c is [c * n / chunks, (c + 1) * n / chunks): the largest c whose beginning is <= i. */
    int64_t c = ((i + 1) * chunks - 1) / n;
    return c < parts ? c : chunks - 1 - c;
}
