/* plan.c - --plan: every test, grid and algorithm on ranks that may be somewhere else, predicted. */
#include <math.h>
#include <stdlib.h>

#include "benchmark.h"
#include "common/program.h"

typedef struct planned {
    result_origin origin;
    char model[64], dtype[8], test[64], strategy[16], grid[24], algorithm[24], movement[24], best[8];
    double nodes, ranks_per_node, prompt, depth, generate, batch;
    double prefill_ms, step_ms, ts;
    double one_node; /* speed over the best grid of one such node */
    double products_ms, attention_ms, rows_ms, barriers_ms, messages_ms, overlapped_ms; /* of the prompt or the step */
    double layer_bytes, layer_messages, weight_bytes, kv_bytes;
} planned;

#define AT(member) offsetof(planned, member)
#define RAW NULL, 1, NULL, 0
#define SHOWN 1u
static const field fields[] = {
    ORIGIN_FIELDS(AT(origin)),
    {"model", NULL, AT(model), TEXT, RAW},
    {"dtype", NULL, AT(dtype), TEXT, NULL, 1, "dtype", SHOWN},
    {"nodes", NULL, AT(nodes), NUMBER, NULL, 1, NULL, 0},
    {"ranks_per_node", NULL, AT(ranks_per_node), NUMBER, NULL, 1, NULL, 0},
    {"prompt", NULL, AT(prompt), NUMBER, RAW},
    {"generate", NULL, AT(generate), NUMBER, RAW},
    {"depth", NULL, AT(depth), NUMBER, RAW},
    {"batch", NULL, AT(batch), NUMBER, RAW},
    {"test", NULL, AT(test), TEXT, NULL, 1, "test", SHOWN | ALIGN_LEFT},
    {"strategy", NULL, AT(strategy), TEXT, NULL, 1, "strategy", SHOWN | ALIGN_LEFT},
    {"grid", NULL, AT(grid), TEXT, NULL, 1, "grid", SHOWN},
    {"algorithm", NULL, AT(algorithm), TEXT, NULL, 1, "algorithm", SHOWN | ALIGN_LEFT},
    {"movement", NULL, AT(movement), TEXT, NULL, 1, "movement", SHOWN | ALIGN_LEFT},
    {"predicted_prefill_ms", NULL, AT(prefill_ms), NUMBER, "%.2f", 1, "prefill ms", SHOWN},
    {"predicted_step_ms", NULL, AT(step_ms), NUMBER, "%.3f", 1, "step ms", SHOWN},
    {"predicted_ts", NULL, AT(ts), NUMBER, "%.2f", 1, "t/s", SHOWN},
    {"best", NULL, AT(best), TEXT, NULL, 1, "auto", SHOWN | ALIGN_LEFT},
    {"over_one_node", NULL, AT(one_node), NUMBER, "%.2f", 1, "over one node", SHOWN},
    {"products_ms", NULL, AT(products_ms), NUMBER, "%.2f", 1, "products", SHOWN},
    {"attention_ms", NULL, AT(attention_ms), NUMBER, "%.2f", 1, "attention", SHOWN},
    {"rows_ms", NULL, AT(rows_ms), NUMBER, "%.2f", 1, "rows", SHOWN},
    {"barriers_ms", NULL, AT(barriers_ms), NUMBER, RAW},
    {"messages_ms", NULL, AT(messages_ms), NUMBER, "%.2f", 1, "messages", SHOWN},
    {"overlapped_ms", NULL, AT(overlapped_ms), NUMBER, "%.2f", 1, "overlapped", SHOWN},
    {"messages_per_layer", NULL, AT(layer_messages), NUMBER, "%.0f", 1, "messages/layer", SHOWN},
    {"bytes_per_layer", NULL, AT(layer_bytes), NUMBER, "%.1f", 1 / 1024.0, "KiB/layer", SHOWN},
    {"weight_bytes", NULL, AT(weight_bytes), NUMBER, "%.0f", 1 / 1048576.0, "weights MiB", SHOWN},
    {"kv_bytes", NULL, AT(kv_bytes), NUMBER, "%.0f", 1 / 1048576.0, "KV MiB", SHOWN},
};
enum { FIELDS = sizeof fields / sizeof *fields };

typedef struct plan {
    const benchmark *b;
    qwen3_scenario scenario; /* without a grid */
    planned *rows;
    size_t n, room;
} plan;

static qwen3_parallel_strategy strategy_of(int s, int h)
{
    return s == 1 ? QWEN3_STRATEGY_HEAD_WISE : h == 1 ? QWEN3_STRATEGY_SEQUENCE : QWEN3_STRATEGY_HYBRID;
}

static double tokens_per_second(const benchmark_test *t, const predicted_times *times)
{
    return t->batch * ((double)test_prompt(t) + t->generate) / (times->prefill + t->generate * times->step);
}

static void describe(const plan *p, const benchmark_test *t, const qwen3_scenario *s, planned *row)
{
    origin_describe(&row->origin, &p->b->machine);
    snprintf(row->model, sizeof row->model, "%s", p->b->o.spec);
    snprintf(row->dtype, sizeof row->dtype, "%s", qwen3_dtype_name(s->dtype));
    test_name(t, row->test, sizeof row->test);
    snprintf(row->strategy, sizeof row->strategy, "%s",
             qwen3_strategy_name(strategy_of(s->grid_sequence, s->grid_heads)));
    snprintf(row->grid, sizeof row->grid, "%dx%d", s->grid_sequence, s->grid_heads);
    snprintf(row->algorithm, sizeof row->algorithm, "%s", qwen3_algorithm_name(s->algorithm));
    row->nodes = s->nodes;
    row->ranks_per_node = s->ranks_per_node;
    row->prompt = test_prompt(t);
    row->generate = t->generate;
    row->depth = test_depth(t);
    row->batch = t->batch;
}

static qwen3_status predict(const plan *p, const benchmark_test *t, const qwen3_scenario *s, planned *row,
                            qwen3_error *err)
{
    predicted_times times;
    qwen3_prediction d;
    if (predict_times(s, t, &times, &d, err) != QWEN3_OK)
        return err->status;
    const double layers = (double)p->b->config.num_layers;
    record_clear(fields, FIELDS, row, sizeof *row);
    describe(p, t, s, row);
    if (test_prompt(t))
        row->prefill_ms = 1e3 * times.prefill;
    if (t->generate)
        row->step_ms = 1e3 * times.step;
    row->ts = tokens_per_second(t, &times);
    row->products_ms = 1e3 * d.products;
    row->attention_ms = 1e3 * d.attention;
    row->rows_ms = 1e3 * d.rows;
    row->barriers_ms = 1e3 * d.barriers;
    row->messages_ms = 1e3 * d.messages;
    row->overlapped_ms = 1e3 * d.overlapped;
    row->layer_messages = d.messages_per_layer;
    row->layer_bytes = d.sent_bytes / layers;
    row->weight_bytes = d.weight_bytes;
    row->kv_bytes = d.kv_bytes;
    snprintf(row->movement, sizeof row->movement, "%s", d.movement);
    return QWEN3_OK;
}

static qwen3_dtype dtype_of(const benchmark_test *t)
{
    return t->dtype == QWEN3_DTYPE_AUTO ? QWEN3_DTYPE_BF16 : t->dtype;
}

static bool wanted(const int_list *algorithms, qwen3_attention_algorithm algorithm)
{
    for (size_t i = 0; i < algorithms->n; i++)
        if (algorithms->values[i] == QWEN3_ATTENTION_AUTO || algorithms->values[i] == (int)algorithm)
            return true;
    return false;
}

/* Tokens per second of the best grid of one node. */
static double one_node(const plan *p, const benchmark_test *t)
{
    const int ranks = p->scenario.ranks_per_node;
    double best = 0;
    for (int s = 1; s <= ranks; s++) {
        predicted_times times;
        qwen3_prediction details;
        qwen3_error err = {0};
        qwen3_scenario alone = p->scenario;
        alone.dtype = dtype_of(t);
        alone.nodes = 1;
        alone.grid_sequence = s;
        alone.grid_heads = ranks / s;
        alone.algorithm = QWEN3_ATTENTION_ONLINE_SOFTMAX;
        if (ranks % s == 0 && predict_times(&alone, t, &times, &details, &err) == QWEN3_OK)
            best = fmax(best, tokens_per_second(t, &times));
    }
    return best;
}

/* All grids with the algorithms that are asked for. */
static qwen3_status plan_test(plan *p, const benchmark_test *t, qwen3_error *err)
{
    static const qwen3_attention_algorithm both[] = {QWEN3_ATTENTION_ONLINE_SOFTMAX, QWEN3_ATTENTION_STANDARD};
    const int ranks = p->scenario.nodes * p->scenario.ranks_per_node;
    const double alone = one_node(p, t);
    const size_t first = p->n;
    size_t best = first;
    for (int a = 0; a < 2; a++)
        for (int s = 1; s <= ranks; s++) {
            if (ranks % s != 0 || !wanted(&p->b->o.algorithms, both[a]))
                continue;
            qwen3_scenario scenario = p->scenario;
            scenario.dtype = dtype_of(t);
            scenario.grid_sequence = s;
            scenario.grid_heads = ranks / s;
            scenario.algorithm = both[a];
            planned *row = &p->rows[p->n++];
            if (predict(p, t, &scenario, row, err) != QWEN3_OK)
                return err->status;
            row->one_node = row->ts / alone;
            if (row->ts > p->rows[best].ts)
                best = p->n - 1;
        }
    snprintf(p->rows[best].best, sizeof p->rows[best].best, "best");
    return QWEN3_OK;
}

static qwen3_status print(const plan *p, qwen3_error *err)
{
    const record_list list = {fields, FIELDS, p->rows, sizeof *p->rows, p->n};
    const output_format format = (output_format)p->b->o.output;
    qwen3_status status = QWEN3_OK;
    if (format == OUTPUT_CSV) {
        records_print_csv(stdout, &list);
    } else if (format == OUTPUT_JSON || format == OUTPUT_JSONL) {
        status = json_print(stdout, records_json(&list), format == OUTPUT_JSONL, err);
    } else {
        grid g;
        printf("%d node%s of %d rank%s: %.3g Gbit/s, %.3g us between nodes\n\n", p->scenario.nodes,
               p->scenario.nodes == 1 ? "" : "s", p->scenario.ranks_per_node,
               p->scenario.ranks_per_node == 1 ? "" : "s", 8e-9 * p->scenario.machine->across.bytes_per_second,
               1e6 * p->scenario.machine->across.latency);
        status = grid_rows(&g, &list, SHOWN, err);
        if (status == QWEN3_OK)
            grid_print(stdout, &g, format == OUTPUT_MD);
        grid_free(&g);
    }
    return status == QWEN3_OK ? flush_output(stdout, "standard output", err) : status;
}

/* On rank 0. */
static qwen3_status print_plan(benchmark *b, const qwen3_machine *machine, qwen3_error *err)
{
    plan p = {.b = b};
    p.scenario = (qwen3_scenario){.config = &b->config,
                                  .machine = machine,
                                  .nodes = b->o.nodes ? b->o.nodes : machine->nodes,
                                  .ranks_per_node = b->o.ranks_per_node ? b->o.ranks_per_node : machine->ranks_per_node,
                                  .kv_dtype = b->o.arguments.model.kv_dtype,
                                  .priced = true,
                                  .overlap_min_rows = b->o.arguments.session.overlap_min_rows};
    if (p.scenario.overlap_min_rows == 0)
        p.scenario.overlap_min_rows = -1;
    const int ranks = p.scenario.nodes * p.scenario.ranks_per_node;
    for (int s = 1; s <= ranks; s++)
        p.room += ranks % s == 0;
    p.room *= 2 * b->list.n;
    p.rows = allocate(p.room, sizeof *p.rows, "predictions", err);
    for (size_t i = 0; p.rows && i < b->list.n && err->status == QWEN3_OK; i++)
        if ((int)b->list.tests[i].algorithm == b->o.algorithms.values[0]) /* the others are beside it */
            plan_test(&p, &b->list.tests[i], err);
    if (err->status == QWEN3_OK)
        print(&p, err);
    free(p.rows);
    return err->status;
}

qwen3_status plan_run(benchmark *b, qwen3_error *err)
{
    const qwen3_model_options *o = &b->o.arguments.model;
    qwen3_machine machine;
    qwen3_status status = qwen3_comm_topology(b->world, &b->machine, err);
    if (o->machine)
        machine = *o->machine;
    else if (status == QWEN3_OK)
        status = qwen3_machine_measure(b->world, o->threads, o->isa,
                                       b->o.dtypes.n > 1 ? QWEN3_DTYPE_AUTO : dtype_of(b->list.tests), &machine, err);
    if (status != QWEN3_OK)
        return status;
    if (b->o.network)
        machine.across = b->o.across;
    if (qwen3_comm_rank(b->world) == 0)
        print_plan(b, &machine, err);
    return qwen3_comm_agree(b->world, err);
}
