/* constraint.c - see constraint.h. */
#include "constraint.h"

#include <stdlib.h>
#include <string.h>

typedef enum part { REASONING, CONTENT, CALL, AFTER_CALL } part;

/* Where an answer is. Matchers are opened when they are first needed: answers that wait have none. */
typedef struct place {
    part part;
    bool begun;    /* tokens of this part came */
    bool reasoned; /* it will not begin again */
    qwen3_matcher *content, *call;
} place;

struct constraint {
    const generation *text;
    const qwen3_vocabulary *vocabulary;
    const generation_request *request;
    int32_t call, call_end; /* <tool_call> and </tool_call> */
    place *places;          /* [request->n] */
};

static int32_t added_token(const generation *text, const char *name)
{
    const int32_t id = qwen3_tokenizer_find(text->tokenizer, name, strlen(name));
    return qwen3_tokenizer_kind(text->tokenizer, id) == QWEN3_TOKEN_ADDED ? id : -1;
}

bool constraint_is_needed(const generation_request *r)
{
    return r->content_grammar || r->call_grammar;
}

qwen3_status constraint_open(const generation *text, const qwen3_vocabulary *vocabulary, const generation_request *r,
                             bool thinking, constraint **opened, qwen3_error *err)
{
    constraint *c = *opened = calloc(1, sizeof *c);
    if (!c || !(c->places = calloc((size_t)r->n, sizeof *c->places)))
        return set_error(err, QWEN3_ERR_MEMORY, "answer: out of memory");
    c->text = text;
    c->vocabulary = vocabulary;
    c->request = r;
    c->call = added_token(text, "<tool_call>");
    c->call_end = added_token(text, "</tool_call>");
    for (int i = 0; i < r->n; i++)
        c->places[i].part = thinking ? REASONING : CONTENT;
    if (r->call_grammar && (c->call < 0 || c->call_end < 0))
        return set_error(err, QWEN3_ERR_UNSUPPORTED, "this model has no tokens that mark calls of tools");
    return QWEN3_OK;
}

void constraint_close(constraint *c)
{
    if (!c)
        return;
    for (int i = 0; c->places && i < c->request->n; i++) {
        qwen3_matcher_close(c->places[i].content);
        qwen3_matcher_close(c->places[i].call);
    }
    free(c->places);
    free(c);
}

/* The matcher of the part; NULL where there is none, also out of memory. */
static qwen3_matcher *matcher_of(const constraint *c, place *p)
{
    const generation_request *r = c->request;
    const qwen3_grammar *grammar = p->part == CALL ? r->call_grammar : r->must_call ? NULL : r->content_grammar;
    qwen3_matcher **m = p->part == CALL ? &p->call : &p->content;
    if (!*m && grammar && (p->part == CALL || p->part == CONTENT))
        qwen3_matcher_open(grammar, c->vocabulary, m, NULL);
    return *m;
}

/* Content without a grammar, but calls may have one. */
static bool is_free(const constraint *c, const place *p)
{
    return p->part == CONTENT && !c->request->content_grammar && !c->request->must_call;
}

static bool ends(const constraint *c, int32_t token)
{
    return qwen3_generation_config_ends(&c->text->config, token);
}

/* Whether the value of the part is whole, so that the token that ends it may come. */
static bool may_end(const constraint *c, place *p)
{
    switch (p->part) {
    case REASONING:
        return !c->request->content_grammar && !c->request->must_call;
    case AFTER_CALL:
        return true;
    default:
        return is_free(c, p) || qwen3_matcher_complete(matcher_of(c, p));
    }
}

/* Line breaks that models write around a call. */
static bool may_break(const constraint *c, const place *p)
{
    return !p->begun && (p->part == AFTER_CALL || (p->part == CONTENT && c->request->must_call));
}

static bool may_call(const constraint *c, const place *p)
{
    const generation_request *r = c->request;
    if (!r->call_grammar)
        return false;
    return p->part == CONTENT ? r->must_call || !p->begun || is_free(c, p)
                              : p->part == AFTER_CALL && r->parallel_tool_calls;
}

static bool may_reason(const constraint *c, const place *p)
{
    return p->part == CONTENT && !p->begun && !p->reasoned && c->request->thinking;
}

static bool is_line_break(const constraint *c, int32_t token)
{
    size_t n;
    const char *text = qwen3_tokenizer_token(c->text->tokenizer, token, &n);
    return (n == 1 || n == 2) && memcmp(text, "\n\n", n) == 0;
}

static bool allows(void *context, int answer, int32_t token)
{
    const constraint *c = context;
    place *p = &c->places[answer];
    if (ends(c, token))
        return p->part != CALL && may_end(c, p);
    if (p->part == REASONING || is_free(c, p))
        return true;
    if ((token == c->text->think && may_reason(c, p)) || (token == c->call && may_call(c, p)) ||
        (token == c->call_end && p->part == CALL && may_end(c, p)) || (may_break(c, p) && is_line_break(c, token)))
        return true;
    return qwen3_matcher_allows(matcher_of(c, p), token);
}

static void set_token(const constraint *c, uint64_t *mask, int32_t token, bool on)
{
    if (token < 0 || token >= c->text->n_tokens)
        return;
    const uint64_t bit = (uint64_t)1 << token % 64;
    mask[token / 64] = on ? mask[token / 64] | bit : mask[token / 64] & ~bit;
}

static bool mask_tokens(void *context, int answer, uint64_t *mask)
{
    const constraint *c = context;
    place *p = &c->places[answer];
    const qwen3_generation_config *config = &c->text->config;
    const bool all = p->part == REASONING || is_free(c, p);
    for (int32_t token = 0; all && token < c->text->n_tokens; token++)
        set_token(c, mask, token, true);
    if (!all)
        qwen3_matcher_mask(matcher_of(c, p), mask, c->text->n_tokens);
    for (int i = 0; i < config->n_end_tokens; i++)
        set_token(c, mask, config->end_tokens[i], p->part != CALL && may_end(c, p));
    if (may_reason(c, p))
        set_token(c, mask, c->text->think, true);
    if (may_call(c, p))
        set_token(c, mask, c->call, true);
    if (p->part == CALL && may_end(c, p))
        set_token(c, mask, c->call_end, true);
    for (size_t n = 1; n <= 2 && may_break(c, p); n++)
        set_token(c, mask, qwen3_tokenizer_find(c->text->tokenizer, "\n\n", n), true);
    return true;
}

static void enter(place *p, part next)
{
    p->part = next;
    p->begun = false;
}

static void accept_token(void *context, int answer, int32_t token)
{
    const constraint *c = context;
    place *p = &c->places[answer];
    if (p->part == REASONING && token == c->text->think_end) {
        p->reasoned = true;
        enter(p, CONTENT);
    } else if (token == c->text->think && may_reason(c, p)) {
        enter(p, REASONING);
    } else if (token == c->call && may_call(c, p)) {
        enter(p, CALL);
        qwen3_matcher_reset(p->call);
    } else if (token == c->call_end && p->part == CALL) {
        enter(p, c->request->content_grammar || c->request->must_call ? AFTER_CALL : CONTENT);
    } else {
        p->begun = true;
        qwen3_matcher_accept(matcher_of(c, p), token);
    }
}

qwen3_token_filter constraint_filter(constraint *c)
{
    return (qwen3_token_filter){.allows = allows, .mask = mask_tokens, .accept = accept_token, .context = c};
}
