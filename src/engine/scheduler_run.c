/* scheduler_run.c - what all ranks do with the orders of rank 0.
 *
 * Messages of a step beside those of the forward pass: one broadcast of the orders; what choosing tokens takes
 * (sample.c); where answers have filters, one more broadcast of the choices that they refuse, with masks of what they
 * allow, and another choice for these; two rounds for probabilities where they are wanted. */
#include <stdlib.h>
#include <string.h>

#include "engine/scheduler.h"

/* ---- Samplers ---------------------------------------------------------------------------------- */

static void open_sampler(qwen3_scheduler *s, const order *o, qwen3_error *err)
{
    qwen3_sampling_options options;
    memcpy(&options, orders_get(&s->orders, sizeof options), sizeof options);
    options.bias = orders_get(&s->orders, options.n_bias * sizeof *options.bias);
    const int32_t *tokens = orders_get(&s->orders, (size_t)o->b * sizeof *tokens);
    const size_t prompt = (size_t)(o->b - o->c);
    qwen3_sampler **sampler = &s->samplers[o->a];
    if (!qwen3_sampler_open(&s->model->config, s->options.n_tokens, &options, sampler, err) &&
        !qwen3_sampler_accept(*sampler, tokens, prompt, false, err))
        qwen3_sampler_accept(*sampler, tokens + prompt, (size_t)o->c, true, err);
}

static void close_sampler(qwen3_scheduler *s, int64_t sequence)
{
    qwen3_sampler_close(s->samplers[sequence]);
    s->samplers[sequence] = NULL;
}

/* ---- Choosing ---------------------------------------------------------------------------------- */

/* What the filters refuse of the choices: their numbers, then their masks in s->masks. Rank 0. */
static size_t refused_choices(qwen3_scheduler *s, uint64_t *refused)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_choices; i++) {
        const answer *a = s->held[s->planned[i].sequence].answer;
        choice *c = &s->choices[i];
        if (c->fault || filter_allows(a, c->token))
            continue;
        if (filter_mask(s, a, s->masks + n * s->mask_words))
            refused[n++] = i;
        else
            c->fault = CHOICE_NO_TOKEN;
    }
    return n;
}

/* Chooses again where a filter refuses a token, among those that it allows. */
static qwen3_status choose_filtered(qwen3_scheduler *s, qwen3_error *err)
{
    struct {
        uint64_t n, choices[MOST_RUNNING];
    } refused;
    memset(&refused, 0, sizeof refused);
    const size_t words = (size_t)s->options.max_running * s->mask_words;
    if (!s->masks && !(s->masks = malloc(words * sizeof *s->masks)))
        fail(err, QWEN3_ERR_MEMORY, "no memory for %d masks", s->options.max_running);
    if (qwen3_comm_agree(s->world, err))
        return err->status;
    if (s->rank == 0)
        refused.n = refused_choices(s, refused.choices);
    comm_broadcast(s->world, &refused, (1 + (size_t)s->options.max_running) * sizeof(uint64_t), 0, QWEN3_COMM_CONTROL);
    if (refused.n == 0)
        return QWEN3_OK;
    comm_broadcast(s->world, s->masks, refused.n * s->mask_words * sizeof *s->masks, 0, QWEN3_COMM_CONTROL);
    for (size_t k = 0; k < refused.n; k++) {
        s->again[k] = s->choices[refused.choices[k]];
        s->again[k].mask = s->masks + k * s->mask_words;
    }
    qwen3_status status = choose_tokens(s->session, s->again, refused.n, err);
    for (size_t k = 0; k < refused.n && !status; k++) {
        s->choices[refused.choices[k]] = s->again[k];
        s->choices[refused.choices[k]].mask = NULL;
    }
    return status;
}

/* Which choices are tokens of their answers: those of guessed tokens that were right, and one more. */
static void take_choices(qwen3_scheduler *s, const qwen3_batch *batch)
{
    for (size_t token = 0, row = 0, i = 0; i < s->n_choices; token++) {
        if (!batch->logits[token])
            continue;
        if (row++ < s->choices[i].row) /* of an embedding */
            continue;
        const choice *before = s->planned[i].ahead > 0 ? &s->choices[i - 1] : NULL;
        s->taken[i] = !before || (s->taken[i - 1] && !before->fault && before->token == batch->tokens[token]);
        i++;
    }
}

/* Forgets the tokens that were guessed wrongly: of each sequence those from the first choice on that is not taken. */
static qwen3_status forget_wrong(qwen3_scheduler *s, qwen3_error *err)
{
    qwen3_status status = QWEN3_OK;
    for (size_t i = 0, n; i < s->n_choices && !status; i += n) {
        const int sequence = s->planned[i].sequence;
        int64_t wrong = 0;
        for (n = 0; i + n < s->n_choices && s->planned[i + n].sequence == sequence; n++)
            wrong += !s->taken[i + n];
        if (wrong > 0)
            status =
                qwen3_session_truncate(s->session, sequence, qwen3_session_length(s->session, sequence) - wrong, err);
    }
    return status;
}

static qwen3_status add_logprobs(qwen3_scheduler *s, qwen3_error *err)
{
    s->n_logprobs = 0;
    for (size_t i = 0; i < s->n_choices; i++) {
        const choice *c = &s->choices[i];
        if (s->taken[i] && !c->fault && s->planned[i].logprobs >= 0)
            s->logprobs[s->n_logprobs++] =
                (logprobs_row){.row = c->row, .token = c->token, .most = s->planned[i].logprobs};
    }
    return s->n_logprobs > 0 ? find_logprobs(s->session, s->logprobs, s->n_logprobs, err) : QWEN3_OK;
}

/* Tokens for the rows of the step, into the histories of their answers. */
static qwen3_status choose(qwen3_scheduler *s, const qwen3_batch *batch, bool filtered, qwen3_error *err)
{
    for (size_t i = 0; i < s->n_choices; i++)
        s->choices[i] = (choice){.row = (size_t)s->planned[i].row,
                                 .sampler = s->samplers[s->planned[i].sequence],
                                 .ahead = (uint64_t)s->planned[i].ahead};
    qwen3_status status = choose_tokens(s->session, s->choices, s->n_choices, err);
    if (!status && filtered)
        status = choose_filtered(s, err);
    if (!status)
        take_choices(s, batch);
    if (!status)
        status = add_logprobs(s, err);
    for (size_t i = 0; i < s->n_choices && !status; i++)
        if (s->taken[i] && !s->choices[i].fault)
            status = qwen3_sampler_accept(s->samplers[s->planned[i].sequence], &s->choices[i].token, 1, true, err);
    return status ? status : forget_wrong(s, err);
}

/* ---- One step ---------------------------------------------------------------------------------- */

static qwen3_status forward(qwen3_scheduler *s, const order *o, qwen3_error *err)
{
    qwen3_batch batch = {.n_tokens = (size_t)o->a};
    batch.tokens = orders_get(&s->orders, batch.n_tokens * sizeof *batch.tokens);
    batch.sequences = orders_get(&s->orders, batch.n_tokens * sizeof *batch.sequences);
    batch.logits = orders_get(&s->orders, batch.n_tokens * sizeof *batch.logits);
    s->n_choices = (size_t)o->b;
    const void *planned = orders_get(&s->orders, s->n_choices * sizeof *s->planned);
    if (s->n_choices > 0)
        memcpy(s->planned, planned, s->n_choices * sizeof *s->planned);
    qwen3_status status = qwen3_forward(s->session, &batch, err);
    s->no_room = status == QWEN3_ERR_CAPACITY || status == QWEN3_ERR_MEMORY;
    return status || s->n_choices == 0 ? status : choose(s, &batch, o->c != 0, err);
}

static qwen3_status carry_out(qwen3_scheduler *s, const order *o, qwen3_error *err)
{
    switch ((order_kind)o->kind) {
    case ORDER_RESET:
        return qwen3_session_reset(s->session, (int)o->a, err);
    case ORDER_FORK:
        return qwen3_session_fork(s->session, (int)o->a, (int)o->b, o->c, err);
    case ORDER_OPEN:
        open_sampler(s, o, err);
        return qwen3_comm_agree(s->world, err);
    case ORDER_CLOSE:
        close_sampler(s, o->a);
        return QWEN3_OK;
    case ORDER_FORWARD:
        return forward(s, o, err);
    case ORDER_FAIL:
        memcpy(err, orders_get(&s->orders, sizeof *err), sizeof *err);
        return err->status;
    case ORDER_END:
        s->ended = true;
    }
    return QWEN3_OK;
}

/* Rank 0 lost orders for want of memory: the job ends. */
static void order_failure(qwen3_scheduler *s)
{
    qwen3_error err = {.rank = 0};
    fail(&err, QWEN3_ERR_MEMORY, "no memory for the orders of a step");
    orders_clear(&s->orders);
    orders_add(&s->orders, ORDER_FAIL, 0, 0, 0); /* what comes first always has room */
    orders_put(&s->orders, &err, sizeof err);
}

qwen3_status run_orders(qwen3_scheduler *s, qwen3_error *err)
{
    if (s->rank == 0 && s->orders.no_memory)
        order_failure(s);
    s->no_room = false;
    s->orders.at = 0;
    qwen3_status status = orders_share(&s->orders, s->world, err);
    while (!status && orders_left(&s->orders)) {
        const order *o = orders_get(&s->orders, sizeof *o);
        status = carry_out(s, o, err);
    }
    orders_clear(&s->orders);
    return status;
}
