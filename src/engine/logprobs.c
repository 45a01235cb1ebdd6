/* logprobs.c - logarithms of the probabilities of tokens, from logits that are distributed over the ranks.
 *
 * Two rounds: each rank sends its likeliest tokens and the logit of the token in question; then, the largest logit
 * being known, its part of sum exp(logit - largest). These are whole numbers (select.h), so the result does not depend
 * on how the vocabulary is split. */
#include <math.h>
#include <stdlib.h>

#include "blocks/architectures.h"
#include "engine/sample.h"
#include "engine/select.h"

static const drawing plain = {.inverse_temperature = 1};

typedef struct search {
    qwen3_session *session;
    logprobs_row *rows; /* [n] */
    size_t n, ranks;
    size_t each;           /* candidates that a rank sends of all rows */
    candidate *mine, *all; /* [each], [ranks][each] */
    candidate *list;       /* [best_list_room(QWEN3_MAX_TOP_LOGPROBS)] */
    float *block_max;      /* of one row */
    int64_t *sums;         /* [n + ranks * n]: of this rank, of all */
    float *largest;        /* [n] logits */
    size_t *bytes;         /* [ranks] */
} search;

/* Candidates of a row: the likeliest, and the token in question. */
static size_t candidates_of(const logprobs_row *r)
{
    return (r->most > 0 ? (size_t)r->most : 1) + 1;
}

static logits_part part_of(const search *c, const logprobs_row *r)
{
    const qwen3_model *m = c->session->model;
    const range columns = session_vocabulary(m, comm_rank(m->world));
    logits_part part = {.kernels = m->kernels,
                        .logits = c->session->head.logits + r->row * m->weights.matrices[MODEL_HEAD].n,
                        .n = (size_t)range_size(columns),
                        .first = (int32_t)columns.begin,
                        .block_max = c->block_max};
    logits_part_scan(&part);
    return part;
}

static void exchange(const search *c, const void *mine, void *all, size_t bytes)
{
    for (size_t rank = 0; rank < c->ranks; rank++)
        c->bytes[rank] = bytes;
    comm_allgather(c->session->model->world, mine, all, c->bytes, QWEN3_COMM_LOGITS);
}

static void say_candidates(const search *c)
{
    candidate *out = c->mine;
    for (size_t i = 0; i < c->n; i++) {
        const logprobs_row *r = &c->rows[i];
        const logits_part part = part_of(c, r);
        const size_t n = candidates_of(r) - 1, found = logits_part_top(&part, &plain, n, c->list, out);
        for (size_t k = found; k <= n; k++)
            out[k] = (candidate){.token = -1};
        const int64_t at = (int64_t)r->token - part.first;
        if (at >= 0 && at < (int64_t)part.n)
            out[n] = (candidate){.logit = part.logits[at], .token = r->token};
        out += n + 1;
    }
}

/* The likeliest of all ranks; logprobs hold logits until the sums are known. */
static void hear_candidates(const search *c)
{
    for (size_t i = 0, first = 0; i < c->n; first += candidates_of(&c->rows[i++])) {
        logprobs_row *r = &c->rows[i];
        const size_t n = candidates_of(r) - 1;
        best_list l;
        best_list_init(&l, n, c->list);
        for (size_t rank = 0; rank < c->ranks; rank++) {
            const candidate *said = c->all + rank * c->each + first;
            for (size_t k = 0; k < n; k++)
                if (said[k].token >= 0)
                    best_list_add(&l, said[k]);
            if (said[n].token >= 0)
                r->logprob = said[n].logit;
        }
        best_list_finish(&l);
        c->largest[i] = l.items[0].logit;
        r->n_top = l.n < (size_t)r->most ? (int)l.n : r->most;
        for (int k = 0; k < r->n_top; k++)
            r->top[k] = (qwen3_token_logprob){l.items[k].token, l.items[k].logit};
    }
}

static void add_sums(const search *c, float scale)
{
    int64_t before, *all = c->sums + c->n;
    for (size_t i = 0; i < c->n; i++) {
        const logits_part part = part_of(c, &c->rows[i]);
        logits_part_masses(&part, &plain, c->largest[i], scale, (candidate){.token = -1}, &c->sums[i], &before);
    }
    exchange(c, c->sums, all, c->n * sizeof *c->sums);
    for (size_t i = 0; i < c->n; i++) {
        logprobs_row *r = &c->rows[i];
        int64_t total = 0;
        for (size_t rank = 0; rank < c->ranks; rank++)
            total += all[rank * c->n + i];
        const double normaliser = c->largest[i] + log((double)total / scale);
        r->logprob = (float)(r->logprob - normaliser);
        for (int k = 0; k < r->n_top; k++)
            r->top[k].logprob = (float)(r->top[k].logprob - normaliser);
    }
}

static qwen3_status allocate(search *c, qwen3_error *err)
{
    for (size_t i = 0; i < c->n; i++)
        c->each += candidates_of(&c->rows[i]);
    if (c->each == 0)
        return QWEN3_OK; /* no rows */
    c->mine = malloc((c->ranks + 1) * c->each * sizeof *c->mine);
    c->list = malloc(best_list_room(QWEN3_MAX_TOP_LOGPROBS) * sizeof *c->list);
    c->block_max = malloc((logits_part_blocks(c->session->model->weights.matrices[MODEL_HEAD].n) + 1) * sizeof(float));
    c->sums = malloc((c->ranks + 1) * c->n * sizeof *c->sums);
    c->largest = malloc(c->n * sizeof *c->largest);
    c->bytes = malloc(c->ranks * sizeof *c->bytes);
    if (!c->mine || !c->list || !c->block_max || !c->sums || !c->largest || !c->bytes)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for the probabilities of %zu rows", c->n);
    c->all = c->mine + c->each;
    return QWEN3_OK;
}

qwen3_status find_logprobs(qwen3_session *s, logprobs_row *rows, size_t n, qwen3_error *err)
{
    comm *world = s->model->world;
    search c = {.session = s, .rows = rows, .n = n, .ranks = (size_t)comm_size(world)};
    if (!err->status)
        allocate(&c, err);
    if (!qwen3_comm_agree(world, err)) {
        say_candidates(&c);
        exchange(&c, c.mine, c.all, c.each * sizeof *c.mine);
        hear_candidates(&c);
        add_sums(&c, mass_scale(s->model->config.vocab_size));
    }
    free(c.mine);
    free(c.list);
    free(c.block_max);
    free(c.sums);
    free(c.largest);
    free(c.bytes);
    return err->status;
}
