/* cost.c - see cost.h. The time of a pass is the sum of
 *
 *   products    weights of the fullest rank (of experts, those that are expected to be chosen) over the rate at which
 *               products with so many rows get through weights
 *   attention   multiply-adds of many queries, bytes of keys and values that few queries read
 *   rows        norms, rotations, activations
 *   barriers    of the threads
 *   messages    latency and bytes of each collective, by level: inside a node, then one rank of each node across;
 *               what overlaps with computing is left out
 *
 * The ranks of a node share its rates. What is sent is listed in one place, layer_messages.
 */
#include "engine/cost.h"

#include <stdlib.h>

#include "attention/algorithms.h"
#include "attention/kv_shard.h"
#include "blocks/attention.h"
#include "blocks/gated_mlp.h"
#include "comm/comm_backend.h"
#include "kernels/row_limits.h"
#include "model/config.h"

/* Of the threads of a rank in a layer. */
#define LAYER_BARRIERS 12
/* Collectives of a few bytes in a pass: the ranks agree to begin, and choose a token. */
#define STEP_COLLECTIVES 2
/* What a hop of a ring costs beside its message: another plan of work and tiles of fewer keys. */
#define HOP_SECONDS 1e-4
/* What a core loses to messages between nodes that go on beside its work, for each byte sent and as many received: the
 * kernel's TCP copies and checks them (two emulated hosts of one core). */
#define BYTE_SECONDS 1.3e-9

/* ---- Shapes ------------------------------------------------------------------------------------ */

/* What the fullest rank has of a layer and of a pass. */
typedef struct rank_share {
    const qwen3_scenario *s;
    const qwen3_config *c;
    const kernels *k;
    qwen3_forward_shape shape;
    qwen3_dtype dtype, kv_dtype;
    double ranks;                         /* that share the rates of a node */
    int groups;                           /* S */
    bool split_weights;                   /* a step of few rows: each rank has all of them and 1/S of the weights */
    double rows;                          /* that it computes */
    double heads, kv_heads;               /* of its head group */
    double gated, expert_gated;           /* intermediate outputs of its head group; of an expert */
    double layer_values;                  /* weights of its head group, in the mean of the layers */
    double projected;                     /* weights of q, k, v and o that it multiplies in this pass */
    double own_gated, own_expert_gated;   /* intermediate outputs that it computes in this pass */
    int parts;                            /* that a step over several nodes is computed in, one after the other */
    double products, attention, row_work; /* seconds of a layer, in the mean of the layers */
    double queries;                       /* of these, the projection to queries */
    size_t *group_rows, *group_keys;      /* [S] rows and keys of the sequence groups */
    size_t *head_first;                   /* [S + 1] heads whose results each needs where weights are split */
} rank_share;

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* q, k, v and o of so many heads. */
static double projection_values(const qwen3_config *c, double heads, double kv_heads)
{
    return (double)c->hidden_size * 2 * (heads + kv_heads) * (double)c->head_dim;
}

/* gate, up and down of so many intermediate outputs. */
static double gated_values(const qwen3_config *c, double gated)
{
    return 3 * (double)c->hidden_size * gated;
}

static double router_values(const qwen3_config *c)
{
    return (double)c->num_experts * (double)c->hidden_size;
}

/* Layers that have experts, as a part of all. */
static double experts_part(const qwen3_config *c)
{
    return (double)config_expert_layers(c) / (double)c->num_layers;
}

/* Query-key pairs of a head that are visible. */
static double visible_pairs(const qwen3_forward_shape *p)
{
    const double tokens = (double)p->tokens;
    return (double)p->batch * tokens * ((double)p->past + (tokens + 1) / 2);
}

double qwen3_forward_flops(const qwen3_config *c, const qwen3_forward_shape *p)
{
    if (!c || !p)
        return 0;
    const double heads = (double)c->num_heads, layers = (double)c->num_layers, batch = (double)p->batch;
    const double with_experts = experts_part(c);
    const double chosen = (double)c->num_experts_per_token * (double)c->moe_intermediate_size;
    const double network = (1 - with_experts) * gated_values(c, (double)c->intermediate_size) +
                           with_experts * (gated_values(c, chosen) + router_values(c));
    const double linear = 2 * (projection_values(c, heads, (double)c->num_kv_heads) + network);
    const double attention = 4 * heads * (double)c->head_dim; /* scores and sums */
    const double head = 2 * (double)c->hidden_size * (double)c->vocab_size;
    return layers * (batch * (double)p->tokens * linear + visible_pairs(p) * attention) + batch * head;
}

/* Of one vector of a head. */
static double kv_vector_bytes(const qwen3_config *c, qwen3_dtype kv_dtype)
{
    const double dim = (double)c->head_dim;
    return kv_dtype == QWEN3_DTYPE_F32 ? 4 * dim : kv_dtype == QWEN3_DTYPE_BF16 ? 2 * dim : dim + 4; /* Q8: a scale */
}

double qwen3_kv_bytes_per_token(const qwen3_config *c, qwen3_dtype kv_dtype)
{
    if (!c || (unsigned)kv_dtype >= QWEN3_KV_TYPES)
        return 0;
    return 2 * (double)c->num_layers * (double)c->num_kv_heads * kv_vector_bytes(c, kv_dtype);
}

/* The widest of the head groups. */
static void share_heads(rank_share *r, const gemm_kernel *gemm)
{
    for (int h = 0; h < r->s->grid_heads; h++) {
        const grid_place place = {r->groups, r->s->grid_heads, 0, h, false};
        const head_shard shard = attention_heads(r->c, place);
        r->heads = larger(r->heads, (double)range_size(shard.heads));
        r->kv_heads = larger(r->kv_heads, (double)range_size(shard.kv_heads));
        r->gated =
            larger(r->gated, (double)range_size(gated_mlp_part(r->c->intermediate_size, gemm_grain(gemm), place)));
        r->expert_gated = larger(
            r->expert_gated, (double)range_size(gated_mlp_part(r->c->moe_intermediate_size, gemm_grain(gemm), place)));
    }
    const double with_experts = experts_part(r->c);
    r->layer_values = projection_values(r->c, r->heads, r->kv_heads) +
                      (1 - with_experts) * gated_values(r->c, r->gated) +
                      with_experts * (double)r->c->num_experts * gated_values(r->c, r->expert_gated);
}

/* The largest of `parts` parts of n outputs. */
static double largest_part(double n, int64_t grain, int parts)
{
    double most = 0;
    for (int i = 0; i < parts; i++)
        most = larger(most, (double)range_size(partition((int64_t)n, grain, parts, i)));
    return most;
}

/* Ranks that a collective is among: so many on each of so many nodes. `sharing` of such groups send from a node. */
typedef struct span {
    int ranks, nodes, per_node, sharing;
} span;

static int ceil_of(int a, int b)
{
    return (a + b - 1) / b;
}

static span head_span(const qwen3_scenario *s)
{
    const int h = s->grid_heads, on_node = s->ranks_per_node;
    const int nodes = h > on_node ? ceil_of(h, on_node) : s->nodes > 1 && on_node % h ? 2 : 1;
    return (span){h, nodes, ceil_of(h, nodes), h > on_node ? 1 : on_node / h};
}

static span sequence_span(const qwen3_scenario *s)
{
    const int groups = s->grid_sequence, h = s->grid_heads, on_node = s->ranks_per_node;
    const int nodes = groups < s->nodes ? groups : s->nodes, per_node = ceil_of(groups, nodes);
    return (span){groups, nodes, per_node, h < on_node ? h : on_node};
}

static bool sums_cross_nodes(const qwen3_scenario *s)
{
    return head_span(s).nodes > 1;
}

static int64_t overlap_min_rows(const qwen3_scenario *s)
{
    if (s->overlap_min_rows)
        return s->overlap_min_rows;
    return sums_cross_nodes(s) ? STEP_OVERLAP_MIN_ROWS_OF_SUMS : STEP_OVERLAP_MIN_ROWS_OF_KEYS;
}

/* Rows in the zigzag of step.c, positions as full as decode keeps them. */
static void share_rows(rank_share *r, const gemm_kernel *gemm)
{
    const int64_t tokens = r->shape.tokens, groups = r->groups, rows = tokens * r->shape.batch;
    const int64_t split_min = 2 * groups > STEP_SPLIT_MIN_ROWS ? 2 * groups : STEP_SPLIT_MIN_ROWS;
    const double dim = (double)r->c->head_dim;
    r->split_weights = groups > 1 && rows < split_min;
    r->parts = r->s->nodes > 1 && rows / groups >= overlap_min_rows(r->s) ? STEP_PARTS : 1;
    for (int64_t g = 0; g < groups; g++) {
        const int64_t first = partition(tokens, 1, 2 * groups, g).end - partition(tokens, 1, 2 * groups, g).begin;
        const int64_t mirror = 2 * groups - 1 - g;
        const int64_t second = range_size(partition(tokens, 1, 2 * groups, mirror));
        const int64_t own = tokens >= groups ? first + second : g < tokens;
        r->group_rows[g] = (size_t)(own * r->shape.batch);
        r->group_keys[g] = (size_t)(range_size(partition(tokens + r->shape.past, 1, groups, g)) * r->shape.batch);
        r->rows = larger(r->rows, (double)r->group_rows[g]);
        r->head_first[g] = (size_t)partition((int64_t)r->heads, 1, groups, g).begin;
    }
    r->head_first[groups] = (size_t)r->heads;
    r->projected = projection_values(r->c, r->heads, r->kv_heads);
    r->own_gated = r->gated;
    r->own_expert_gated = r->expert_gated;
    if (!r->split_weights)
        return;
    r->rows = (double)rows;
    r->group_rows[0] = (size_t)rows; /* replicated */
    const double qkv = (r->heads + 2 * r->kv_heads) * dim;
    r->projected =
        (double)r->c->hidden_size * (largest_part(qkv, attention_grain(gemm->nr, r->c->head_dim), r->groups) +
                                     largest_part(r->heads, 1, r->groups) * dim);
    r->own_gated = largest_part(r->gated, gemm_grain(gemm), r->groups);
    r->own_expert_gated = largest_part(r->expert_gated, gemm_grain(gemm), r->groups);
}

/* ---- Computing --------------------------------------------------------------------------------- */

/* Seconds of `rows` rows times so many weights of one rank. */
static double product_seconds(const rank_share *r, double rows, double values)
{
    const double *rates = r->s->machine->product_values[r->dtype];
    const int last = QWEN3_MACHINE_ROWS - 1;
    if (rows <= 0)
        return 0;
    int i = 0;
    while (i < last && machine_rows[i] < rows)
        i++;
    const double m = machine_rows[i], seconds = 1 / rates[i];
    double each = rows <= m ? seconds : seconds * rows / m; /* beyond the last */
    if (i > 0 && rows <= m) {
        const double below = machine_rows[i - 1], part = (rows - below) / (m - below);
        each = part * seconds + (1 - part) / rates[i - 1];
    }
    return values * each * r->ranks;
}

/* Of the feed-forward network of a layer, in the mean of the layers. Rows are spread evenly over the experts that are
 * expected to be chosen; every rank computes the whole router. */
static double network_seconds(const rank_share *r, double rows)
{
    const double with_experts = experts_part(r->c);
    const double dense = product_seconds(r, rows, gated_values(r->c, r->own_gated));
    if (with_experts == 0)
        return dense;
    const double active = config_active_experts(r->c, rows), each = rows * (double)r->c->num_experts_per_token / active;
    const double experts = active * product_seconds(r, each, gated_values(r->c, r->own_expert_gated)) +
                           product_seconds(r, rows, router_values(r->c));
    return (1 - with_experts) * dense + with_experts * experts;
}

/* Products of a layer; a step in parts reads the weights once for each of them. */
static void set_products(rank_share *r)
{
    const double rows = r->rows / r->parts;
    const double queries = (double)r->c->hidden_size * r->heads * (double)r->c->head_dim;
    r->products = r->parts * (product_seconds(r, rows, r->projected) + network_seconds(r, rows));
    r->queries = r->parts * product_seconds(r, rows, queries);
}

static double attention_seconds(const rank_share *r)
{
    const qwen3_machine *m = r->s->machine;
    const double share = 1.0 / r->groups, per_kv = r->kv_heads > 0 ? r->heads / r->kv_heads : 1;
    const double positions = (double)(r->shape.past + r->shape.tokens) * (r->split_weights ? share : 1);
    const double bytes = (double)r->shape.batch * positions * 2 * r->kv_heads * kv_vector_bytes(r->c, r->kv_dtype);
    const double reading = bytes * r->ranks / m->attention_bytes[r->kv_dtype];
    if ((double)r->shape.tokens * per_kv <= ATTENTION_FEW_QUERIES)
        return reading;
    const int algorithm = r->s->algorithm == QWEN3_ATTENTION_STANDARD ? 0 : 1;
    const double flops = 4 * (double)r->c->head_dim * r->heads * visible_pairs(&r->shape) * share;
    return larger(reading, flops * r->ranks / m->attention_flops[r->kv_dtype][algorithm]);
}

static double row_seconds(const rank_share *r)
{
    const double dim = (double)r->c->head_dim, part = r->split_weights ? 1.0 / r->groups : 1;
    const double with_experts = experts_part(r->c);
    const double gated =
        (1 - with_experts) * r->gated + with_experts * r->expert_gated * (double)r->c->num_experts_per_token;
    const double values = 2 * (double)r->c->hidden_size + ((2 * r->heads + r->kv_heads) * dim + gated) * part;
    return r->rows * values * r->ranks / r->s->machine->row_values;
}

/* ---- Messages ---------------------------------------------------------------------------------- */

static span world_span(const qwen3_scenario *s)
{
    return (span){s->nodes * s->ranks_per_node, s->nodes, s->ranks_per_node, 1};
}

typedef enum collective_kind {
    COLLECTIVE_SUM,      /* bytes: of the vector */
    COLLECTIVE_EXCHANGE, /* bytes: that a rank sends to all others together */
    COLLECTIVE_RING,     /* the same in hops */
} collective_kind;

typedef struct collective {
    collective_kind kind;
    span among;
    double bytes, count;
    int rounds;    /* of one: hops, or collectives that follow each other */
    bool overlaps; /* with the queries' projection and the attention to keys at hand */
} collective;

static double sum_seconds(const qwen3_link *link, int ranks, double bytes, double share)
{
    const double rounds = machine_doublings(ranks), rate = link->bytes_per_second / share;
    const double whole = rounds * (link->latency + bytes / rate);
    const double sliced = 2 * rounds * link->latency + 2.0 * (ranks - 1) / ranks * bytes / rate;
    return bytes * ranks <= (double)GATHER_SUM_BYTES || whole < sliced ? whole : sliced;
}

/* Of one level of a collective that is no sum. */
static double level_seconds(const collective *c, const qwen3_link *link, int ranks, double bytes, double share)
{
    const double latency = c->kind == COLLECTIVE_RING ? link->message : link->latency * machine_doublings(ranks);
    return c->rounds * latency + bytes * share / link->bytes_per_second;
}

static double collective_seconds(const qwen3_machine *m, const collective *c)
{
    const span *a = &c->among;
    double inside = 0, across = 0;
    if (a->ranks == 1)
        return 0;
    if (c->kind == COLLECTIVE_SUM) {
        inside = a->per_node > 1 ? sum_seconds(&m->inside, a->per_node, c->bytes, 1) : 0;
        across = a->nodes > 1 ? sum_seconds(&m->across, a->nodes, c->bytes, a->sharing) : 0;
        return c->count * (inside + across);
    }
    const double others = a->ranks - 1, outside = a->ranks - a->per_node;
    const bool ring = c->kind == COLLECTIVE_RING;
    if (a->per_node > 1)
        inside = level_seconds(c, &m->inside, a->per_node, c->bytes * (ring ? 1 : (others - outside) / others), 1);
    if (a->nodes > 1) {
        /* A ring brings a node once what it does not have, an exchange brings it to each rank. */
        const double copies = c->kind == COLLECTIVE_EXCHANGE ? a->per_node : 1;
        across = level_seconds(c, &m->across, a->nodes, c->bytes * (ring ? 1 : outside / others) * copies, a->sharing);
    }
    return c->count * (ring ? larger(inside, across) : inside + across);
}

movement_prices cost_movement_prices(const qwen3_scenario *s)
{
    const span among = sequence_span(s);
    const qwen3_link *link = among.nodes > 1 ? &s->machine->across : &s->machine->inside;
    const double rate = link->bytes_per_second / (among.nodes > 1 ? among.sharing : 1);
    return (movement_prices){link->latency * machine_doublings(among.ranks) * rate,
                             (link->message + HOP_SECONDS) * rate};
}

/* The movement that the engine chooses, and what it sends. */
static const movement *choose_movement(const rank_share *r, movement_cost *cost)
{
    /* Prices only depend on how many ranks there are, and on whether they share memory. */
    struct qwen3_comm ranks = {.size = r->groups};
    ranks.shm = sequence_span(r->s).nodes == 1 ? (struct shm *)&ranks : NULL;
    const attention_shape shape = {.kernels = r->k,
                                   .kv_type = r->kv_dtype,
                                   .head_dim = (size_t)r->c->head_dim,
                                   .kv_heads = (size_t)r->kv_heads,
                                   .heads_per_kv = (size_t)(r->heads / larger(r->kv_heads, 1)),
                                   .causal = true};
    const movement_prices prices = cost_movement_prices(r->s);
    const attention_problem problem = {.comm = &ranks,
                                       .shape = &shape,
                                       .n_jobs = 1,
                                       .replicated = r->split_weights,
                                       .rows = r->group_rows,
                                       .keys = r->group_keys,
                                       .head_first = r->head_first,
                                       .prices = r->s->priced ? &prices : NULL};
    const movement *chosen = movement_choose(&problem);
    *cost = chosen->cost(&problem);
    return chosen;
}

enum { MOST_MESSAGES = 4 };

/* The collectives of a layer (docs/PARALLEL_STRATEGIES.md, "What is communicated"); returns how many. */
static int layer_messages(const rank_share *r, const movement **chosen, collective list[MOST_MESSAGES])
{
    const double vector = r->rows * (double)r->c->hidden_size * sizeof(float);
    const span among = sequence_span(r->s);
    movement_cost cost;
    int n = 0;
    *chosen = choose_movement(r, &cost);
    if (r->split_weights || r->s->grid_heads > 1)
        list[n++] =
            (collective){COLLECTIVE_SUM, r->split_weights ? world_span(r->s) : head_span(r->s), vector, 2, 1, false};
    if (r->split_weights) {
        /* Queries of all rows to all groups, keys and values of a row to the group that keeps it. */
        const attention_shape shape = {.kernels = r->k, .kv_type = r->kv_dtype};
        const double query = r->heads * (double)dtype_size(attention_gemm(&shape)->activation);
        const double kept = 2 * r->kv_heads / r->groups * sizeof(float);
        const double bytes = (r->groups - 1) * r->rows * (query + kept) * (double)r->c->head_dim / r->groups;
        list[n++] = (collective){COLLECTIVE_EXCHANGE, among, bytes, 1, 1, false};
    }
    if (cost.messages) {
        const collective_kind kind = *chosen == &movement_pass_kv ? COLLECTIVE_RING : COLLECTIVE_EXCHANGE;
        list[n++] = (collective){kind, among, cost.bytes / r->groups, 1, cost.messages, cost.overlaps};
    }
    return n;
}

/* Bytes that one rank sends. */
static double sent_bytes(const collective *c)
{
    const double ranks = c->among.ranks;
    return c->count * (c->kind == COLLECTIVE_SUM ? 2 * (ranks - 1) / ranks * c->bytes : c->bytes);
}

/* Seconds of a collective that overlap where a step is computed in one part: at most the time until the queries are
 * there and, of keys that are at hand or came before, that of the attention to them. */
static double overlapped_alone(const rank_share *r, const collective *c, double seconds)
{
    if (!c->overlaps)
        return 0;
    const double shards = c->kind == COLLECTIVE_RING ? c->rounds : 1;
    const double window = (c->among.nodes > 1 ? r->queries : 0) + r->attention * shards / r->groups;
    return seconds < window ? seconds : window;
}

/* Adds what all layers send. Where a step is computed in two parts, messages of one between nodes go on while the other
 * is computed, but for those of the last part at the end. */
static void add_messages(const rank_share *r, qwen3_prediction *p)
{
    const double layers = (double)r->c->num_layers, computing = r->products + r->attention + r->row_work;
    const movement *chosen;
    collective list[MOST_MESSAGES];
    const int n = layer_messages(r, &chosen, list);
    const qwen3_machine *m = r->s->machine;
    const double cores = (double)m->threads * m->ranks_per_node / r->ranks;
    double seconds = 0, overlapped = 0, across = 0; /* of a layer */
    p->movement = chosen->name;
    for (int i = 0; i < n; i++) {
        const double each = collective_seconds(r->s->machine, &list[i]);
        const bool in_parts = r->parts > 1 && list[i].among.nodes > 1;
        const double beside = in_parts ? each : overlapped_alone(r, &list[i], each);
        seconds += each;
        if (in_parts)
            across += each;
        else
            overlapped += beside;
        if (list[i].among.nodes > 1)
            p->messages += layers * beside / each * sent_bytes(&list[i]) * BYTE_SECONDS / cores;
        if (list[i].kind == COLLECTIVE_RING)
            p->messages += layers * list[i].rounds * HOP_SECONDS;
        p->sent_bytes += layers * sent_bytes(&list[i]);
        p->messages_per_layer += list[i].count * list[i].rounds;
    }
    overlapped += across < computing ? across : computing;
    p->overlapped = layers * overlapped;
    p->messages += layers * (seconds - overlapped) + (r->parts > 1 ? across / r->parts : 0);
    const collective small = {COLLECTIVE_SUM, world_span(r->s), 16, STEP_COLLECTIVES, 1, false};
    p->messages += collective_seconds(r->s->machine, &small);
}

/* ---- The prediction ---------------------------------------------------------------------------- */

static qwen3_status check(const qwen3_scenario *s, const rank_share *r, qwen3_error *err)
{
    const qwen3_forward_shape *p = &r->shape;
    const int64_t ranks = (int64_t)s->nodes * s->ranks_per_node;
    if (s->nodes < 1 || s->ranks_per_node < 1 || s->grid_sequence < 1 || s->grid_heads < 1 ||
        (int64_t)s->grid_sequence * s->grid_heads != ranks || ranks > MACHINE_MOST_RANKS)
        return fail(err, QWEN3_ERR_ARGUMENT, "prediction: grid %dx%d on %d nodes of %d ranks; expected S x H = ranks",
                    s->grid_sequence, s->grid_heads, s->nodes, s->ranks_per_node);
    if (p->batch < 1 || p->batch > INT32_MAX || p->tokens < 1 || p->tokens > INT32_MAX || p->past < 0 ||
        p->past > INT32_MAX)
        return fail(err, QWEN3_ERR_ARGUMENT,
                    "prediction: %lld sequences, %lld tokens after %lld; expected at least 1, 1 and 0, at most %d",
                    (long long)p->batch, (long long)p->tokens, (long long)p->past, INT32_MAX);
    if (dtype_check(s->dtype, err))
        return err->status;
    if ((unsigned)r->kv_dtype >= QWEN3_KV_TYPES)
        return fail(err, QWEN3_ERR_ARGUMENT, "kv_dtype %d: expected auto, f32, bf16 or q8", (int)s->kv_dtype);
    if ((unsigned)s->algorithm > QWEN3_ATTENTION_ONLINE_SOFTMAX)
        return fail(err, QWEN3_ERR_ARGUMENT, "algorithm %d is unknown", (int)s->algorithm);
    if (s->machine->product_values[r->dtype][0] <= 0 || s->machine->attention_bytes[r->kv_dtype] <= 0 ||
        s->machine->attention_flops[r->kv_dtype][0] <= 0)
        return fail(err, QWEN3_ERR_ARGUMENT,
                    "prediction: the machine has no rates for %s weights with %s keys; expected a measurement of them",
                    qwen3_dtype_name(r->dtype), qwen3_dtype_name(r->kv_dtype));
    return QWEN3_OK;
}

/* Bytes that the fullest rank holds; the ranks of a sequence group on one node share a copy of the layers. */
static void add_memory(const rank_share *r, const gemm_kernel *gemm, qwen3_prediction *p)
{
    const double value_bytes = (double)gemm->group_bytes / gemm->kr, ranks = (double)r->groups * r->s->grid_heads;
    const double head = (double)r->c->vocab_size * (double)r->c->hidden_size / ranks;
    const double layers = (double)r->c->num_layers * r->layer_values / sequence_span(r->s).per_node;
    const double routers = (double)config_expert_layers(r->c) * router_values(r->c);
    p->weight_bytes = (layers + head) * value_bytes + routers * sizeof(float);
    const double pages = (double)r->shape.batch * (double)kv_blocks_for(r->group_keys[0] / (size_t)r->shape.batch);
    p->kv_bytes =
        pages * KV_BLOCK * qwen3_kv_bytes_per_token(r->c, r->kv_dtype) * r->kv_heads / (double)r->c->num_kv_heads;
}

static void predict(rank_share *r, qwen3_prediction *p)
{
    const double layers = (double)r->c->num_layers, ranks = (double)r->groups * r->s->grid_heads;
    const gemm_kernel *gemm = &r->k->gemm[r->dtype];
    share_heads(r, gemm);
    share_rows(r, gemm);
    set_products(r);
    r->attention = attention_seconds(r);
    r->row_work = row_seconds(r);
    p->products = layers * r->products + product_seconds(r, (double)r->shape.batch,
                                                         (double)r->c->vocab_size * (double)r->c->hidden_size / ranks);
    p->attention = layers * r->attention;
    p->rows = layers * r->row_work;
    p->barriers = layers * LAYER_BARRIERS * r->s->machine->barrier;
    if (ranks > 1)
        add_messages(r, p);
    else
        p->movement = movement_local.name;
    p->seconds = p->products + p->attention + p->rows + p->barriers + p->messages;
    add_memory(r, gemm, p);
}

/* The scenario with steps in one part, or in two. */
static qwen3_scenario in_parts(const qwen3_scenario *s, int parts)
{
    qwen3_scenario other = *s;
    other.overlap_min_rows = parts == 1 ? INT32_MAX : STEP_PARTS;
    return other;
}

/* The better of one part and two. */
static qwen3_status predict_best(const qwen3_scenario *s, const qwen3_forward_shape *shape,
                                 qwen3_prediction *prediction, qwen3_error *err)
{
    const qwen3_scenario whole = in_parts(s, 1), parts = in_parts(s, 2);
    qwen3_prediction other;
    if (qwen3_predict(&whole, shape, prediction, err) || qwen3_predict(&parts, shape, &other, err))
        return err->status;
    if (other.seconds < prediction->seconds)
        *prediction = other;
    return QWEN3_OK;
}

qwen3_status qwen3_predict(const qwen3_scenario *s, const qwen3_forward_shape *shape, qwen3_prediction *prediction,
                           qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(s, "scenario", err) || missing(shape, "shape", err) || missing(prediction, "prediction", err))
        return err->status;
    *prediction = (qwen3_prediction){0};
    if (missing(s->config, "config", err) || missing(s->machine, "machine", err) ||
        config_check(s->config, "config", err) || machine_check(s->machine, err))
        return err->status;
    if (s->overlap_min_rows < 0)
        return predict_best(s, shape, prediction, err);
    rank_share r = {.s = s, .c = s->config, .shape = *shape, .groups = s->grid_sequence, .ranks = s->ranks_per_node};
    r.dtype = s->dtype == QWEN3_DTYPE_AUTO ? QWEN3_DTYPE_BF16 : s->dtype;
    r.kv_dtype = s->kv_dtype == QWEN3_DTYPE_AUTO ? machine_kv_type(r.dtype) : s->kv_dtype;
    if (check(s, &r, err))
        return err->status;
    r.k = kernels_get(s->machine->isa);
    if (!r.k) /* of another processor */
        kernels_choose(QWEN3_ISA_AUTO, &r.k, err);
    const size_t groups = (size_t)r.groups;
    size_t *tables = calloc(3 * groups + 1, sizeof *tables);
    if (!tables)
        fail(err, QWEN3_ERR_MEMORY, "no memory for a table of %d groups", r.groups);
    if (!err->status) {
        r.group_rows = tables;
        r.group_keys = tables + groups;
        r.head_first = tables + 2 * groups;
        predict(&r, prediction);
    }
    free(tables);
    return err->status;
}

double cost_seconds(const qwen3_scenario *s, cost_phases phases)
{
    qwen3_prediction prefill = {0}, decode = {0};
    const qwen3_forward_shape prompt = {1, phases.prompt, 0}, next = {1, 1, phases.prompt + phases.generate / 2};
    if ((phases.prompt && qwen3_predict(s, &prompt, &prefill, NULL)) ||
        (phases.generate && qwen3_predict(s, &next, &decode, NULL)))
        return INFINITY;
    return prefill.seconds + (double)phases.generate * decode.seconds;
}

int64_t cost_overlap_min_rows(const qwen3_scenario *s)
{
    const qwen3_scenario whole = in_parts(s, 1), parts = in_parts(s, 2);
    for (int64_t rows = 128; rows <= 32768; rows *= 2) {
        const cost_phases prompt = {rows * s->grid_sequence, 0};
        if (cost_seconds(&parts, prompt) < cost_seconds(&whole, prompt))
            return rows;
    }
    return INT32_MAX;
}
