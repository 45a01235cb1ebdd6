/* test_api.c - misuses of the C interface: each argument NULL, each enum out of its range, counts that are negative,
 * zero or huge, calls in the wrong order, and what is open after a failure. Run on 1 rank and on several.
 *
 * A case names the function, what it must return and what the message must say. functions.sh compares the functions
 * that have a case with those that the library exports. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qwen3.h"
#include "qwen3_grammar.h"
#include "qwen3_scheduler.h"
#ifdef QWEN3_WITH_MPI
#include "qwen3_mpi.h"
#endif

static qwen3_comm *world;
static qwen3_error err;
static int cases, failures;

/* Functions that have a case. */
static const char *covered[256];
static int n_covered;

static void cover(const char *function)
{
    for (int i = 0; i < n_covered; i++)
        if (strcmp(covered[i], function) == 0)
            return;
    covered[n_covered++] = function;
}

/* What an earlier call left in the error must not be taken for the outcome of this one. */
static void begin_case(const char *function)
{
    cover(function);
    cases++;
    err = (qwen3_error){.status = QWEN3_ERR_IO, .message = "stale"};
}

static void refused(int line, const char *call, qwen3_status got, qwen3_status expected, const char *text)
{
    if (got == expected && err.status == expected && strstr(err.message, text))
        return;
    failures++;
    printf("line %d: %s: got \"%s\": %s; expected \"%s\" with \"%s\"\n", line, call, qwen3_status_name(got),
           err.message, qwen3_status_name(expected), text);
}

static void holds(int line, const char *what, bool condition)
{
    if (condition)
        return;
    failures++;
    printf("line %d: %s does not hold\n", line, what);
}

/* The call fails with this status and this text in its message, and with the status alone where nobody wants a message.
 * The error is its last argument. */
#define REFUSED(status, text, function, ...)                                                                           \
    do {                                                                                                               \
        begin_case(#function);                                                                                         \
        const qwen3_status got = function(__VA_ARGS__, &err);                                                          \
        refused(__LINE__, #function "(" #__VA_ARGS__ ")", got, QWEN3_ERR_##status, text);                              \
        holds(__LINE__, #function "(" #__VA_ARGS__ ", NULL)", function(__VA_ARGS__, NULL) == got);                     \
    } while (0)

#define WORKS(function, ...)                                                                                           \
    do {                                                                                                               \
        begin_case(#function);                                                                                         \
        refused(__LINE__, #function "(" #__VA_ARGS__ ")", function(__VA_ARGS__, &err), QWEN3_OK, "");                  \
    } while (0)

/* A function without a status returns this. */
#define RETURNS(expected, function, ...)                                                                               \
    do {                                                                                                               \
        begin_case(#function);                                                                                         \
        holds(__LINE__, #function "(" #__VA_ARGS__ ") == " #expected, function(__VA_ARGS__) == (expected));            \
    } while (0)

#define NAMES(expected, function, ...)                                                                                 \
    do {                                                                                                               \
        begin_case(#function);                                                                                         \
        holds(__LINE__, #function "(" #__VA_ARGS__ ")", strcmp(function(__VA_ARGS__), expected) == 0);                 \
    } while (0)

/* A function without a result returns at all. */
#define RETURNS_FROM(function, ...)                                                                                    \
    do {                                                                                                               \
        begin_case(#function);                                                                                         \
        function(__VA_ARGS__);                                                                                         \
    } while (0)

#define HOLDS(condition) holds(__LINE__, #condition, condition)

/* ---- Names ------------------------------------------------------------------------------------- */

static void test_names(void)
{
    qwen3_parallel_strategy strategy = QWEN3_STRATEGY_HYBRID;
    qwen3_attention_algorithm algorithm = QWEN3_ATTENTION_STANDARD;
    qwen3_dtype dtype = QWEN3_DTYPE_Q4;
    qwen3_isa isa = QWEN3_ISA_C;
    NAMES("unknown status", qwen3_status_name, (qwen3_status)99);
    NAMES("unknown status", qwen3_status_name, (qwen3_status)-1);
    NAMES("unknown", qwen3_strategy_name, (qwen3_parallel_strategy)99);
    NAMES("unknown", qwen3_algorithm_name, (qwen3_attention_algorithm)-1);
    NAMES("unknown", qwen3_dtype_name, (qwen3_dtype)-2);
    NAMES("unknown", qwen3_dtype_name, (qwen3_dtype)4);
    NAMES("unknown", qwen3_isa_name, (qwen3_isa)99);
    NAMES("unknown", qwen3_isa_name, (qwen3_isa)-1);
    NAMES("unknown", qwen3_comm_kind_name, (qwen3_comm_kind)-1);
    NAMES("unknown", qwen3_comm_kind_name, QWEN3_COMM_KINDS);
    RETURNS(false, qwen3_strategy_parse, NULL, &strategy);
    RETURNS(false, qwen3_strategy_parse, "auto", NULL);
    RETURNS(false, qwen3_strategy_parse, "", &strategy);
    RETURNS(false, qwen3_algorithm_parse, NULL, &algorithm);
    RETURNS(false, qwen3_algorithm_parse, "auto", NULL);
    RETURNS(false, qwen3_dtype_parse, NULL, &dtype);
    RETURNS(false, qwen3_dtype_parse, "bf16", NULL);
    RETURNS(false, qwen3_isa_parse, NULL, &isa);
    RETURNS(false, qwen3_isa_parse, "c", NULL);
    HOLDS(strategy == QWEN3_STRATEGY_HYBRID && algorithm == QWEN3_ATTENTION_STANDARD);
    HOLDS(dtype == QWEN3_DTYPE_Q4 && isa == QWEN3_ISA_C);
    RETURNS(qwen3_isa_best(), qwen3_isa_best);
    NAMES(QWEN3_VERSION, qwen3_version);
}

/* ---- Ranks ------------------------------------------------------------------------------------- */

static void test_ranks(void)
{
    const int size = qwen3_comm_size(world), rank = qwen3_comm_rank(world);
    qwen3_comm *again = NULL;
    qwen3_comm_stats stats = {.calls = {7}};
    qwen3_rank_info info;
    double value = 1;
    char byte = 1, *bytes = calloc((size_t)size, 1);
    REFUSED(ARGUMENT, "world is NULL", qwen3_init, NULL, NULL, NULL);
    WORKS(qwen3_init, NULL, NULL, &again);
    HOLDS(again == world);
    RETURNS(1, qwen3_comm_size, qwen3_comm_self());
    RETURNS(0, qwen3_comm_rank, qwen3_comm_self());
    cover("qwen3_comm_self");
    RETURNS(0, qwen3_comm_rank, NULL);
    RETURNS(0, qwen3_comm_size, NULL);
    RETURNS_FROM(qwen3_comm_barrier, NULL);
    RETURNS_FROM(qwen3_comm_max, NULL, &value, 1);
    RETURNS_FROM(qwen3_comm_max, world, NULL, 1);
    RETURNS_FROM(qwen3_comm_max, world, NULL, 0);
    RETURNS_FROM(qwen3_comm_broadcast, NULL, &byte, 1);
    RETURNS_FROM(qwen3_comm_broadcast, world, NULL, 1);
    RETURNS_FROM(qwen3_comm_gather, NULL, &byte, 1, bytes);
    RETURNS_FROM(qwen3_comm_gather, world, NULL, 1, bytes);
    RETURNS_FROM(qwen3_comm_gather, world, NULL, 0, NULL);
    RETURNS_FROM(qwen3_comm_get_stats, NULL, &stats);
    RETURNS_FROM(qwen3_comm_get_stats, world, NULL);
    HOLDS(value == 1 && byte == 1 && stats.calls[0] == 0);
    REFUSED(ARGUMENT, "comm is NULL", qwen3_comm_topology, NULL, &info);
    REFUSED(ARGUMENT, "info is NULL", qwen3_comm_topology, world, NULL);
    REFUSED(ARGUMENT, "comm is NULL", qwen3_comm_bind, NULL);
    RETURNS(rank == 0, qwen3_ranks_here, NULL, 100);
    RETURNS(rank == 0, qwen3_ranks_here, &byte, 0);
    HOLDS(byte == 1);

    begin_case("qwen3_comm_agree");
    err = (qwen3_error){0};
    refused(__LINE__, "qwen3_comm_agree(NULL)", qwen3_comm_agree(NULL, &err), QWEN3_ERR_ARGUMENT, "comm is NULL");
    RETURNS(QWEN3_ERR_ARGUMENT, qwen3_comm_agree, NULL, NULL);
    RETURNS(QWEN3_ERR_ARGUMENT, qwen3_comm_agree, world, NULL);
    /* A rank that forgets its error does not leave the others waiting, which learn of it. */
    err = (qwen3_error){0};
    const qwen3_status status = qwen3_comm_agree(world, rank == size - 1 ? NULL : &err);
    HOLDS(status == QWEN3_ERR_ARGUMENT && (rank == size - 1 || err.rank == size - 1));
    free(bytes);
}

/* qwen3_comm_compare keeps a failure that is there before. */
static void refuse_comparison(int line, qwen3_comm *c, const char *subject, const qwen3_comm_item *items, size_t n,
                              const char *advice, const char *text)
{
    begin_case("qwen3_comm_compare");
    err = (qwen3_error){0};
    refused(line, "qwen3_comm_compare", qwen3_comm_compare(c, subject, items, n, advice, &err), QWEN3_ERR_ARGUMENT,
            text);
}

static void test_compare(void)
{
    const qwen3_comm_item items[] = {{"a", "1"}, {"b", "2"}};
    refuse_comparison(__LINE__, NULL, "s", items, 2, "a", "comm is NULL");
    refuse_comparison(__LINE__, world, NULL, items, 2, "a", "subject is NULL");
    refuse_comparison(__LINE__, world, "s", NULL, 2, "a", "items is NULL");
    refuse_comparison(__LINE__, world, "s", items, 2, NULL, "advice is NULL");
    err = (qwen3_error){0};
    HOLDS(qwen3_comm_compare(world, "s", items, 2, "a", &err) == QWEN3_OK);
    HOLDS(qwen3_comm_compare(world, "s", NULL, 0, "a", &err) == QWEN3_OK);
    HOLDS(qwen3_comm_compare(world, "s", items, 2, "a", NULL) == QWEN3_ERR_ARGUMENT);
}

/* ---- Configuration, estimates ------------------------------------------------------------------ */

static qwen3_config tiny_config(void)
{
    qwen3_config config;
    WORKS(qwen3_config_read, "synthetic:tiny", &config);
    return config;
}

/* Estimates of a list of tensors. */
static void test_tensor_estimate(void)
{
    const qwen3_config tiny = tiny_config();
    qwen3_config overflowing = tiny;
    qwen3_tensor_info *tensors = NULL;
    size_t n;
    overflowing.num_layers = overflowing.num_kv_heads = INT64_MAX;
    const uint64_t bf16 = qwen3_memory_estimate(&tiny, QWEN3_STRATEGY_SEQUENCE, 2, 1, QWEN3_DTYPE_BF16);
    HOLDS(qwen3_model_tensors("synthetic:tiny", &tensors, &n, NULL) == QWEN3_OK && n > 3);
    RETURNS(bf16, qwen3_memory_estimate_tensors, &tiny, tensors, n, QWEN3_STRATEGY_SEQUENCE, 2, 1);
    RETURNS(0, qwen3_memory_estimate_tensors, NULL, tensors, n, QWEN3_STRATEGY_SEQUENCE, 2, 1);
    RETURNS(0, qwen3_memory_estimate_tensors, &tiny, NULL, n, QWEN3_STRATEGY_SEQUENCE, 2, 1);
    RETURNS(0, qwen3_memory_estimate_tensors, &tiny, tensors, n, QWEN3_STRATEGY_SEQUENCE, 0, 1);
    RETURNS(0, qwen3_memory_estimate_tensors, &tiny, tensors, n, (qwen3_parallel_strategy)99, 2, 1);
    RETURNS(0, qwen3_memory_estimate_tensors, &overflowing, tensors, n, QWEN3_STRATEGY_SEQUENCE, 2, 1);
    memcpy(tensors[2].held, "Q9_Z", sizeof "Q9_Z");
    RETURNS(0, qwen3_memory_estimate_tensors, &tiny, tensors, n, QWEN3_STRATEGY_SEQUENCE, 2, 1);
    tensors[2].name[0] = 'x';
    RETURNS(0, qwen3_memory_estimate_tensors, &tiny, tensors, n, QWEN3_STRATEGY_SEQUENCE, 2, 1);
    free(tensors);
}

static void test_config(void)
{
    const qwen3_config tiny = tiny_config(), empty = {0};
    qwen3_config config = tiny, overflowing = tiny;
    qwen3_tensor_info *tensors = NULL;
    size_t n;
    overflowing.num_layers = overflowing.num_kv_heads = INT64_MAX;
    REFUSED(ARGUMENT, "spec is NULL", qwen3_config_read, NULL, &config);
    HOLDS(config.vocab_size == 0);
    REFUSED(ARGUMENT, "config is NULL", qwen3_config_read, "synthetic:tiny", NULL);
    REFUSED(ARGUMENT, "unknown size", qwen3_config_read, "synthetic:", &config);
    REFUSED(IO, "config.json", qwen3_config_read, "", &config);
    REFUSED(ARGUMENT, "spec is NULL", qwen3_model_tensors, NULL, &tensors, &n);
    REFUSED(ARGUMENT, "tensors is NULL", qwen3_model_tensors, "synthetic:tiny", NULL, &n);
    REFUSED(ARGUMENT, "n is NULL", qwen3_model_tensors, "synthetic:tiny", &tensors, NULL);
    HOLDS(tensors == NULL);
    REFUSED(ARGUMENT, "model is NULL", qwen3_model_held_tensors, NULL, &tensors, &n);
    REFUSED(ARGUMENT, "tensors is NULL", qwen3_model_held_tensors, NULL, NULL, &n);
    HOLDS(tensors == NULL && n == 0);

    qwen3_config mixture = overflowing;
    mixture.num_experts = 2;
    RETURNS(false, qwen3_config_has_experts, NULL, 0);
    RETURNS(false, qwen3_config_has_experts, &tiny, 0);
    RETURNS(false, qwen3_config_has_experts, &mixture, INT64_MAX - 1);
    RETURNS(false, qwen3_config_has_experts, &mixture, INT64_MIN);
    mixture = tiny;
    mixture.num_experts = mixture.moe_intermediate_size = INT64_MAX;
    RETURNS(0, qwen3_memory_estimate, &mixture, QWEN3_STRATEGY_AUTO, 2, 1, QWEN3_DTYPE_BF16);
    const uint64_t bf16 = qwen3_memory_estimate(&tiny, QWEN3_STRATEGY_SEQUENCE, 2, 1, QWEN3_DTYPE_BF16);
    RETURNS(bf16, qwen3_memory_estimate, &tiny, QWEN3_STRATEGY_SEQUENCE, 2, 1, QWEN3_DTYPE_AUTO);
    HOLDS(bf16 > 0);
    RETURNS(0, qwen3_memory_estimate, NULL, QWEN3_STRATEGY_SEQUENCE, 2, 1, QWEN3_DTYPE_BF16);
    RETURNS(0, qwen3_memory_estimate, &empty, QWEN3_STRATEGY_AUTO, 2, 1, QWEN3_DTYPE_BF16);
    RETURNS(0, qwen3_memory_estimate, &overflowing, QWEN3_STRATEGY_AUTO, 2, 1, QWEN3_DTYPE_BF16);
    RETURNS(0, qwen3_memory_estimate, &tiny, (qwen3_parallel_strategy)99, 2, 1, QWEN3_DTYPE_BF16);
    RETURNS(0, qwen3_memory_estimate, &tiny, QWEN3_STRATEGY_AUTO, 2, 1, (qwen3_dtype)99);
    RETURNS(0, qwen3_memory_estimate, &tiny, QWEN3_STRATEGY_AUTO, 2, 1, (qwen3_dtype)-2);
    RETURNS(0, qwen3_memory_estimate, &tiny, QWEN3_STRATEGY_AUTO, 0, 1, QWEN3_DTYPE_BF16);
    RETURNS(0, qwen3_memory_estimate, &tiny, QWEN3_STRATEGY_AUTO, -1, 1, QWEN3_DTYPE_BF16);
    RETURNS(0, qwen3_memory_estimate, &tiny, QWEN3_STRATEGY_AUTO, INT32_MAX, 1, QWEN3_DTYPE_BF16);
    RETURNS(0, qwen3_memory_estimate, &tiny, QWEN3_STRATEGY_AUTO, 2, 0, QWEN3_DTYPE_BF16);
    RETURNS(0, qwen3_memory_estimate, &tiny, QWEN3_STRATEGY_AUTO, 2, 3, QWEN3_DTYPE_BF16);

    const qwen3_forward_shape shape = {1, 1, 0};
    RETURNS(0, qwen3_forward_flops, NULL, &shape);
    RETURNS(0, qwen3_forward_flops, &tiny, NULL);
    RETURNS(0, qwen3_kv_bytes_per_token, NULL, QWEN3_DTYPE_BF16);
    RETURNS(0, qwen3_kv_bytes_per_token, &tiny, QWEN3_DTYPE_AUTO);
    RETURNS(0, qwen3_kv_bytes_per_token, &tiny, QWEN3_DTYPE_Q4);
    HOLDS(qwen3_kv_bytes_per_token(&overflowing, QWEN3_DTYPE_F32) > 0);
}

/* ---- Machines and predictions ------------------------------------------------------------------ */

static void test_predictions(void)
{
    const qwen3_config tiny = tiny_config(), empty = {0};
    const qwen3_machine machine = qwen3_machine_default(), nothing = {0};
    const qwen3_forward_shape shape = {1, 1, 0};
    qwen3_prediction p;
    const qwen3_scenario good = {.config = &tiny,
                                 .machine = &machine,
                                 .nodes = 1,
                                 .ranks_per_node = 2,
                                 .grid_sequence = 2,
                                 .grid_heads = 1,
                                 .dtype = QWEN3_DTYPE_AUTO,
                                 .kv_dtype = QWEN3_DTYPE_AUTO};
    qwen3_scenario s = good;
    WORKS(qwen3_predict, &s, &shape, &p);
    cover("qwen3_machine_default");
    REFUSED(ARGUMENT, "scenario is NULL", qwen3_predict, NULL, &shape, &p);
    REFUSED(ARGUMENT, "shape is NULL", qwen3_predict, &s, NULL, &p);
    REFUSED(ARGUMENT, "prediction is NULL", qwen3_predict, &s, &shape, NULL);
#define WITH(status, text, member, value)                                                                              \
    do {                                                                                                               \
        s = good;                                                                                                      \
        s.member = value;                                                                                              \
        REFUSED(status, text, qwen3_predict, &s, &shape, &p);                                                          \
    } while (0)
    WITH(ARGUMENT, "config is NULL", config, NULL);
    WITH(CONFIG, "vocab_size", config, &empty);
    WITH(ARGUMENT, "machine is NULL", machine, NULL);
    WITH(ARGUMENT, "0 nodes", machine, &nothing);
    WITH(ARGUMENT, "grid", nodes, 0);
    WITH(ARGUMENT, "grid", ranks_per_node, -1);
    WITH(ARGUMENT, "grid", grid_heads, INT32_MAX);
    WITH(ARGUMENT, "dtype 99", dtype, (qwen3_dtype)99);
    WITH(ARGUMENT, "dtype -2", dtype, (qwen3_dtype)-2);
    WITH(ARGUMENT, "kv_dtype 3", kv_dtype, QWEN3_DTYPE_Q4);
    WITH(ARGUMENT, "kv_dtype -5", kv_dtype, (qwen3_dtype)-5);
    WITH(ARGUMENT, "algorithm 99", algorithm, (qwen3_attention_algorithm)99);
#undef WITH
    s = good;
    s.nodes = s.grid_sequence = 1 << 30;
    s.ranks_per_node = 1;
    REFUSED(ARGUMENT, "grid", qwen3_predict, &s, &shape, &p);
    REFUSED(ARGUMENT, "0 sequences", qwen3_predict, &good, (&(qwen3_forward_shape){0, 1, 0}), &p);
    REFUSED(ARGUMENT, "-1 tokens", qwen3_predict, &good, (&(qwen3_forward_shape){1, -1, 0}), &p);
    REFUSED(ARGUMENT, "tokens", qwen3_predict, &good, (&(qwen3_forward_shape){1, INT64_MAX, INT64_MAX}), &p);
}

static void test_machines(void)
{
    const qwen3_machine machine = qwen3_machine_default();
    qwen3_machine other = machine;
    qwen3_roofline roofline;
    REFUSED(ARGUMENT, "path is NULL", qwen3_machine_read, NULL, &other);
    REFUSED(ARGUMENT, "machine is NULL", qwen3_machine_read, "machine.json", NULL);
    REFUSED(IO, "/nowhere/machine.json", qwen3_machine_read, "/nowhere/machine.json", &other);
    REFUSED(ARGUMENT, "path is NULL", qwen3_machine_write, NULL, &machine);
    REFUSED(ARGUMENT, "machine is NULL", qwen3_machine_write, "/nowhere/machine.json", NULL);
    REFUSED(IO, "/nowhere/machine.json", qwen3_machine_write, "/nowhere/machine.json", &machine);
#define WITH(text, member, value)                                                                                      \
    do {                                                                                                               \
        other = machine;                                                                                               \
        other.member = value;                                                                                          \
        REFUSED(ARGUMENT, text, qwen3_machine_write, "/nowhere/machine.json", &other);                                 \
    } while (0)
    WITH("0 nodes", nodes, 0);
    WITH("-1 ranks_per_node", ranks_per_node, -1);
    WITH("threads", threads, INT32_MAX);
    WITH("isa 99", isa, (qwen3_isa)99);
    WITH("row_values", row_values, NAN);
    WITH("row_values", across.latency, -1);
    WITH("all rates of a type", product_values[3][6], INFINITY);
    WITH("all rates of a type", attention_flops[0][1], 0);
    WITH("all rates of a type", attention_bytes[2], -1);
#undef WITH
    REFUSED(ARGUMENT, "comm is NULL", qwen3_machine_measure, NULL, 1, QWEN3_ISA_C, QWEN3_DTYPE_F32, &other);
    REFUSED(ARGUMENT, "machine is NULL", qwen3_machine_measure, world, 1, QWEN3_ISA_C, QWEN3_DTYPE_F32, NULL);
    REFUSED(ARGUMENT, "threads -1", qwen3_machine_measure, world, -1, QWEN3_ISA_C, QWEN3_DTYPE_F32, &other);
    REFUSED(ARGUMENT, "threads 1000000", qwen3_machine_measure, world, 1000000, QWEN3_ISA_C, QWEN3_DTYPE_F32, &other);
    REFUSED(ARGUMENT, "isa 99", qwen3_machine_measure, world, 1, (qwen3_isa)99, QWEN3_DTYPE_F32, &other);
    REFUSED(ARGUMENT, "dtype 4", qwen3_machine_measure, world, 1, QWEN3_ISA_C, (qwen3_dtype)4, &other);
    REFUSED(ARGUMENT, "dtype -2", qwen3_machine_measure, world, 1, QWEN3_ISA_C, (qwen3_dtype)-2, &other);
    REFUSED(ARGUMENT, "comm is NULL", qwen3_roofline_measure, NULL, 1, QWEN3_ISA_C, &roofline);
    REFUSED(ARGUMENT, "out is NULL", qwen3_roofline_measure, world, 1, QWEN3_ISA_C, NULL);
    REFUSED(ARGUMENT, "threads -1", qwen3_roofline_measure, world, -1, QWEN3_ISA_C, &roofline);
    REFUSED(ARGUMENT, "threads 4097", qwen3_roofline_measure, world, 4097, QWEN3_ISA_C, &roofline);
    REFUSED(ARGUMENT, "isa -1", qwen3_roofline_measure, world, 1, (qwen3_isa)-1, &roofline);
}

/* ---- Models ------------------------------------------------------------------------------------ */

static qwen3_model_options plain_options(void)
{
    qwen3_model_options options = qwen3_model_options_default();
    options.threads = 1;
    options.strategy = QWEN3_STRATEGY_HEAD_WISE;
    return options;
}

static void test_model_open(void)
{
    const qwen3_model_options good = plain_options();
    const qwen3_machine nothing = {0};
    qwen3_model_options o = good;
    qwen3_model *model = (qwen3_model *)&o;
    cover("qwen3_model_options_default");
    REFUSED(ARGUMENT, "comm is NULL", qwen3_model_open, NULL, "synthetic:tiny", &good, &model);
    HOLDS(model == NULL);
    REFUSED(ARGUMENT, "spec is NULL", qwen3_model_open, world, NULL, &good, &model);
    REFUSED(ARGUMENT, "model is NULL", qwen3_model_open, world, "synthetic:tiny", &good, NULL);
    REFUSED(ARGUMENT, "unknown size", qwen3_model_open, world, "synthetic:7B", &good, &model);
    REFUSED(IO, "/nowhere", qwen3_model_open, world, "/nowhere", &good, &model);
    REFUSED(IO, "config.json", qwen3_model_open, world, "", &good, &model);
#define WITH(text, member, value)                                                                                      \
    do {                                                                                                               \
        o = good;                                                                                                      \
        o.member = value;                                                                                              \
        REFUSED(ARGUMENT, text, qwen3_model_open, world, "synthetic:tiny", &o, &model);                                \
    } while (0)
    WITH("strategy 99", strategy, (qwen3_parallel_strategy)99);
    WITH("strategy -1", strategy, (qwen3_parallel_strategy)-1);
    WITH("grid -1x0", grid_sequence, -1);
    WITH("grid 0x1000", grid_heads, 1000);
    WITH("dtype 4", dtype, (qwen3_dtype)4);
    WITH("dtype -2", dtype, (qwen3_dtype)-2);
    WITH("kv_dtype 3", kv_dtype, QWEN3_DTYPE_Q4);
    WITH("kv_dtype -2", kv_dtype, (qwen3_dtype)-2);
    WITH("isa 99", isa, (qwen3_isa)99);
    WITH("threads -1", threads, -1);
    WITH("threads 2147483647", threads, INT32_MAX);
    WITH("expected_tokens -1", expected_tokens, -1);
    WITH("0 nodes", machine, &nothing);
#undef WITH
    o = good;
    o.grid_sequence = o.grid_heads = INT32_MAX;
    REFUSED(ARGUMENT, "grid", qwen3_model_open, world, "synthetic:tiny", &o, &model);
    HOLDS(model == NULL);

    REFUSED(ARGUMENT, "comm is NULL", qwen3_model_pack, NULL, "/nowhere", &good, "/nowhere/packed");
    REFUSED(ARGUMENT, "spec is NULL", qwen3_model_pack, world, NULL, &good, "/nowhere/packed");
    REFUSED(ARGUMENT, "output is NULL", qwen3_model_pack, world, "/nowhere", &good, NULL);
    REFUSED(ARGUMENT, "has no files", qwen3_model_pack, world, "synthetic:tiny", &good, "/nowhere/packed");
    REFUSED(IO, "/nowhere", qwen3_model_pack, world, "/nowhere", NULL, "/nowhere/packed");
    o = good;
    o.dtype = (qwen3_dtype)99;
    REFUSED(ARGUMENT, "dtype 99", qwen3_model_pack, world, "/nowhere", &o, "/nowhere/packed");
    o = good;
    o.threads = 4097;
    REFUSED(ARGUMENT, "threads 4097", qwen3_model_pack, world, "/nowhere", &o, "/nowhere/packed");
    o = good;
    o.isa = (qwen3_isa)99;
    REFUSED(ARGUMENT, "isa 99", qwen3_model_pack, world, "/nowhere", &o, "/nowhere/packed");
}

static qwen3_model *open_model(qwen3_comm *comm)
{
    const qwen3_model_options options = plain_options();
    qwen3_model *model;
    WORKS(qwen3_model_open, comm, "synthetic:tiny", &options, &model);
    return model;
}

static qwen3_session *open_session(qwen3_model *model)
{
    qwen3_session_options options = qwen3_session_options_default();
    qwen3_session *session;
    options.max_sequences = 2;
    options.max_tokens = 64;
    WORKS(qwen3_session_open, model, &options, &session);
    return session;
}

static const int32_t some_tokens[] = {1, 2, 3};
static const qwen3_batch some_batch = {.n_tokens = 3, .tokens = some_tokens};

static void test_model(void)
{
    qwen3_model *model = open_model(world);
    char text[64] = "before";
    RETURNS(NULL, qwen3_model_config, NULL);
    RETURNS(NULL, qwen3_model_plan, NULL);
    RETURNS(0, qwen3_model_bytes_per_token, NULL);
    RETURNS(0, qwen3_model_bytes_per_step, NULL, 1);
    RETURNS(0, qwen3_model_bytes_per_step, model, NAN);
    RETURNS(0, qwen3_model_bytes_per_step, model, -1);
    RETURNS_FROM(qwen3_model_placement, model, NULL, 64);
    RETURNS_FROM(qwen3_model_placement, model, text, 0);
    HOLDS(strcmp(text, "before") == 0);
    RETURNS_FROM(qwen3_model_placement, model, text, 1);
    HOLDS(text[0] == '\0');
    RETURNS_FROM(qwen3_model_placement, NULL, text, sizeof text);
    HOLDS(strcmp(text, "unknown") == 0);
    RETURNS_FROM(qwen3_model_close, NULL);
    qwen3_model_close(model);
}

/* ---- Sessions ---------------------------------------------------------------------------------- */

static void test_session_open(qwen3_model *model)
{
    const qwen3_session_options good = qwen3_session_options_default();
    qwen3_session_options o = good;
    qwen3_session *session = (qwen3_session *)&o;
    cover("qwen3_session_options_default");
    REFUSED(ARGUMENT, "model is NULL", qwen3_session_open, NULL, &good, &session);
    HOLDS(session == NULL);
    REFUSED(ARGUMENT, "session is NULL", qwen3_session_open, model, &good, NULL);
#define WITH(text, member, value)                                                                                      \
    do {                                                                                                               \
        o = good;                                                                                                      \
        o.member = value;                                                                                              \
        REFUSED(ARGUMENT, text, qwen3_session_open, model, &o, &session);                                              \
    } while (0)
    WITH("max_sequences 0", max_sequences, 0);
    WITH("max_sequences -1", max_sequences, -1);
    WITH("max_sequences 2147483647", max_sequences, INT32_MAX);
    WITH("max_tokens -1", max_tokens, -1);
    WITH("max_tokens 9223372036854775807", max_tokens, INT64_MAX);
    WITH("algorithm 99", algorithm, (qwen3_attention_algorithm)99);
    WITH("algorithm -1", algorithm, (qwen3_attention_algorithm)-1);
    WITH("q_block_size -1", q_block_size, -1);
    WITH("q_block_size 2147483647", q_block_size, INT32_MAX);
    WITH("kv_pages -1", kv_pages, -1);
    WITH("kv_block_size -1", kv_block_size, -1);
    WITH("kv_block_size 2147483647", kv_block_size, INT32_MAX);
    WITH("token_split_min -1", token_split_min, -1);
    WITH("overlap_min_rows -1", overlap_min_rows, -1);
    WITH("wire q4", wire, QWEN3_DTYPE_Q4);
    WITH("wire unknown", wire, (qwen3_dtype)99);
#undef WITH
    HOLDS(session == NULL);
}

static void test_batches(qwen3_session *session)
{
    const int32_t beyond[] = {1, 1 << 30}, negative[] = {-1, 0}, other[] = {0, 2};
    qwen3_batch b = some_batch;
    REFUSED(ARGUMENT, "session is NULL", qwen3_forward, NULL, &some_batch);
    REFUSED(ARGUMENT, "batch is NULL", qwen3_forward, session, NULL);
    REFUSED(ARGUMENT, "no tokens", qwen3_forward, session, &(qwen3_batch){0});
    b.tokens = NULL;
    REFUSED(ARGUMENT, "no tokens", qwen3_forward, session, &b);
    b = some_batch;
    b.n_tokens = SIZE_MAX;
    REFUSED(CAPACITY, "the session holds at most 2 of 64", qwen3_forward, session, &b);
    b.n_tokens = 129;
    REFUSED(CAPACITY, "129 tokens", qwen3_forward, session, &b);
    REFUSED(ARGUMENT, "id 1073741824", qwen3_forward, session, (&(qwen3_batch){2, beyond, NULL, NULL, NULL}));
    REFUSED(ARGUMENT, "id -1", qwen3_forward, session, (&(qwen3_batch){2, negative, NULL, NULL, NULL}));
    REFUSED(ARGUMENT, "sequence 2", qwen3_forward, session, (&(qwen3_batch){2, some_tokens, other, NULL, NULL}));
    REFUSED(ARGUMENT, "sequence -1", qwen3_forward, session, (&(qwen3_batch){2, some_tokens, negative, NULL, NULL}));
    REFUSED(ARGUMENT, "position 1", qwen3_forward, session, (&(qwen3_batch){2, some_tokens, NULL, some_tokens, NULL}));

    /* The fault of one rank is that of all, which learn whose it was. */
    const int last = qwen3_comm_size(world) - 1;
    begin_case("qwen3_forward");
    const qwen3_status got = qwen3_forward(session, qwen3_comm_rank(world) == last ? NULL : &some_batch, &err);
    refused(__LINE__, "batch NULL on the last rank", got, QWEN3_ERR_ARGUMENT, "batch is NULL");
    HOLDS(err.rank == last && qwen3_session_length(session, 0) == 0);
}

static void test_results(qwen3_session *session)
{
    int32_t tokens[3];
    float *logits = NULL;
    qwen3_sampler *sampler, *twice[3];
    REFUSED(ARGUMENT, "no logits", qwen3_logits, session, logits);
    REFUSED(ARGUMENT, "no logits", qwen3_argmax, session, tokens);
    REFUSED(ARGUMENT, "no logits", qwen3_sample, session, NULL, tokens);
    float states[3 * 64];
    REFUSED(ARGUMENT, "no hidden states", qwen3_hidden, session, states);
    REFUSED(ARGUMENT, "no hidden states", qwen3_embeddings, session, 0, states);
    RETURNS(0, qwen3_logits_rows, session);
    RETURNS(0, qwen3_logits_rows, NULL);
    const uint8_t all[] = {1, 1, 1};
    WORKS(qwen3_forward, session, (&(qwen3_batch){3, some_tokens, NULL, NULL, all}));
    REFUSED(ARGUMENT, "session is NULL", qwen3_logits, NULL, logits);
    REFUSED(ARGUMENT, "logits is NULL", qwen3_logits, session, NULL);
    REFUSED(ARGUMENT, "session is NULL", qwen3_hidden, NULL, states);
    REFUSED(ARGUMENT, "hidden is NULL", qwen3_hidden, session, NULL);
    WORKS(qwen3_hidden, session, states);
    REFUSED(ARGUMENT, "session is NULL", qwen3_embeddings, NULL, 0, states);
    REFUSED(ARGUMENT, "embeddings is NULL", qwen3_embeddings, session, 0, NULL);
    REFUSED(ARGUMENT, "dimensions -1", qwen3_embeddings, session, -1, states);
    REFUSED(ARGUMENT, "dimensions 65", qwen3_embeddings, session, 65, states);
    WORKS(qwen3_embeddings, session, 64, states);
    REFUSED(ARGUMENT, "session is NULL", qwen3_argmax, NULL, tokens);
    REFUSED(ARGUMENT, "tokens is NULL", qwen3_argmax, session, NULL);
    REFUSED(ARGUMENT, "session is NULL", qwen3_sample, NULL, NULL, tokens);
    REFUSED(ARGUMENT, "tokens is NULL", qwen3_sample, session, NULL, NULL);
    WORKS(qwen3_sampler_open, qwen3_model_config(NULL) ? NULL : &(qwen3_config){.vocab_size = 512}, 0, NULL, &sampler);
    twice[0] = twice[1] = twice[2] = sampler;
    REFUSED(ARGUMENT, "row 1: its sampler", qwen3_sample, session, twice, tokens);
    qwen3_sampler_close(sampler);
    WORKS(qwen3_sampler_open, &(qwen3_config){.vocab_size = 7}, 0, NULL, &sampler);
    twice[0] = sampler;
    twice[1] = twice[2] = NULL;
    REFUSED(ARGUMENT, "vocabulary of 7", qwen3_sample, session, twice, tokens);
    qwen3_sampler_close(sampler);
    RETURNS(3, qwen3_logits_rows, session);
    WORKS(qwen3_argmax, session, tokens);
    /* A batch that is refused takes the logits away, and nothing else. */
    REFUSED(ARGUMENT, "no tokens", qwen3_forward, session, &(qwen3_batch){0});
    REFUSED(ARGUMENT, "no logits", qwen3_argmax, session, tokens);
    RETURNS(3, qwen3_session_length, session, 0);
    WORKS(qwen3_forward, session, &some_batch);
    RETURNS(6, qwen3_session_length, session, 0);
}

static void test_session(void)
{
    qwen3_model *model = open_model(world);
    test_session_open(model);
    qwen3_session *session = open_session(model);
    test_batches(session);
    test_results(session);
    RETURNS(0, qwen3_session_length, NULL, 0);
    RETURNS(0, qwen3_session_length, session, -1);
    RETURNS(0, qwen3_session_length, session, 2);
    RETURNS(0, qwen3_session_length, session, INT32_MAX);
    REFUSED(ARGUMENT, "session is NULL", qwen3_session_reset, NULL, 0);
    REFUSED(ARGUMENT, "sequence -2", qwen3_session_reset, session, -2);
    REFUSED(ARGUMENT, "sequence 2", qwen3_session_reset, session, 2);
    REFUSED(ARGUMENT, "session is NULL", qwen3_session_truncate, NULL, 0, 0);
    REFUSED(ARGUMENT, "sequence -1", qwen3_session_truncate, session, -1, 0);
    REFUSED(ARGUMENT, "length -1", qwen3_session_truncate, session, 0, -1);
    REFUSED(ARGUMENT, "length 7", qwen3_session_truncate, session, 0, 7);
    REFUSED(ARGUMENT, "length 9223372036854775807", qwen3_session_truncate, session, 0, INT64_MAX);
    REFUSED(ARGUMENT, "session is NULL", qwen3_session_fork, NULL, 0, 1, 0);
    REFUSED(ARGUMENT, "sequences -1 and 1", qwen3_session_fork, session, -1, 1, 0);
    REFUSED(ARGUMENT, "sequences 0 and 2147483647", qwen3_session_fork, session, 0, INT32_MAX, 0);
    REFUSED(ARGUMENT, "sequences 0 and 0", qwen3_session_fork, session, 0, 0, 0);
    REFUSED(ARGUMENT, "positions -1", qwen3_session_fork, session, 0, 1, -1);
    REFUSED(ARGUMENT, "positions 7: expected 0..6", qwen3_session_fork, session, 0, 1, 7);
    WORKS(qwen3_session_fork, session, 0, 1, 5);
    REFUSED(ARGUMENT, "sequence 1 has 5 tokens; expected an empty one", qwen3_session_fork, session, 0, 1, 5);
    RETURNS(5, qwen3_session_length, session, 1);
    RETURNS(6, qwen3_session_length, session, 0);
    qwen3_session_info info = {.kv_bytes = 7};
    RETURNS_FROM(qwen3_session_get_info, session, NULL);
    RETURNS_FROM(qwen3_session_get_info, NULL, &info);
    HOLDS(info.kv_bytes == 0);
    RETURNS_FROM(qwen3_session_reset_stats, NULL);
    RETURNS_FROM(qwen3_session_close, NULL);
    qwen3_session_close(session);
    qwen3_model_close(model);
}

/* ---- Samplers and generation configurations ---------------------------------------------------- */

static void test_sampler_open(void)
{
    const qwen3_config tiny = tiny_config(), empty = {0};
    const qwen3_sampling_options good = qwen3_sampling_options_default();
    const qwen3_logit_bias beyond = {512, 0}, negative = {-1, 0}, infinite = {1, INFINITY};
    qwen3_config huge = tiny;
    qwen3_sampling_options o = good;
    qwen3_sampler *sampler = (qwen3_sampler *)&o;
    huge.vocab_size = INT64_MAX;
    cover("qwen3_sampling_options_default");
    REFUSED(ARGUMENT, "config is NULL", qwen3_sampler_open, NULL, 0, &good, &sampler);
    HOLDS(sampler == NULL);
    REFUSED(ARGUMENT, "sampler is NULL", qwen3_sampler_open, &tiny, 0, &good, NULL);
    REFUSED(ARGUMENT, "vocab_size 0", qwen3_sampler_open, &empty, 0, &good, &sampler);
    REFUSED(ARGUMENT, "vocab_size 9223372036854775807", qwen3_sampler_open, &huge, 0, &good, &sampler);
    REFUSED(ARGUMENT, "n_tokens -1", qwen3_sampler_open, &tiny, -1, &good, &sampler);
    REFUSED(ARGUMENT, "n_tokens 513", qwen3_sampler_open, &tiny, 513, &good, &sampler);
#define WITH(text, member, value)                                                                                      \
    do {                                                                                                               \
        o = good;                                                                                                      \
        o.member = value;                                                                                              \
        REFUSED(ARGUMENT, text, qwen3_sampler_open, &tiny, 0, &o, &sampler);                                           \
    } while (0)
    WITH("temperature -1", temperature, -1);
    WITH("temperature nan", temperature, NAN);
    WITH("top_k -1", top_k, -1);
    WITH("top_p 2", top_p, 2);
    WITH("min_p -1", min_p, -1);
    WITH("presence_penalty inf", presence_penalty, INFINITY);
    WITH("frequency_penalty inf", frequency_penalty, INFINITY);
    WITH("repetition_penalty 0", repetition_penalty, 0);
    WITH("bias is NULL", n_bias, 1);
    WITH("bias is NULL", n_bias, SIZE_MAX);
#undef WITH
    o = good;
    o.n_bias = 1;
    o.bias = &beyond;
    REFUSED(ARGUMENT, "token 512", qwen3_sampler_open, &tiny, 0, &o, &sampler);
    o.bias = &negative;
    REFUSED(ARGUMENT, "token -1", qwen3_sampler_open, &tiny, 0, &o, &sampler);
    o.bias = &infinite;
    REFUSED(ARGUMENT, "bias inf", qwen3_sampler_open, &tiny, 0, &o, &sampler);
    HOLDS(sampler == NULL);
}

static void test_sampler(void)
{
    const qwen3_config tiny = tiny_config();
    const int32_t beyond[] = {1, 512};
    qwen3_sampler *sampler;
    WORKS(qwen3_sampler_open, &tiny, 0, NULL, &sampler);
    REFUSED(ARGUMENT, "sampler is NULL", qwen3_sampler_accept, NULL, some_tokens, 3, true);
    REFUSED(ARGUMENT, "tokens is NULL", qwen3_sampler_accept, sampler, NULL, 3, true);
    WORKS(qwen3_sampler_accept, sampler, NULL, 0, true);
    REFUSED(ARGUMENT, "id 512", qwen3_sampler_accept, sampler, beyond, 2, false);
    RETURNS_FROM(qwen3_sampler_reset, NULL, 1);
    RETURNS_FROM(qwen3_sampler_close, NULL);
    qwen3_sampler_close(sampler);

    qwen3_generation_config config = {.n_end_tokens = INT32_MAX};
    RETURNS(false, qwen3_generation_config_ends, NULL, 1);
    RETURNS(false, qwen3_generation_config_ends, &config, 1);
    config.n_end_tokens = -1;
    RETURNS(false, qwen3_generation_config_ends, &config, 0);
    REFUSED(ARGUMENT, "spec is NULL", qwen3_generation_config_read, NULL, &config);
    HOLDS(config.n_end_tokens == 0);
    REFUSED(ARGUMENT, "config is NULL", qwen3_generation_config_read, "synthetic:tiny", NULL);
    REFUSED(IO, "/nowhere", qwen3_generation_config_read, "/nowhere", &config);
}

/* ---- Schedulers -------------------------------------------------------------------------------- */

static void test_scheduler_open(void)
{
    qwen3_model *model = open_model(world);
    const qwen3_scheduler_options good = qwen3_scheduler_options_default();
    qwen3_scheduler_options o = good;
    qwen3_scheduler *scheduler = (qwen3_scheduler *)&o;
    cover("qwen3_scheduler_options_default");
    REFUSED(ARGUMENT, "model is NULL", qwen3_scheduler_open, NULL, &good, &scheduler);
    HOLDS(scheduler == NULL);
    REFUSED(ARGUMENT, "scheduler is NULL", qwen3_scheduler_open, model, &good, NULL);
#define WITH(text, member, value)                                                                                      \
    do {                                                                                                               \
        o = good;                                                                                                      \
        o.member = value;                                                                                              \
        REFUSED(ARGUMENT, text, qwen3_scheduler_open, model, &o, &scheduler);                                          \
    } while (0)
    WITH("max_running 0", max_running, 0);
    WITH("max_running 2147483647", max_running, INT32_MAX);
    WITH("max_waiting -1", max_waiting, -1);
    WITH("max_cached -1", max_cached, -1);
    WITH("max_tokens -1", max_tokens, -1);
    WITH("max_tokens 9223372036854775807", max_tokens, INT64_MAX);
    WITH("step_tokens 15: expected 16", step_tokens, 15);
    WITH("longest_wait 0", longest_wait, 0);
    WITH("longest_wait nan", longest_wait, NAN);
    WITH("draft_tokens -1", draft_tokens, -1);
    WITH("draft_tokens 65", draft_tokens, 65);
    WITH("kv_pages -1", kv_pages, -1);
    WITH("kv_pages 1: expected at least", kv_pages, 1);
    WITH("n_tokens -1", n_tokens, -1);
    WITH("n_tokens 2147483647", n_tokens, INT32_MAX);
    WITH("q_block_size -1", session.q_block_size, -1);
#undef WITH
    HOLDS(scheduler == NULL);
    qwen3_model_close(model);
}

static bool count_event(void *context, const qwen3_scheduler_event *event)
{
    (void)event;
    ++*(int *)context;
    return true;
}

static void test_requests(qwen3_scheduler *scheduler)
{
    const int32_t beyond[] = {1, 1 << 30};
    int events = 0;
    uint64_t id = 7;
    const qwen3_scheduler_request good = {.prompt = some_tokens,
                                          .n_prompt = 3,
                                          .max_tokens = 4,
                                          .sampling = qwen3_sampling_options_default(),
                                          .event = count_event,
                                          .context = &events};
    qwen3_scheduler_request r = good;
    const qwen3_token_filter filter = {.context = &r};
    REFUSED(ARGUMENT, "scheduler is NULL", qwen3_scheduler_submit, NULL, &good, &id);
    REFUSED(ARGUMENT, "request is NULL", qwen3_scheduler_submit, scheduler, NULL, &id);
    REFUSED(ARGUMENT, "id is NULL", qwen3_scheduler_submit, scheduler, &good, NULL);
#define WITH(text, member, value)                                                                                      \
    do {                                                                                                               \
        r = good;                                                                                                      \
        r.member = value;                                                                                              \
        REFUSED(ARGUMENT, text, qwen3_scheduler_submit, scheduler, &r, &id);                                           \
    } while (0)
    WITH("prompt is NULL", prompt, NULL);
    WITH("0 tokens", n_prompt, 0);
    WITH("tokens; expected 1..", n_prompt, SIZE_MAX);
    WITH("id 1073741824", prompt, beyond);
    WITH("max_tokens -1", max_tokens, -1);
    WITH("n -1", n, -1);
    WITH("n 2147483647", n, INT32_MAX);
    WITH("temperature -1", sampling.temperature, -1);
    WITH("top_k -1", sampling.top_k, -1);
    WITH("bias is NULL", sampling.n_bias, 1);
    WITH("stop_tokens is NULL", n_stop_tokens, 1);
    WITH("top_logprobs 21", top_logprobs, 21);
    WITH("top_logprobs -1", top_logprobs, -1);
    WITH("filter", filter, &filter);
    WITH("event is NULL", event, NULL);
#undef WITH
    HOLDS(id == 0 && events == 0);
    WORKS(qwen3_scheduler_submit, scheduler, &good, &id);
    HOLDS(id == 1);
    RETURNS(true, qwen3_scheduler_wait, scheduler, INFINITY);
    for (int i = 0; i < 4; i++)
        WORKS(qwen3_scheduler_step, scheduler);
    HOLDS(events == 4);
    RETURNS(false, qwen3_scheduler_wait, scheduler, 0);
    RETURNS(false, qwen3_scheduler_wait, scheduler, NAN);
    RETURNS_FROM(qwen3_scheduler_wake, scheduler);
    RETURNS(false, qwen3_scheduler_wait, scheduler, INFINITY);
    RETURNS_FROM(qwen3_scheduler_cancel, scheduler, UINT64_MAX);
    WORKS(qwen3_scheduler_step, scheduler);
    WORKS(qwen3_scheduler_submit, scheduler, &good, &id); /* dropped when it is closed */
    HOLDS(id == 2);
}

static void test_scheduler(void)
{
    qwen3_model *model = open_model(world);
    qwen3_scheduler *scheduler;
    qwen3_scheduler_stats stats = {.running = 7};
    uint64_t id;
    NAMES("unknown", qwen3_finish_name, (qwen3_finish)99);
    NAMES("length", qwen3_finish_name, QWEN3_FINISH_LENGTH);
    WORKS(qwen3_scheduler_open, model, NULL, &scheduler);
    if (qwen3_comm_rank(world) == 0) {
        test_requests(scheduler);
    } else {
        const qwen3_scheduler_request request = {.prompt = some_tokens, .n_prompt = 3};
        REFUSED(ARGUMENT, "on rank", qwen3_scheduler_submit, scheduler, &request, &id);
        REFUSED(ARGUMENT, "on rank", qwen3_scheduler_step, scheduler);
        RETURNS(false, qwen3_scheduler_wait, scheduler, INFINITY);
        RETURNS_FROM(qwen3_scheduler_wake, scheduler);
        RETURNS_FROM(qwen3_scheduler_cancel, scheduler, 1);
    }
    WORKS(qwen3_scheduler_follow, scheduler);
    RETURNS_FROM(qwen3_scheduler_get_stats, scheduler, NULL);
    RETURNS_FROM(qwen3_scheduler_get_stats, scheduler, &stats);
    RETURNS_FROM(qwen3_scheduler_get_stats, NULL, &stats);
    HOLDS(stats.running == 0);
    REFUSED(ARGUMENT, "scheduler is NULL", qwen3_scheduler_step, NULL);
    REFUSED(ARGUMENT, "scheduler is NULL", qwen3_scheduler_follow, NULL);
    RETURNS(false, qwen3_scheduler_wait, NULL, 1);
    RETURNS_FROM(qwen3_scheduler_wake, NULL);
    RETURNS_FROM(qwen3_scheduler_cancel, NULL, 1);
    RETURNS_FROM(qwen3_scheduler_close, NULL);
    qwen3_scheduler_close(scheduler);
    qwen3_model_close(model);
}

/* ---- Text -------------------------------------------------------------------------------------- */

static void test_matcher(const qwen3_grammar *grammar, const qwen3_vocabulary *vocabulary)
{
    uint64_t mask = 0;
    qwen3_matcher *m = (qwen3_matcher *)&mask;
    REFUSED(ARGUMENT, "grammar is NULL", qwen3_matcher_open, NULL, vocabulary, &m);
    HOLDS(m == NULL);
    REFUSED(ARGUMENT, "vocabulary is NULL", qwen3_matcher_open, grammar, NULL, &m);
    REFUSED(ARGUMENT, "matcher is NULL", qwen3_matcher_open, grammar, vocabulary, NULL);
    WORKS(qwen3_matcher_open, grammar, vocabulary, &m);
    RETURNS(false, qwen3_matcher_allows, NULL, 0);
    RETURNS(false, qwen3_matcher_allows, m, -1);
    RETURNS(false, qwen3_matcher_allows, m, INT32_MAX);
    RETURNS(false, qwen3_matcher_accept, NULL, 0);
    RETURNS(false, qwen3_matcher_accept, m, INT32_MIN);
    RETURNS(false, qwen3_matcher_mask, NULL, &mask, 64);
    RETURNS(false, qwen3_matcher_mask, m, NULL, 64);
    RETURNS(false, qwen3_matcher_mask, m, &mask, 0);
    RETURNS(false, qwen3_matcher_accept_bytes, NULL, "1", 1);
    RETURNS(false, qwen3_matcher_accept_bytes, m, NULL, 1);
    RETURNS(true, qwen3_matcher_accept_bytes, m, NULL, 0);
    RETURNS(true, qwen3_matcher_accept_bytes, m, "1", 1);
    RETURNS(true, qwen3_matcher_complete, m);
    RETURNS(false, qwen3_matcher_complete, NULL);
    RETURNS_FROM(qwen3_matcher_reset, NULL);
    RETURNS_FROM(qwen3_matcher_reset, m);
    HOLDS(!qwen3_matcher_complete(m));
    RETURNS_FROM(qwen3_matcher_close, NULL);
    qwen3_matcher_close(m);
}

static void test_grammar(const qwen3_tokenizer *t)
{
    qwen3_grammar *grammar = (qwen3_grammar *)&err;
    qwen3_vocabulary *vocabulary = (qwen3_vocabulary *)&err;
    REFUSED(ARGUMENT, "schema is NULL", qwen3_grammar_open, NULL, 0, &grammar);
    HOLDS(grammar == NULL);
    REFUSED(ARGUMENT, "grammar is NULL", qwen3_grammar_open, "true", 4, NULL);
    REFUSED(FORMAT, "schema", qwen3_grammar_open, "true", 0, &grammar);
    REFUSED(UNSUPPORTED, "#/not", qwen3_grammar_open, "{\"not\":{}}", 10, &grammar);
    REFUSED(ARGUMENT, "tokenizer is NULL", qwen3_vocabulary_open, NULL, &vocabulary);
    HOLDS(vocabulary == NULL);
    REFUSED(ARGUMENT, "vocabulary is NULL", qwen3_vocabulary_open, t, NULL);
    WORKS(qwen3_grammar_open, "true", 4, &grammar);
    WORKS(qwen3_vocabulary_open, t, &vocabulary);
    test_matcher(grammar, vocabulary);
    RETURNS_FROM(qwen3_vocabulary_close, NULL);
    qwen3_vocabulary_close(vocabulary);
    RETURNS_FROM(qwen3_grammar_close, NULL);
    qwen3_grammar_close(grammar);
}

static void test_tokenizer(qwen3_tokenizer *t)
{
    qwen3_tokenizer *none = t;
    size_t length = 7;
    REFUSED(ARGUMENT, "path is NULL", qwen3_tokenizer_open, NULL, &none);
    HOLDS(none == NULL);
    REFUSED(ARGUMENT, "tokenizer is NULL", qwen3_tokenizer_open, QWEN3_TEST_MODEL, NULL);
    REFUSED(IO, "/nowhere", qwen3_tokenizer_open, "/nowhere", &none);
    RETURNS(0, qwen3_tokenizer_vocab_size, NULL);
    RETURNS(-1, qwen3_tokenizer_end, NULL);
    RETURNS(-1, qwen3_tokenizer_end, t);
    RETURNS(QWEN3_TOKEN_NONE, qwen3_tokenizer_kind, NULL, 0);
    RETURNS(QWEN3_TOKEN_NONE, qwen3_tokenizer_kind, t, -1);
    RETURNS(QWEN3_TOKEN_NONE, qwen3_tokenizer_kind, t, INT32_MAX);
    RETURNS(NULL, qwen3_tokenizer_token, NULL, 0, &length);
    HOLDS(length == 0);
    RETURNS(NULL, qwen3_tokenizer_token, t, -1, NULL);
    RETURNS(-1, qwen3_tokenizer_find, NULL, "a", 1);
    RETURNS(-1, qwen3_tokenizer_find, t, NULL, 1);
    RETURNS(-1, qwen3_tokenizer_find, t, "", 0);
    RETURNS_FROM(qwen3_tokenizer_close, NULL);
}

static void test_encode(qwen3_tokenizer *t)
{
    const qwen3_text_range reversed = {1, 0}, outside = {0, 2};
    const qwen3_encode_args good = {.text = "a", .length = 1};
    qwen3_encode_args a = good;
    int32_t *ids = (int32_t *)&a;
    size_t n = 7;
    REFUSED(ARGUMENT, "tokenizer is NULL", qwen3_tokenizer_encode, NULL, &good, &ids, &n);
    HOLDS(ids == NULL && n == 0);
    REFUSED(ARGUMENT, "args is NULL", qwen3_tokenizer_encode, t, NULL, &ids, &n);
    REFUSED(ARGUMENT, "ids is NULL", qwen3_tokenizer_encode, t, &good, NULL, &n);
    REFUSED(ARGUMENT, "n is NULL", qwen3_tokenizer_encode, t, &good, &ids, NULL);
    a.text = NULL;
    REFUSED(ARGUMENT, "text is NULL", qwen3_tokenizer_encode, t, &a, &ids, &n);
    a.length = 0;
    WORKS(qwen3_tokenizer_encode, t, &a, &ids, &n);
    HOLDS(ids != NULL && n == 0);
    free(ids);
    a = good;
    a.length = SIZE_MAX;
    REFUSED(ARGUMENT, "text: has", qwen3_tokenizer_encode, t, &a, &ids, &n);
    a = good;
    a.n_plain = 1;
    REFUSED(ARGUMENT, "plain is NULL", qwen3_tokenizer_encode, t, &a, &ids, &n);
    a.plain = &reversed;
    REFUSED(ARGUMENT, "plain range 0", qwen3_tokenizer_encode, t, &a, &ids, &n);
    a.plain = &outside;
    REFUSED(ARGUMENT, "plain range 0", qwen3_tokenizer_encode, t, &a, &ids, &n);
}

static void test_decode(qwen3_tokenizer *t)
{
    const int32_t ids[] = {0, -1};
    char *text = (char *)&err;
    const char *part = NULL;
    size_t length = 7;
    qwen3_text_stream *stream = NULL;
    REFUSED(ARGUMENT, "tokenizer is NULL", qwen3_tokenizer_decode, NULL, ids, 1, false, &text, &length);
    HOLDS(text == NULL && length == 0);
    REFUSED(ARGUMENT, "ids is NULL", qwen3_tokenizer_decode, t, NULL, 1, false, &text, &length);
    REFUSED(ARGUMENT, "text is NULL", qwen3_tokenizer_decode, t, ids, 1, false, NULL, &length);
    REFUSED(ARGUMENT, "length is NULL", qwen3_tokenizer_decode, t, ids, 1, false, &text, NULL);
    REFUSED(ARGUMENT, "token id -1 at index 1", qwen3_tokenizer_decode, t, ids, 2, false, &text, &length);
    REFUSED(ARGUMENT, "tokenizer is NULL", qwen3_text_stream_open, NULL, false, &stream);
    REFUSED(ARGUMENT, "stream is NULL", qwen3_text_stream_open, t, false, NULL);
    WORKS(qwen3_text_stream_open, t, false, &stream);
    REFUSED(ARGUMENT, "stream is NULL", qwen3_text_stream_push, NULL, 0, &part, &length);
    REFUSED(ARGUMENT, "text is NULL", qwen3_text_stream_push, stream, 0, NULL, &length);
    REFUSED(ARGUMENT, "length is NULL", qwen3_text_stream_push, stream, 0, &part, NULL);
    REFUSED(ARGUMENT, "token id -1", qwen3_text_stream_push, stream, -1, &part, &length);
    RETURNS_FROM(qwen3_text_stream_finish, NULL, &part, &length);
    RETURNS_FROM(qwen3_text_stream_finish, stream, NULL, &length);
    RETURNS_FROM(qwen3_text_stream_finish, stream, &part, NULL);
    RETURNS_FROM(qwen3_text_stream_close, NULL);
    WORKS(qwen3_text_stream_push, stream, 0, &part, &length);
    /* The tokenizer lives as long as its stream. */
    qwen3_tokenizer_close(t);
    WORKS(qwen3_text_stream_push, stream, 0, &part, &length);
    HOLDS(length > 0);
    qwen3_text_stream_close(stream);
}

static void test_chat(void)
{
    static const char user[] = "[{\"role\":\"user\",\"content\":\"x\"}]";
    const qwen3_render_args good = {.conversation = user, .conversation_bytes = sizeof user - 1};
    qwen3_render_args a = good;
    qwen3_chat_template *chat = (qwen3_chat_template *)&a;
    qwen3_chat_prompt prompt = {.length = 7};
    cover("qwen3_chat_options_default");
    REFUSED(ARGUMENT, "dir is NULL", qwen3_chat_template_open, NULL, &chat);
    HOLDS(chat == NULL);
    REFUSED(ARGUMENT, "chat is NULL", qwen3_chat_template_open, QWEN3_TEST_MODEL, NULL);
    REFUSED(IO, "/nowhere", qwen3_chat_template_open, "/nowhere", &chat);
    WORKS(qwen3_chat_template_open, QWEN3_TEST_MODEL, &chat);
    RETURNS(QWEN3_THINKING_OPTIONAL, qwen3_chat_template_thinking, NULL);
    HOLDS(*qwen3_chat_template_warning(NULL) == '\0' && *qwen3_chat_template_warning(chat) == '\0');
    cover("qwen3_chat_template_warning");
    qwen3_chat_template *loaded = chat;
    REFUSED(ARGUMENT, "name is NULL", qwen3_chat_template_load, NULL, &loaded);
    HOLDS(loaded == NULL);
    REFUSED(ARGUMENT, "chat is NULL", qwen3_chat_template_load, "qwen3", NULL);
    REFUSED(ARGUMENT, "/nowhere", qwen3_chat_template_load, "/nowhere", &loaded);
    WORKS(qwen3_chat_template_load, "qwen3", &loaded);
    qwen3_chat_template_close(loaded);
    REFUSED(ARGUMENT, "chat is NULL", qwen3_chat_template_render, NULL, &good, &prompt);
    HOLDS(prompt.text == NULL && prompt.length == 0);
    REFUSED(ARGUMENT, "args is NULL", qwen3_chat_template_render, chat, NULL, &prompt);
    REFUSED(ARGUMENT, "prompt is NULL", qwen3_chat_template_render, chat, &good, NULL);
    a.conversation = NULL;
    REFUSED(ARGUMENT, "conversation is NULL", qwen3_chat_template_render, chat, &a, &prompt);
    a = good;
    a.conversation_bytes = 0;
    REFUSED(FORMAT, "conversation", qwen3_chat_template_render, chat, &a, &prompt);
    a = good;
    a.tools = "";
    REFUSED(FORMAT, "tools", qwen3_chat_template_render, chat, &a, &prompt);
    HOLDS(prompt.text == NULL);
    WORKS(qwen3_chat_template_render, chat, &good, &prompt);
    RETURNS_FROM(qwen3_chat_prompt_free, NULL);
    qwen3_chat_prompt_free(&prompt);
    RETURNS_FROM(qwen3_chat_prompt_free, &prompt);
    RETURNS_FROM(qwen3_chat_template_close, NULL);
    qwen3_chat_template_close(chat);
}

static void test_text(void)
{
    qwen3_tokenizer *t;
    WORKS(qwen3_tokenizer_open, QWEN3_TEST_MODEL, &t);
    test_tokenizer(t);
    test_grammar(t);
    test_encode(t);
    test_decode(t);
    test_chat();
}

/* ---- Operators --------------------------------------------------------------------------------- */

typedef qwen3_status attention_operator(const qwen3_attention_args *args, qwen3_comm *comm, qwen3_error *error);

static void test_operator(const char *name, attention_operator *attend)
{
    float x[8] = {0}, out[8];
    qwen3_attention_args good = qwen3_attention_args_default(), a;
    good.heads = good.kv_heads = good.q_len = good.kv_len = 1;
    good.head_dim = 8;
    good.q = good.k = good.v = x;
    good.out = out;
    good.threads = 1;
    cover(name);
    WORKS(attend, &good, world);
    REFUSED(ARGUMENT, "args is NULL", attend, NULL, world);
    REFUSED(ARGUMENT, "comm is NULL", attend, &good, NULL);
#define WITH(text, member, value)                                                                                      \
    do {                                                                                                               \
        a = good;                                                                                                      \
        a.member = value;                                                                                              \
        REFUSED(ARGUMENT, text, attend, &a, world);                                                                    \
    } while (0)
    WITH("attention q:", q, NULL);
    WITH("attention k:", k, NULL);
    WITH("attention v:", v, NULL);
    WITH("attention out:", out, NULL);
    WITH("attention heads", heads, 0);
    WITH("attention heads", kv_heads, 0);
    WITH("attention heads", kv_heads, 2);
    WITH("attention head_dim", head_dim, 0);
    WITH("too large", head_dim, SIZE_MAX);
    WITH("too large", batch, SIZE_MAX / 2);
    WITH("too large", heads, SIZE_MAX);
    WITH("too large", q_len, (size_t)1 << 31);
    WITH("too large", kv_len, SIZE_MAX);
    WITH("attention layout", layout, (qwen3_input_layout)2);
    WITH("attention scale", scale, NAN);
    WITH("threads -1", threads, -1);
    WITH("threads 4097", threads, 4097);
    WITH("q_block_size", q_block_size, -1);
    WITH("kv_block_size", kv_block_size, INT32_MAX);
    WITH("isa 99", isa, (qwen3_isa)99);
#undef WITH
    a = good;
    a.layout = QWEN3_INPUT_SHARDED;
    a.global_seq_len = SIZE_MAX;
    begin_case(name);
    const qwen3_status status = attend(&a, world, &err);
    HOLDS(status == QWEN3_OK || strstr(err.message, "global_seq_len"));
}

static void test_operators(void)
{
    cover("qwen3_attention_args_default");
#define OPERATOR(name) test_operator(#name, name)
    OPERATOR(qwen3_attention_headwise_standard);
    OPERATOR(qwen3_attention_headwise_online_softmax);
    OPERATOR(qwen3_attention_sequence_standard);
    OPERATOR(qwen3_attention_sequence_online_softmax);
}

/* ---- The earlier interface --------------------------------------------------------------------- */

#ifdef QWEN3_WITH_MPI

static qwen3_status forward_of_type(const qwen3_forward_args *args, qwen3_mpi_attention_type type, MPI_Comm mpi,
                                    qwen3_error *error)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    return qwen3_forward_mpi_omp_attention_type(args, type, mpi, error);
#pragma GCC diagnostic pop
}

static void test_forward_mpi(void)
{
    float logits[3 * 512];
    qwen3_model *model = open_model(world);
    qwen3_model_variants variants = {0};
    const qwen3_forward_args good = {
        .model = model, .input_ids = some_tokens, .batch = 1, .seq_len = 3, .logits = logits, .variants = &variants};
    qwen3_forward_args a = good;
    REFUSED(ARGUMENT, "args is NULL", qwen3_forward_mpi_omp, NULL, MPI_COMM_WORLD);
    REFUSED(ARGUMENT, "MPI_COMM_NULL", qwen3_forward_mpi_omp, &good, MPI_COMM_NULL);
#define WITH(status, text, member, value)                                                                              \
    do {                                                                                                               \
        a = good;                                                                                                      \
        a.member = value;                                                                                              \
        REFUSED(status, text, qwen3_forward_mpi_omp, &a, MPI_COMM_WORLD);                                              \
    } while (0)
    WITH(ARGUMENT, "model is NULL", model, NULL);
    WITH(ARGUMENT, "input_ids", input_ids, NULL);
    WITH(ARGUMENT, "batch 0", batch, 0);
    WITH(ARGUMENT, "batch", batch, SIZE_MAX);
    WITH(ARGUMENT, "max_sequences", batch, INT32_MAX);
    WITH(ARGUMENT, "seq_len 0", seq_len, 0);
    WITH(ARGUMENT, "max_tokens", seq_len, SIZE_MAX / 2);
    WITH(ARGUMENT, "strategy 99", strategy, (qwen3_parallel_strategy)99);
    WITH(ARGUMENT, "strategy -1", strategy, (qwen3_parallel_strategy)-1);
    WITH(ARGUMENT, "algorithm 99", algorithm, (qwen3_attention_algorithm)99);
    WITH(ARGUMENT, "logits is NULL", logits, NULL);
#undef WITH
    cover("qwen3_forward_mpi_omp_attention_type");
    REFUSED(ARGUMENT, "args is NULL", forward_of_type, NULL, QWEN3_MPI_ATTENTION_STANDARD, MPI_COMM_WORLD);
    REFUSED(ARGUMENT, "type 2", forward_of_type, &good, (qwen3_mpi_attention_type)2, MPI_COMM_WORLD);
    REFUSED(ARGUMENT, "MPI_COMM_NULL", forward_of_type, &good, QWEN3_MPI_ATTENTION_STANDARD, MPI_COMM_NULL);
    HOLDS(variants.newest == NULL);
    /* A variant keeps its model, so that no other model is taken for it. */
    a = good;
    a.strategy = QWEN3_STRATEGY_SEQUENCE;
    WORKS(qwen3_forward_mpi_omp, &a, MPI_COMM_WORLD);
    qwen3_model_close(model);
    RETURNS_FROM(qwen3_model_variants_free, NULL);
    RETURNS_FROM(qwen3_model_variants_free, &variants);
    RETURNS_FROM(qwen3_model_variants_free, &variants);
}

static void test_comm_from_mpi(void)
{
    qwen3_comm *comm = world;
    REFUSED(ARGUMENT, "comm is NULL", qwen3_comm_from_mpi, MPI_COMM_WORLD, NULL);
    REFUSED(ARGUMENT, "MPI_COMM_NULL", qwen3_comm_from_mpi, MPI_COMM_NULL, &comm);
    HOLDS(comm == NULL);
    RETURNS_FROM(qwen3_comm_free, NULL);
    RETURNS_FROM(qwen3_comm_free, world);
    RETURNS_FROM(qwen3_comm_free, qwen3_comm_self());
    RETURNS(1, qwen3_comm_size, qwen3_comm_self());
    /* The communicator lives as long as the model on it. */
    WORKS(qwen3_comm_from_mpi, MPI_COMM_WORLD, &comm);
    qwen3_model *model = open_model(comm);
    qwen3_comm_free(comm);
    qwen3_session *session = open_session(model);
    WORKS(qwen3_forward, session, &some_batch);
    qwen3_session_close(session);
    qwen3_model_close(model);
}

#endif

/* ---- The end ----------------------------------------------------------------------------------- */

/* The model lives as long as its session, and both are closed after message passing has ended. */
static void test_end(bool root, bool several)
{
    qwen3_model *model = open_model(world), *other = NULL;
    qwen3_session *session = open_session(model), *second = open_session(model);
    qwen3_scheduler *scheduler, *none;
    WORKS(qwen3_scheduler_open, model, NULL, &scheduler);
    qwen3_model_close(model);
    WORKS(qwen3_forward, session, &some_batch);
    WORKS(qwen3_forward, second, &some_batch);
    qwen3_session_close(second);
    WORKS(qwen3_forward, session, &some_batch);
    RETURNS(6, qwen3_session_length, session, 0);
    RETURNS_FROM(qwen3_finalize);
    RETURNS_FROM(qwen3_finalize);
    if (several) {
        int32_t token;
        REFUSED(ARGUMENT, "after message passing had ended", qwen3_forward, session, &some_batch);
        REFUSED(ARGUMENT, "no logits", qwen3_argmax, session, &token);
        REFUSED(ARGUMENT, "after message passing had ended", qwen3_session_truncate, session, 0, 0);
        REFUSED(ARGUMENT, "after message passing had ended", qwen3_session_fork, session, 0, 1, 0);
        REFUSED(ARGUMENT, "after message passing had ended", qwen3_scheduler_open, model, NULL, &none);
        if (!root)
            REFUSED(ARGUMENT, "after message passing had ended", qwen3_scheduler_follow, scheduler);
    }
#ifdef QWEN3_WITH_MPI
    qwen3_comm *again = world;
    REFUSED(ARGUMENT, "cannot begin again", qwen3_init, NULL, NULL, &again);
    HOLDS(again == NULL);
    REFUSED(ARGUMENT, "MPI is not initialised", qwen3_comm_from_mpi, MPI_COMM_WORLD, &again);
#endif
    qwen3_session_close(session);
    qwen3_scheduler_close(scheduler);
    WORKS(qwen3_model_open, qwen3_comm_self(), "synthetic:tiny", NULL, &other);
    qwen3_model_close(other);
}

int main(int argc, char **argv)
{
#ifdef QWEN3_WITH_MPI
    REFUSED(ARGUMENT, "MPI is not initialised", qwen3_comm_from_mpi, MPI_COMM_WORLD, &world);
#endif
    if (qwen3_init(&argc, &argv, &world, &err) != QWEN3_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 2;
    }
    const bool root = qwen3_comm_rank(world) == 0, several = qwen3_comm_size(world) > 1;
    test_names();
    test_compare();
    test_ranks();
    test_tensor_estimate();
    test_config();
    test_predictions();
    test_machines();
    test_model_open();
    test_model();
    test_session();
    test_sampler_open();
    test_sampler();
    test_scheduler_open();
    test_scheduler();
    test_text();
    test_operators();
#ifdef QWEN3_WITH_MPI
    test_forward_mpi();
    test_comm_from_mpi();
#endif
    double failed = failures;
    qwen3_comm_max(world, &failed, 1);
    test_end(root, several);
    for (int i = 0; root && i < n_covered; i++)
        printf("covered %s\n", covered[i]);
    if (root)
        printf("%d cases, %d failures\n", cases, failures);
    return failures || failed > 0;
}
