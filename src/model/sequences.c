#include "model/sequences.h"

#include <stdlib.h>
#include <string.h>

qwen3_status sequences_open(sequence_table *t, const sequence_table *limits, qwen3_error *err)
{
    *t = *limits;
    t->items = calloc((size_t)t->max_sequences, sizeof *t->items);
    bool ok = t->items;
    for (int i = 0; ok && i < t->max_sequences; i++)
        ok = (t->items[i].owned = calloc((size_t)t->groups, sizeof(int64_t))) != NULL;
    return ok ? QWEN3_OK : fail(err, QWEN3_ERR_MEMORY, "no memory for the table of %d sequences", t->max_sequences);
}

void sequences_close(sequence_table *t)
{
    for (int i = 0; t->items && i < t->max_sequences; i++) {
        free(t->items[i].owned);
        free(t->items[i].positions);
    }
    free(t->items);
    *t = (sequence_table){0};
}

qwen3_status sequences_reserve(sequence_table *t, int sequence, int64_t n, qwen3_error *err)
{
    sequence_entry *s = &t->items[sequence];
    const int64_t need = s->owned[t->group] + n;
    if (need <= s->capacity)
        return QWEN3_OK;
    const int64_t capacity = need + need / 2 + 64;
    int32_t *positions = realloc(s->positions, (size_t)capacity * sizeof *positions);
    if (!positions)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for a table of %lld positions", (long long)capacity);
    s->positions = positions;
    s->capacity = capacity;
    return QWEN3_OK;
}

int64_t sequences_append(sequence_table *t, int sequence, int32_t position, int owner)
{
    sequence_entry *s = &t->items[sequence];
    const int64_t place = s->owned[owner]++;
    s->length++;
    if (owner == t->group)
        s->positions[place] = position;
    return place;
}

int64_t sequences_owned_below(const sequence_table *t, int sequence, int64_t length)
{
    const sequence_entry *s = &t->items[sequence];
    int64_t below = 0, end = s->owned[t->group];
    while (below < end) {
        const int64_t middle = below + (end - below) / 2;
        if (s->positions[middle] < length)
            below = middle + 1;
        else
            end = middle;
    }
    return below;
}

qwen3_status sequences_fork(sequence_table *t, int from, int to, int64_t length, const int64_t *owned, qwen3_error *err)
{
    const int64_t mine = owned[t->group];
    qwen3_status status = sequences_reserve(t, to, mine, err);
    if (status)
        return status;
    if (mine > 0)
        memcpy(t->items[to].positions, t->items[from].positions, (size_t)mine * sizeof(int32_t));
    sequences_truncate(t, to, length, owned);
    return QWEN3_OK;
}

void sequences_truncate(sequence_table *t, int sequence, int64_t length, const int64_t *owned)
{
    sequence_entry *s = &t->items[sequence];
    s->length = length;
    memcpy(s->owned, owned, (size_t)t->groups * sizeof *owned);
}
