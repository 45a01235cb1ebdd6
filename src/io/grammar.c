/* grammar.c - compiling a schema, and what its texts need of the stack. */
#include "io/grammar.h"

#include <stdlib.h>
#include <string.h>

#include "io/json_file.h"

static void destroy(qwen3_grammar *g)
{
    free(g->nodes);
    free(g->classes);
    free(g->rules);
    free(g);
}

static int32_t larger(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

static int32_t smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* The need of a node by those of its successors. */
static int32_t need_of(const qwen3_grammar *g, const grammar_node *n)
{
    const int32_t next = g->nodes[n->next].need;
    const bool calls = n->op == GRAMMAR_CALL || n->op == GRAMMAR_REPEAT;
    const int32_t inside = calls ? g->nodes[g->rules[n->what]].need : 0;
    const int32_t called = inside < GRAMMAR_DEPTH ? inside + 1 : GRAMMAR_NEVER;
    switch (n->op) {
    case GRAMMAR_DEAD:
        return GRAMMAR_NEVER;
    case GRAMMAR_BYTE:
        return next;
    case GRAMMAR_SPLIT:
        return smaller(next, g->nodes[n->what].need);
    case GRAMMAR_CALL:
        return larger(called, next);
    case GRAMMAR_REPEAT:
        return n->least == 0 ? next : larger(called, next);
    default:
        return 0;
    }
}

/* Finds what each node needs: a matcher goes nowhere that has not room for it, so it has no dead ends. Nodes follow
 * those that they lead to, but for rules that call themselves: few passes suffice, and after GRAMMAR_DEPTH of them no
 * need below that can change. */
static void find_needs(qwen3_grammar *g)
{
    bool changed = true;
    for (int32_t i = 0; i < g->n_nodes; i++)
        g->nodes[i].need = GRAMMAR_NEVER;
    while (changed) {
        changed = false;
        for (int32_t i = 0; i < g->n_nodes; i++) {
            const int32_t need = need_of(g, &g->nodes[i]);
            changed |= need < g->nodes[i].need;
            g->nodes[i].need = need;
        }
    }
}

/* Line breaks in front of the value and after it: models write them beside marks. */
static void build_whole(grammar_builder *b, json_t *schema)
{
    static const grammar_node first[] = {[NODE_DEAD] = {.op = GRAMMAR_DEAD}, [NODE_RETURN] = {.op = GRAMMAR_RETURN}};
    qwen3_grammar *g = b->g;
    if (!(g->nodes = malloc(sizeof first))) {
        fail(b->err, QWEN3_ERR_MEMORY, "#: no memory for the schema");
        return;
    }
    memcpy(g->nodes, first, sizeof first);
    g->n_nodes = g->room_nodes = 2;
    const int32_t end = build_split(b, NODE_RETURN, build_text(b, "\n", 1, NODE_RETURN));
    const int32_t value = build_schema(b, schema, end);
    const int32_t lines = build_split(b, build_text(b, "\n", 1, value), build_text(b, "\n\n", 2, value));
    g->start = build_split(b, value, lines);
}

static qwen3_status compile(qwen3_grammar *g, const char *text, size_t length, qwen3_error *err)
{
    json_t *schema;
    grammar_builder b = {.g = g, .err = err, .char_rule = -1, .space_rule = -1};
    qwen3_status status = json_value_load("schema", text, length, JSON_DECODE_ANY, &schema, err);
    if (status)
        return status;
    build_whole(&b, schema);
    json_decref(schema);
    if (err->status)
        return err->status;
    find_needs(g);
    if (g->nodes[g->start].need == GRAMMAR_NEVER)
        return fail(err, QWEN3_ERR_ARGUMENT, "#: no value meets the schema");
    return QWEN3_OK;
}

qwen3_status qwen3_grammar_open(const char *schema, size_t length, qwen3_grammar **grammar, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(grammar, "grammar", err))
        return err->status;
    *grammar = NULL;
    if (missing(schema, "schema", err))
        return err->status;
    qwen3_grammar *g = calloc(1, sizeof *g);
    if (!g)
        return fail(err, QWEN3_ERR_MEMORY, "#: no memory for the schema");
    const qwen3_status status = compile(g, schema, length, err);
    if (status == QWEN3_OK)
        *grammar = g;
    else
        destroy(g);
    return status;
}

void qwen3_grammar_close(qwen3_grammar *grammar)
{
    if (grammar)
        destroy(grammar);
}
