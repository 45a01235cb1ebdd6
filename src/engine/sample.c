/* sample.c - chooses the next tokens from logits that are distributed over the ranks. Ranks send candidates only, in
 * rounds for all rows at once.
 *
 * Greedy: each rank sends its first token (order: select.h). top_k: each rank sends its first k, and every rank does
 * the rest by itself. Otherwise each rank draws a token, and the best of these is the one drawn from the whole row. It
 * is accepted if it is inside the nucleus, the tokens that top_p and min_p keep. These are the first ones of the row.
 * So a rejected token and every later one are outside, and the next draw is made among the earlier ones, with the same
 * noise. The token accepted is the one that drawing from the nucleus gives, but nobody has to find out what the nucleus
 * is. The number of rounds does not depend on the number of tokens: with top_p, at most 1 / top_p draws are expected.
 * (Rejection without sorting: Ye et al. 2025, FlashInfer.)
 *
 * All ranks see the same records and make the same decisions. What they compare is computed by one rank only, or from
 * the same numbers by the same kernels. */
#include <stdlib.h>

#include "base/digest.h"
#include "blocks/architectures.h"
#include "engine/sample.h"
#include "engine/select.h"
#include "model/sampler.h"

/* What a rank sends of a row in one round. */
typedef union record {
    candidate candidate;
    struct {
        int64_t total, before;
    } mass;
} record;

/* Instead of a token: a logit of the rank is NaN or +INFINITY. */
#define NOT_FINITE (-2)

typedef enum row_state {
    ROW_DRAWS,  /* wants a token */
    ROW_WEIGHS, /* wants the probability of the tokens before the one drawn */
    ROW_DONE,
} row_state;

typedef struct row {
    choice *choice;
    const qwen3_sampler *sampler; /* of the choice */
    row_state state;
    drawing drawing;
    logits_part part;
    float *logits;  /* this rank's part, which bias and penalties change during the call */
    float *saved;   /* what was there, where they are changed: all of the part with a mask (row_changes) */
    float *scratch; /* where there is a mask: what bias and penalties change, of no use after */
    size_t top_k;   /* 0: all */
    int32_t tokens; /* ids that may be chosen */
    candidate first, drawn;
} row;

typedef struct sampling {
    const qwen3_session *session;
    row *rows; /* [n] */
    size_t n, ranks;
    int rank;
    size_t most;        /* records of a rank in one round */
    record *mine, *all; /* [most], [ranks * most] */
    candidate *list;    /* [best_list_room(largest top_k)] */
    float *e;           /* [largest top_k] */
    float scale;        /* mass_scale */
    float *block_max;   /* of all rows */
    float *saved;
    size_t *bytes, *at; /* [ranks] of the records of each rank; first record that is not read yet */
} sampling;

/* ---- Rows -------------------------------------------------------------------------------------- */

static bool row_greedy(const row *r)
{
    return !r->sampler || r->sampler->options.temperature == 0;
}

/* The logits of a row that a rank chooses from. */
static size_t row_size(const sampling *c, const row *r, int rank)
{
    range columns = session_vocabulary(c->session->model, rank);
    int64_t end = columns.end < r->tokens ? columns.end : r->tokens;
    return end > columns.begin ? (size_t)(end - columns.begin) : 0;
}

/* Records of a rank in the first round: the first token and one drawn, or the first k. */
static size_t row_records(const sampling *c, const row *r, int rank)
{
    size_t n = row_size(c, r, rank);
    return row_greedy(r) ? 1 : r->top_k == 0 ? 2 : n < r->top_k ? n : r->top_k;
}

/* Logits of this rank's part that are changed during the call. */
static size_t row_changes(const row *r)
{
    return r->choice->mask ? r->part.n : r->sampler ? sampler_changes(r->sampler) : 0;
}

static void open_row(const sampling *c, row *r, choice *of)
{
    const qwen3_model *m = c->session->model;
    const qwen3_sampler *sampler = of->sampler;
    *r = (row){.choice = of, .sampler = sampler, .tokens = sampler ? sampler->n_tokens : (int32_t)m->config.vocab_size};
    int rank = comm_rank(m->world);
    r->logits = c->session->head.logits + of->row * m->weights.matrices[MODEL_HEAD].n;
    r->part = (logits_part){.kernels = m->kernels,
                            .logits = r->logits,
                            .n = row_size(c, r, rank),
                            .first = (int32_t)session_vocabulary(m, rank).begin};
    of->fault = CHOICE_GOOD;
    if (row_greedy(r))
        return;
    r->drawing.inverse_temperature = 1 / sampler->options.temperature;
    r->drawing.key = mix64(mix64(sampler->options.seed) + (sampler->length + of->ahead + 1) * GOLDEN_GAMMA);
    if (sampler->options.top_k < r->tokens)
        r->top_k = (size_t)sampler->options.top_k;
}

/* Bias, penalties and mask. */
static void change_logits(row *r)
{
    const uint64_t *mask = r->choice->mask;
    if (!mask) {
        if (r->sampler)
            sampler_adjust(r->sampler, r->logits, r->part.first, r->part.n, r->saved);
        return;
    }
    memcpy(r->saved, r->logits, r->part.n * sizeof *r->logits);
    if (r->sampler)
        sampler_adjust(r->sampler, r->logits, r->part.first, r->part.n, r->scratch);
    for (size_t i = 0; i < r->part.n; i++) {
        const size_t token = (size_t)r->part.first + i;
        if (!(mask[token / 64] >> token % 64 & 1))
            r->logits[i] = -INFINITY;
    }
}

static void restore_logits(const row *r)
{
    if (r->choice->mask)
        memcpy(r->logits, r->saved, r->part.n * sizeof *r->logits);
    else if (r->sampler)
        sampler_restore(r->sampler, r->logits, r->part.first, r->part.n, r->saved);
}

/* The first round: writes this rank's records of a row and returns their number. */
static size_t say_first(const sampling *c, row *r, record *out)
{
    size_t n = row_records(c, r, c->rank);
    change_logits(r);
    if (!logits_part_scan(&r->part)) {
        out[0].candidate.token = NOT_FINITE;
    } else if (r->top_k > 0) {
        size_t found = logits_part_top(&r->part, &r->drawing, n, c->list, &out[0].candidate);
        for (size_t i = found; i < n; i++)
            out[i].candidate.token = -1;
    } else {
        out[0].candidate = logits_part_first(&r->part);
        if (n > 1)
            out[1].candidate = logits_part_draw(&r->part, &r->drawing, NULL);
    }
    return n;
}

/* Draws from the tokens that top_p and min_p keep of the first k. */
static candidate draw_from_list(const sampling *c, const row *r, const best_list *l)
{
    const qwen3_sampling_options *o = &r->sampler->options;
    candidate drawn = {.token = -1};
    int64_t total = 0, before = 0;
    for (size_t i = 0; i < l->n; i++)
        c->e[i] = l->items[i].logit;
    relative_probabilities(r->part.kernels, l->n, c->e, c->e[0], &r->drawing, c->e);
    for (size_t i = 0; i < l->n; i++)
        total += mass_of(c->e[i], c->scale);
    for (size_t i = 0; i < l->n; i++) {
        if (i > 0 && ((o->top_p < 1 && (double)before >= o->top_p * (double)total) || c->e[i] < (float)o->min_p))
            break;
        before += mass_of(c->e[i], c->scale);
        if (candidate_beats(l->items[i], drawn, r->drawing.inverse_temperature))
            drawn = l->items[i];
    }
    return drawn;
}

/* Whether min_p keeps the token that was drawn. */
static bool passes_min_p(const row *r)
{
    float e;
    relative_probabilities(r->part.kernels, 1, &r->drawn.logit, r->first.logit, &r->drawing, &e);
    return e >= (float)r->sampler->options.min_p;
}

/* A token was drawn: accepts it, rejects it, or notes what must be known first. */
static void judge(row *r)
{
    if (row_greedy(r) || r->top_k > 0 || r->drawn.token == r->first.token)
        r->state = ROW_DONE;
    else if (!passes_min_p(r))
        r->state = ROW_DRAWS;
    else
        r->state = r->sampler->options.top_p < 1 ? ROW_WEIGHS : ROW_DONE;
}

static void hear_first(const sampling *c, row *r)
{
    best_list l;
    best_list_init(&l, r->top_k ? r->top_k : 1, c->list);
    r->drawn = (candidate){.token = -1};
    bool finite = true;
    for (size_t rank = 0; rank < c->ranks; rank++) {
        size_t n = row_records(c, r, (int)rank);
        const record *said = c->all + c->at[rank];
        c->at[rank] += n;
        if (n == 0)
            continue;
        finite &= said[0].candidate.token != NOT_FINITE;
        for (size_t i = 0; finite && i < (r->top_k ? n : 1); i++)
            if (said[i].candidate.token >= 0)
                best_list_add(&l, said[i].candidate);
        if (finite && r->top_k == 0 && n > 1 &&
            candidate_beats(said[1].candidate, r->drawn, r->drawing.inverse_temperature))
            r->drawn = said[1].candidate;
    }
    best_list_finish(&l);
    if (!finite || l.n == 0) {
        r->choice->fault = finite ? CHOICE_NO_TOKEN : CHOICE_NOT_FINITE;
        r->state = ROW_DONE;
        return;
    }
    r->first = l.items[0];
    if (row_greedy(r))
        r->drawn = r->first;
    else if (r->top_k > 0)
        r->drawn = draw_from_list(c, r, &l);
    judge(r);
}

/* ---- Rounds ------------------------------------------------------------------------------------ */

static void exchange(const sampling *c)
{
    size_t first = 0;
    for (size_t rank = 0; rank < c->ranks; rank++) {
        c->at[rank] = first;
        first += c->bytes[rank] / sizeof(record);
    }
    comm_allgather(c->session->model->world, c->mine, c->all, c->bytes, QWEN3_COMM_LOGITS);
}

static void first_round(const sampling *c)
{
    for (size_t rank = 0; rank < c->ranks; rank++) {
        c->bytes[rank] = 0;
        for (size_t i = 0; i < c->n; i++)
            c->bytes[rank] += row_records(c, &c->rows[i], (int)rank) * sizeof(record);
    }
    record *out = c->mine;
    for (size_t i = 0; i < c->n; i++)
        out += say_first(c, &c->rows[i], out);
    exchange(c);
    for (size_t i = 0; i < c->n; i++)
        hear_first(c, &c->rows[i]);
}

static void hear_more(const sampling *c, row *r)
{
    candidate drawn = {.token = -1};
    int64_t total = 0, before = 0;
    for (size_t rank = 0; rank < c->ranks; rank++) {
        const record *said = c->all + c->at[rank]++;
        if (r->state == ROW_WEIGHS) {
            total += said->mass.total;
            before += said->mass.before;
        } else if (candidate_beats(said->candidate, drawn, r->drawing.inverse_temperature)) {
            drawn = said->candidate;
        }
    }
    if (r->state == ROW_WEIGHS) {
        bool inside = (double)before < r->sampler->options.top_p * (double)total;
        r->state = inside ? ROW_DONE : ROW_DRAWS;
    } else {
        r->drawn = drawn;
        judge(r);
    }
}

/* Exchanges one record of each rank for each row that is not done; false if all are done. */
static bool next_round(const sampling *c)
{
    record *out = c->mine;
    for (size_t i = 0; i < c->n; i++) {
        const row *r = &c->rows[i];
        if (r->state == ROW_WEIGHS)
            logits_part_masses(&r->part, &r->drawing, r->first.logit, c->scale, r->drawn, &out->mass.total,
                               &out->mass.before);
        else if (r->state == ROW_DRAWS)
            out->candidate = logits_part_draw(&r->part, &r->drawing, &r->drawn);
        out += r->state != ROW_DONE;
    }
    if (out == c->mine)
        return false;
    for (size_t rank = 0; rank < c->ranks; rank++)
        c->bytes[rank] = (size_t)((char *)out - (char *)c->mine);
    exchange(c);
    for (size_t i = 0; i < c->n; i++)
        if (c->rows[i].state != ROW_DONE)
            hear_more(c, &c->rows[i]);
    return true;
}

/* ---- One call ---------------------------------------------------------------------------------- */

static void free_rows(sampling *c)
{
    free(c->rows);
    free(c->mine);
    free(c->list);
    free(c->e);
    free(c->block_max);
    free(c->saved);
    free(c->bytes);
}

static qwen3_status allocate(sampling *c, choice *choices, qwen3_error *err)
{
    size_t blocks = 0, saved = 0, scratch = 0, most_k = 1, all = 0;
    c->rows = calloc(c->n, sizeof *c->rows);
    if (!c->rows)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for choosing the tokens of %zu rows", c->n);
    for (size_t i = 0; i < c->n; i++) {
        row *r = &c->rows[i];
        open_row(c, r, &choices[i]);
        blocks += logits_part_blocks(r->part.n);
        saved += row_changes(r);
        if (r->choice->mask && r->sampler && sampler_changes(r->sampler) > scratch)
            scratch = sampler_changes(r->sampler);
        most_k = r->top_k > most_k ? r->top_k : most_k;
        for (size_t rank = 0; rank < c->ranks; rank++)
            all += row_records(c, r, (int)rank) + 1; /* 1: in later rounds */
        c->most += row_records(c, r, c->rank) + 1;
    }
    c->mine = malloc((c->most + all) * sizeof *c->mine);
    c->list = malloc(best_list_room(most_k) * sizeof *c->list);
    c->e = malloc(most_k * sizeof *c->e);
    c->block_max = malloc((blocks + 1) * sizeof *c->block_max);
    c->saved = malloc((saved + scratch + 1) * sizeof *c->saved);
    c->bytes = malloc(2 * c->ranks * sizeof *c->bytes);
    if (!c->mine || !c->list || !c->e || !c->block_max || !c->saved || !c->bytes)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for the candidates of %zu rows", c->n);
    c->all = c->mine + c->most;
    c->at = c->bytes + c->ranks;
    blocks = saved = 0;
    for (size_t i = 0; i < c->n; i++) {
        row *r = &c->rows[i];
        r->part.block_max = c->block_max + blocks;
        r->saved = c->saved + scratch + saved;
        r->scratch = c->saved;
        blocks += logits_part_blocks(r->part.n);
        saved += row_changes(r);
    }
    return QWEN3_OK;
}

/* What all ranks must have alike of the choices: samplers and how they draw. Masks come from one rank. */
static uint64_t digest_choices(const choice *choices, size_t n)
{
    uint64_t digest = 0;
    for (size_t i = 0; i < n; i++) {
        const qwen3_sampler *sampler = choices[i].sampler;
        if (!sampler)
            continue;
        const qwen3_sampling_options *o = &sampler->options;
        const double numbers[] = {o->temperature,       o->top_p, o->min_p, o->presence_penalty, o->frequency_penalty,
                                  o->repetition_penalty};
        const uint64_t integers[] = {i + 1, (uint64_t)o->top_k, o->seed, o->n_bias, sampler->length + choices[i].ahead};
        digest = digest_bytes(digest, numbers, sizeof numbers);
        digest = digest_bytes(digest, integers, sizeof integers);
    }
    return digest;
}

qwen3_status choose_tokens(qwen3_session *s, choice *choices, size_t n, qwen3_error *err)
{
    comm *world = s->model->world;
    sampling c = {.session = s,
                  .n = n,
                  .ranks = (size_t)comm_size(world),
                  .rank = comm_rank(world),
                  .scale = mass_scale(s->model->config.vocab_size)};
    if (!err->status)
        allocate(&c, choices, err);
    if (!comm_agree_on(world, "samplers", err->status ? 0 : digest_choices(choices, n), err)) {
        first_round(&c);
        while (next_round(&c))
            ;
        for (size_t i = 0; i < n; i++) {
            restore_logits(&c.rows[i]);
            choices[i].token = c.rows[i].drawn.token;
        }
    }
    free_rows(&c);
    return err->status;
}

/* ---- The public functions ---------------------------------------------------------------------- */

/* Checks the samplers and marks those in use. */
static qwen3_status take_samplers(const qwen3_session *s, qwen3_sampler *const *samplers, choice *choices,
                                  qwen3_error *err)
{
    for (size_t i = 0; i < s->n_out; i++) {
        qwen3_sampler *sampler = samplers ? samplers[i] : NULL;
        choices[i] = (choice){.row = i, .sampler = sampler};
        if (!sampler)
            continue;
        if (sampler->in_use)
            return fail(err, QWEN3_ERR_ARGUMENT, "row %zu: its sampler is that of a row before; expected one for each",
                        i);
        if (sampler->vocab_size != s->model->config.vocab_size)
            return fail(err, QWEN3_ERR_ARGUMENT,
                        "row %zu: its sampler was opened for a vocabulary of %lld; expected %lld, that of the model", i,
                        (long long)sampler->vocab_size, (long long)s->model->config.vocab_size);
        sampler->in_use = true;
        if (sampler_reserve(sampler, 1, err))
            return err->status;
    }
    return QWEN3_OK;
}

static qwen3_status fail_choice(size_t index, choice_fault fault, qwen3_error *err)
{
    if (fault == CHOICE_NOT_FINITE)
        return fail(err, QWEN3_ERR_FORMAT,
                    "row %zu: a logit is not a number, or infinite; the weights or the input overflow", index);
    return fail(err, QWEN3_ERR_ARGUMENT, "row %zu: no token may be chosen; expected a bias that leaves one", index);
}

qwen3_status qwen3_sample(qwen3_session *s, qwen3_sampler *const *samplers, int32_t *tokens, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (session_need_logits(s, err) || s->n_out == 0)
        return err->status;
    choice *choices = calloc(s->n_out, sizeof *choices);
    if (!choices)
        fail(err, QWEN3_ERR_MEMORY, "no memory for choosing the tokens of %zu rows", s->n_out);
    else if (!missing(tokens, "tokens", err))
        take_samplers(s, samplers, choices, err);
    choose_tokens(s, choices, s->n_out, err);
    for (size_t i = 0; i < s->n_out && !err->status; i++)
        if (choices[i].fault)
            fail_choice(i, choices[i].fault, err);
    for (size_t i = 0; i < s->n_out; i++) {
        qwen3_sampler *sampler = samplers ? samplers[i] : NULL;
        if (sampler)
            sampler->in_use = false;
        if (err->status)
            continue;
        tokens[i] = choices[i].token;
        if (sampler)
            sampler_append(sampler, tokens[i], true);
    }
    free(choices);
    return err->status;
}

qwen3_status qwen3_argmax(qwen3_session *s, int32_t *tokens, qwen3_error *err)
{
    return qwen3_sample(s, NULL, tokens, err);
}
