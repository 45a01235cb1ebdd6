/* agree.c - see agree.h. */
#include "engine/agree.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"

#define VALUE_BYTES 72

typedef struct item_list {
    qwen3_comm_item *items;      /* [room] */
    char (*values)[VALUE_BYTES]; /* [room] */
    size_t n, room;
} item_list;

static qwen3_status list_open(item_list *l, size_t room, qwen3_error *err)
{
    *l = (item_list){calloc(room, sizeof *l->items), calloc(room, sizeof *l->values), 0, room};
    if (l->items && l->values)
        return QWEN3_OK;
    return fail(err, QWEN3_ERR_MEMORY, "no memory to compare %zu values", room);
}

static void list_close(item_list *l)
{
    free(l->items);
    free(l->values);
}

static void add(item_list *l, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* There must be room. */
static void add(item_list *l, const char *name, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(l->values[l->n], VALUE_BYTES, format, args);
    va_end(args);
    l->items[l->n] = (qwen3_comm_item){name, l->values[l->n]};
    l->n++;
}

/* ---- A model ------------------------------------------------------------------------------------ */

enum { MODEL_ITEMS = 40 }; /* at least those of add_options and add_config */

static void add_options(item_list *l, const qwen3_model_options *o)
{
    add(l, "parallel strategy", "%s", qwen3_strategy_name(o->strategy));
    add(l, "grid", "%dx%d", o->grid_sequence, o->grid_heads);
    add(l, "dtype", "%s", qwen3_dtype_name(o->dtype));
    add(l, "kv_dtype", "%s", o->kv_dtype == QWEN3_DTYPE_AUTO ? "auto" : qwen3_dtype_name(o->kv_dtype));
    add(l, "seed", "%" PRIu64, o->seed);
    add(l, "expected_tokens", "%" PRId64, o->expected_tokens);
    add(l, "expect_decode", "%d", o->expect_decode);
    add(l, "share_weights", "%d", o->share_weights);
    add(l, "deterministic", "%d", o->deterministic);
    add(l, "no_output_head", "%d", o->no_output_head);
    add(l, "machine", "%s", o->machine ? "given" : "not given");
}

/* By the keys of config.json. */
static void add_config(item_list *l, const qwen3_config *c)
{
    const struct {
        const char *key;
        int64_t value;
    } integers[] = {
        {"vocab_size", c->vocab_size},
        {"hidden_size", c->hidden_size},
        {"intermediate_size", c->intermediate_size},
        {"num_hidden_layers", c->num_layers},
        {"num_attention_heads", c->num_heads},
        {"num_key_value_heads", c->num_kv_heads},
        {"head_dim", c->head_dim},
        {"tie_word_embeddings", c->tie_word_embeddings},
        {"no output head", c->no_output_head},
        {"attention_bias", c->attention_bias},
        {"original_max_position_embeddings", c->yarn_original_positions},
        {"max_position_embeddings", c->max_positions},
        {"num_experts", c->num_experts},
        {"num_experts_per_tok", c->num_experts_per_token},
        {"moe_intermediate_size", c->moe_intermediate_size},
        {"norm_topk_prob", c->norm_topk_prob},
    };
    const struct {
        const char *key;
        double value;
    } numbers[] = {
        {"rms_norm_eps", c->rms_norm_eps}, {"rope_theta", c->rope_theta},
        {"rope factor", c->yarn_factor},   {"beta_fast", c->yarn_beta_fast},
        {"beta_slow", c->yarn_beta_slow},  {"attention_factor", c->yarn_attention_factor},
    };
    add(l, "model_type", "%s", c->architecture);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        add(l, numbers[i].key, "%.17g", numbers[i].value);
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++)
        add(l, integers[i].key, "%" PRId64, integers[i].value);
    add(l, "layers with experts", "%016" PRIx64, digest_bytes(0, c->expert_layers, sizeof c->expert_layers));
}

/* Files first: where they differ in size, a sample of the contents would say less. */
static void add_checkpoint(item_list *l, const source *s)
{
    source_file_info f;
    for (size_t i = 0; source_file(s, i, &f); i++) {
        const char *slash = strrchr(f.path, '/');
        add(l, slash ? slash + 1 : f.path, "%zu bytes, header %016" PRIx64, f.bytes, f.header);
    }
    for (size_t i = 0; i < source_tensors(s); i++)
        add(l, source_tensor(s, i)->name, "contents %016" PRIx64, source_digest(s, i));
}

static void list_model(item_list *l, const qwen3_model *m, qwen3_error *err)
{
    source_file_info f;
    size_t room = MODEL_ITEMS + source_tensors(m->source);
    for (size_t i = 0; source_file(m->source, i, &f); i++)
        room++;
    if (list_open(l, room, err))
        return;
    add_options(l, &m->options);
    add_config(l, &m->config);
    add_checkpoint(l, m->source);
}

qwen3_status agree_on_source(const qwen3_model *m, qwen3_error *err)
{
    item_list l = {0};
    if (!err->status && comm_size(m->world) > 1)
        list_model(&l, m, err);
    const qwen3_status status = qwen3_comm_compare(m->world, m->spec ? m->spec : "model", l.items, l.n,
                                                   "expected the same options and files everywhere", err);
    list_close(&l);
    return status;
}

/* ---- A session ---------------------------------------------------------------------------------- */

enum { SESSION_ITEMS = 9 };

qwen3_status agree_on_session(const qwen3_model *m, const qwen3_session_options *o, qwen3_error *err)
{
    item_list l = {0};
    if (!err->status && !list_open(&l, SESSION_ITEMS, err)) {
        add(&l, "max_sequences", "%d", o->max_sequences);
        add(&l, "max_tokens", "%" PRId64, o->max_tokens);
        add(&l, "kv_pages", "%" PRId64, o->kv_pages);
        add(&l, "algorithm", "%s", qwen3_algorithm_name(o->algorithm));
        add(&l, "q_block_size", "%d", o->q_block_size);
        add(&l, "kv_block_size", "%d", o->kv_block_size);
        add(&l, "token_split_min", "%" PRId64, o->token_split_min);
        add(&l, "overlap_min_rows", "%" PRId64, o->overlap_min_rows);
        add(&l, "wire", "%s", o->wire == QWEN3_DTYPE_AUTO ? "auto" : qwen3_dtype_name(o->wire));
    }
    const qwen3_status status =
        qwen3_comm_compare(m->world, "session options", l.items, l.n, "expected the same on all ranks", err);
    list_close(&l);
    return status;
}

/* ---- Instruction sets --------------------------------------------------------------------------- */

/* The lowest rank with this level. Collective. */
static int first_with(const qwen3_model *m, qwen3_isa isa)
{
    double rank = m->kernels->isa == isa ? -(double)comm_rank(m->world) : -INFINITY;
    qwen3_comm_max(m->world, &rank, 1);
    return (int)-rank;
}

qwen3_status agree_on_level(qwen3_model *m, bool *chosen, qwen3_error *err)
{
    kernels_choose(m->options.isa, &m->kernels, err);
    if (qwen3_comm_agree(m->world, err))
        return err->status;
    /* lowest and highest level, and whether one was chosen */
    double values[] = {-(double)m->kernels->isa, (double)m->kernels->isa, m->options.isa != QWEN3_ISA_AUTO};
    qwen3_comm_max(m->world, values, 3);
    const qwen3_isa lowest = (qwen3_isa)-values[0], highest = (qwen3_isa)values[1];
    *chosen = values[2] > 0;
    if (lowest != highest) {
        const int low = first_with(m, lowest), high = first_with(m, highest);
        const kernels *common = kernels_get(kernels_common(lowest, highest));
        snprintf(m->levels, sizeof m->levels,
                 "the ranks have unlike instruction sets, %s on rank %d and %s on rank %d: "
                 "all use %s",
                 qwen3_isa_name(lowest), low, qwen3_isa_name(highest), high, common->name);
        m->kernels = common;
    }
    return QWEN3_OK;
}
