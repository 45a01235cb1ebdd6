#include "blocks/step.h"

#include <string.h>

#include "attention/attention.h"
#include "model/partition.h"

void step_close(step *s)
{
    memory_plan_free(&s->plan);
    memory_region_free(&s->tables);
    *s = (step){0};
}

static qwen3_status make_tables(step *s, const sequence_table *table, size_t rows, qwen3_error *err)
{
    const size_t groups = (size_t)table->groups, most = (size_t)table->max_sequences;
    const size_t sequences = rows < most ? rows : most; /* at most */
    memory_plan_add(&s->plan, &s->rows, rows * sizeof *s->rows, 0, 0);
    memory_plan_add(&s->plan, &s->unsorted, rows * sizeof *s->unsorted, 0, 0);
    memory_plan_add(&s->plan, &s->group_first, (groups + 1) * sizeof *s->group_first, 0, 0);
    memory_plan_add(&s->plan, &s->jobs, groups * sequences * sizeof *s->jobs, 0, 0);
    memory_plan_add(&s->plan, &s->new_owned, groups * sequences * sizeof *s->new_owned, 0, 0);
    memory_plan_add(&s->plan, &s->sequences, sequences * sizeof *s->sequences, 0, 0);
    memory_plan_add(&s->plan, &s->index_of, most * sizeof *s->index_of, 0, 0);
    memory_plan_add(&s->plan, &s->counts, 2 * most * sizeof *s->counts, 0, 0);
    return memory_region_fit(&s->tables, &s->plan, "the plan of a step", err);
}

/* Token ids and sequence ids; counts the tokens of each sequence. */
static qwen3_status check_ids(step *s, const sequence_table *table, const qwen3_config *config,
                              const qwen3_batch *batch, qwen3_error *err)
{
    if (batch->n_tokens == 0 || !batch->tokens)
        return fail(err, QWEN3_ERR_ARGUMENT, "the batch has no tokens; expected at least one");
    memset(s->counts, 0, 2 * (size_t)table->max_sequences * sizeof *s->counts);
    for (size_t i = 0; i < batch->n_tokens; i++) {
        if (batch->tokens[i] < 0 || batch->tokens[i] >= config->vocab_size)
            return fail(err, QWEN3_ERR_ARGUMENT, "token %zu of the batch: id %d is not in 0..%lld, the vocabulary", i,
                        batch->tokens[i], (long long)config->vocab_size - 1);
        int32_t sequence = batch->sequences ? batch->sequences[i] : 0;
        if (sequence < 0 || sequence >= table->max_sequences)
            return fail(err, QWEN3_ERR_ARGUMENT, "token %zu of the batch: sequence %d is not in 0..%d (max_sequences)",
                        i, sequence, table->max_sequences - 1);
        s->counts[sequence]++;
    }
    return QWEN3_OK;
}

/* The part in which token `index` of n of a sequence is. */
static int part_of(step_part part, size_t index, size_t n)
{
    return part.parts == 2 && index >= n / 2 ? 1 : 0;
}

/* The rows of the part in batch order with their positions, how many each sequence has (in jobs[].rows of group 0), and
 * the numbers of the wanted logits, in batch order. */
static qwen3_status read_rows(step *s, const sequence_table *table, const qwen3_batch *batch, step_part part,
                              qwen3_error *err)
{
    size_t *read = s->counts + table->max_sequences;
    for (int i = 0; i < table->max_sequences; i++)
        s->index_of[i] = -1;
    for (size_t i = 0; i < batch->n_tokens; i++) {
        const int32_t sequence = batch->sequences ? batch->sequences[i] : 0;
        const size_t n = s->counts[sequence], index = read[sequence]++;
        const bool wanted = batch->logits ? batch->logits[i] != 0 : index == n - 1;
        const int64_t out = wanted ? (int64_t)s->n_out++ : -1;
        const size_t before = part.part == 1 ? n / 2 : 0; /* tokens that have been committed */
        const int64_t position = table->items[sequence].length + (int64_t)index - (int64_t)before;
        if (position >= table->max_tokens)
            return fail(err, QWEN3_ERR_CAPACITY,
                        "sequence %d: position %lld does not fit in the KV cache of %lld tokens (max_tokens)", sequence,
                        (long long)position, (long long)table->max_tokens);
        if (batch->positions && batch->positions[i] != position)
            return fail(err, QWEN3_ERR_ARGUMENT,
                        "token %zu of the batch: position %d of sequence %d; expected %lld, which continues it", i,
                        batch->positions[i], sequence, (long long)position);
        if (part_of(part, index, n) != part.part)
            continue;
        if (s->index_of[sequence] < 0) {
            s->jobs[s->n_sequences].rows = 0;
            s->sequences[s->n_sequences] = sequence;
            s->index_of[sequence] = (int32_t)s->n_sequences++;
        }
        s->jobs[s->index_of[sequence]].rows++;
        s->rows[s->n_rows++] = (step_row){.token = batch->tokens[i],
                                          .sequence = sequence,
                                          .position = (int32_t)position,
                                          .index = s->index_of[sequence],
                                          .out = out};
    }
    return QWEN3_OK;
}

/* Who keeps each row. Long pieces are balanced for causal attention, short ones fill the emptiest groups, unless pages
 * must be whole. */
static void assign_owners(step *s, const sequence_table *table)
{
    int groups = table->groups;
    memset(s->new_owned, 0, s->n_sequences * (size_t)groups * sizeof *s->new_owned);
    for (size_t i = 0; i < s->n_rows; i++) {
        step_row *r = &s->rows[i];
        int64_t *new_owned = s->new_owned + (size_t)r->index * (size_t)groups;
        const sequence_entry *sequence = &table->items[r->sequence];
        int64_t n = (int64_t)s->jobs[r->index].rows;
        if (table->whole_pages) {
            r->owner = page_place_of((size_t)r->position / KV_BLOCK, groups).owner;
        } else if (s->mode == STEP_SPLIT_ROWS && n >= groups) {
            r->owner = (int32_t)partition_zigzag_owner(n, groups, r->position - sequence->length);
        } else {
            r->owner = 0;
            for (int g = 1; g < groups; g++)
                if (sequence->owned[g] + new_owned[g] < sequence->owned[r->owner] + new_owned[r->owner])
                    r->owner = g;
        }
        new_owned[r->owner]++;
    }
}

/* Sorts rows by (group, sequence), keeping positions in order, and fills group_first and jobs. */
static void sort_rows(step *s, const sequence_table *table)
{
    const size_t groups = (size_t)table->groups, n_jobs = groups * s->n_sequences;
    const bool split = s->mode == STEP_SPLIT_ROWS;
    step_row *sorted = s->unsorted;
    s->unsorted = s->rows;
    s->rows = sorted;
    for (size_t j = 0; j < n_jobs; j++)
        s->jobs[j] = (step_job){.sequence = s->sequences[j % s->n_sequences]};
    for (size_t i = 0; i < s->n_rows; i++) {
        const step_row *row = &s->unsorted[i];
        s->jobs[(split ? (size_t)row->owner : 0) * s->n_sequences + (size_t)row->index].rows++;
    }
    size_t first = 0;
    for (size_t g = 0; g < groups; g++) {
        s->group_first[g] = first;
        for (size_t q = 0; q < s->n_sequences; q++) {
            step_job *job = &s->jobs[g * s->n_sequences + q];
            job->first = first;
            first += job->rows;
            job->rows = 0;
        }
    }
    s->group_first[groups] = first;
    for (size_t i = 0; i < s->n_rows; i++) {
        const step_row *row = &s->unsorted[i];
        step_job *job = &s->jobs[(split ? (size_t)row->owner : 0) * s->n_sequences + (size_t)row->index];
        s->rows[job->first + job->rows++] = *row;
    }
}

qwen3_status step_plan(step *s, const sequence_table *table, const qwen3_config *config, const qwen3_batch *batch,
                       step_part part, int64_t split_min, qwen3_error *err)
{
    s->n_rows = s->n_out = s->n_sequences = 0;
    if (batch->n_tokens > (size_t)table->max_sequences * (size_t)table->max_tokens)
        return fail(err, QWEN3_ERR_CAPACITY, "the batch has %zu tokens; the session holds at most %d of %lld",
                    batch->n_tokens, table->max_sequences, (long long)table->max_tokens);
    qwen3_status status = make_tables(s, table, batch->n_tokens, err);
    if (!status)
        status = check_ids(s, table, config, batch, err);
    if (!status)
        status = read_rows(s, table, batch, part, err);
    if (status)
        return status;
    s->mode = table->groups == 1 || (int64_t)batch->n_tokens >= split_min ? STEP_SPLIT_ROWS : STEP_SPLIT_WEIGHTS;
    assign_owners(s, table);
    sort_rows(s, table);
    return QWEN3_OK;
}

void step_commit(step *s, sequence_table *table)
{
    for (size_t i = 0; i < s->n_rows; i++) {
        step_row *r = &s->rows[i];
        r->place = sequences_append(table, r->sequence, r->position, r->owner);
    }
}
