/* info.c - qwen3 info: describes a model and what it needs, without loading it. Rank 0 does the work, but for the
 * measurement of the machine. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "common/model_arguments.h"
#include "common/program.h"
#include "common/thread_warning.h"
#include "speed.h"

typedef struct info_job {
    char *spec;
    bool tensors;
    int nodes; /* 1: the table of one node */
    bool no_speed;
    int bind;
    speed_options speed;
    qwen3_config config; /* on rank 0, as is dtype */
    qwen3_dtype dtype;   /* that AUTO takes */
} info_job;

enum { MAX_COUNTS = 16 };

static void print_experts(const qwen3_config *c)
{
    int64_t layers = 0;
    if (!c->num_experts)
        return;
    for (int64_t i = 0; i < c->num_layers; i++)
        layers += qwen3_config_has_experts(c, i);
    printf("experts              %" PRId64 " of intermediate size %" PRId64 " in %" PRId64 " layers, %" PRId64
           " for each token, weights %s\n",
           c->num_experts, c->moe_intermediate_size, layers, c->num_experts_per_token,
           c->norm_topk_prob ? "normalised" : "as the router gives them");
}

static void print_configuration(const char *spec, const qwen3_config *c)
{
    printf("model                %s\n", spec);
    printf("architecture         %s\n", c->architecture);
    printf("vocabulary           %" PRId64 "\n", c->vocab_size);
    printf("hidden size          %" PRId64 "\n", c->hidden_size);
    printf("intermediate size    %" PRId64 "\n", c->intermediate_size);
    printf("layers               %" PRId64 "\n", c->num_layers);
    print_experts(c);
    printf("query heads          %" PRId64 "\n", c->num_heads);
    printf("KV heads             %" PRId64 "\n", c->num_kv_heads);
    printf("head dimension       %" PRId64 "\n", c->head_dim);
    printf("positions            %" PRId64 "\n", c->max_positions);
    printf("RMS norm epsilon     %g\n", c->rms_norm_eps);
    printf("rotary theta         %g\n", c->rope_theta);
    if (c->yarn_factor > 0)
        printf("YaRN                 factor %g, original positions %" PRId64 ", beta %g to %g, attention factor %g\n",
               c->yarn_factor, c->yarn_original_positions, c->yarn_beta_slow, c->yarn_beta_fast,
               c->yarn_attention_factor);
    printf("tied embeddings      %s\n", c->tie_word_embeddings ? "yes" : "no");
    if (c->no_output_head)
        printf("output head          none, for embeddings only\n");
}

/* The type of a packed model, which has no other; otherwise BF16. */
static qwen3_dtype packed_type(const qwen3_tensor_info *tensors, size_t n)
{
    qwen3_dtype dtype;
    for (size_t i = 0; i < n; i++)
        if (qwen3_dtype_parse(tensors[i].dtype, &dtype) && strcmp(tensors[i].dtype, qwen3_dtype_name(dtype)) == 0)
            return dtype;
    return QWEN3_DTYPE_BF16;
}

enum { MOST_TYPES = 16 };

/* How many tensors have each type, in the order in which types appear. */
typedef struct type_counts {
    char names[MOST_TYPES][8];
    size_t tensors[MOST_TYPES], n;
} type_counts;

static void count_type(type_counts *c, const char *name)
{
    size_t t = 0;
    while (t < c->n && strcmp(c->names[t], name) != 0)
        t++;
    if (t == c->n && c->n < MOST_TYPES)
        snprintf(c->names[c->n++], sizeof *c->names, "%s", name);
    if (t < c->n)
        c->tensors[t]++;
}

static void print_counts(const type_counts *c)
{
    for (size_t t = 0; t < c->n; t++)
        printf("%s%zu %s", t ? ", " : "", c->tensors[t], c->names[t]);
    printf("\n");
}

/* Whether AUTO computes with quantised matrices as the file has them. */
static bool has_stored_types(const qwen3_tensor_info *tensors, size_t n)
{
    qwen3_dtype dtype;
    for (size_t i = 0; i < n; i++)
        if (tensors[i].held[0] && !qwen3_dtype_parse(tensors[i].held, &dtype))
            return true;
    return false;
}

/* Tensors, the types they are stored and held in, and parameters; a tied output head is not counted twice. */
static void print_tensors(const qwen3_config *config, const qwen3_tensor_info *tensors, size_t n, bool full)
{
    type_counts stored = {.n = 0}, held = {.n = 0};
    size_t n_stored = 0;
    int64_t parameters = 0;

    for (size_t i = 0; i < n; i++) {
        if (!(config->tie_word_embeddings && strcmp(tensors[i].name, "lm_head.weight") == 0))
            parameters += tensors[i].rows * tensors[i].cols;
        if (!tensors[i].stored)
            continue;
        count_type(&stored, tensors[i].dtype);
        if (tensors[i].held[0])
            count_type(&held, tensors[i].held);
        n_stored++;
    }
    printf("parameters           %" PRId64 " (%.2f billion)\n", parameters, (double)parameters / 1e9);
    printf("tensors              %zu stored: ", n_stored);
    print_counts(&stored);
    qwen3_dtype packed;
    for (size_t t = 0; t < stored.n; t++)
        if (qwen3_dtype_parse(stored.names[t], &packed) && strcmp(stored.names[t], qwen3_dtype_name(packed)) == 0)
            printf("packed as            %s\n", stored.names[t]);
    if (has_stored_types(tensors, n)) {
        printf("computed as          stored, without --dtype: matrices as ");
        print_counts(&held);
    }
    for (size_t i = 0; full && i < n; i++)
        printf("  %-60s %8" PRId64 " x %-8" PRId64 " %s\n", tensors[i].name, tensors[i].rows, tensors[i].cols,
               tensors[i].stored ? tensors[i].dtype : "not stored");
}

/* Nodes in powers of two up to `nodes`, and `nodes`; or ranks of one node. Returns how many. */
static int list_counts(int nodes, int counts[MAX_COUNTS])
{
    int n = 0;
    for (int c = 1; c < (nodes > 1 ? nodes : 17) && n < MAX_COUNTS - 1; c *= 2)
        counts[n++] = c;
    if (nodes > 1)
        counts[n++] = nodes;
    return n;
}

/* dtype AUTO: in the types of `tensors`. */
static void print_memory(const qwen3_config *config, const qwen3_tensor_info *tensors, size_t n_tensors, int nodes)
{
    static const qwen3_dtype dtypes[] = {QWEN3_DTYPE_F32, QWEN3_DTYPE_BF16, QWEN3_DTYPE_Q8, QWEN3_DTYPE_Q4,
                                         QWEN3_DTYPE_AUTO};
    static const qwen3_parallel_strategy strategies[] = {QWEN3_STRATEGY_HEAD_WISE, QWEN3_STRATEGY_SEQUENCE,
                                                         QWEN3_STRATEGY_HYBRID};
    int counts[MAX_COUNTS];
    const int n = list_counts(nodes, counts);

    printf("\nMiB of weights on the fullest rank, by number of %s\n  %-6s %-10s",
           nodes > 1 ? "nodes with one rank each" : "ranks (on one node)", "dtype", "strategy");
    for (int i = 0; i < n; i++)
        printf(" %9d", counts[i]);
    printf("\n");
    const size_t n_dtypes = sizeof dtypes / sizeof *dtypes - !has_stored_types(tensors, n_tensors);
    for (size_t d = 0; d < n_dtypes; d++) {
        const bool stored = dtypes[d] == QWEN3_DTYPE_AUTO;
        for (size_t s = 0; s < sizeof strategies / sizeof *strategies; s++) {
            printf("  %-6s %-10s", stored ? "stored" : qwen3_dtype_name(dtypes[d]), qwen3_strategy_name(strategies[s]));
            for (int i = 0; i < n; i++) {
                const int on = nodes > 1 ? counts[i] : 1;
                const uint64_t bytes =
                    stored ? qwen3_memory_estimate_tensors(config, tensors, n_tensors, strategies[s], counts[i], on)
                           : qwen3_memory_estimate(config, strategies[s], counts[i], on, dtypes[d]);
                printf(" %9.1f", (double)bytes / 1048576.0);
            }
            printf("\n");
        }
    }
    int64_t kv_vectors = 2 * config->num_layers * config->num_kv_heads, kv_values = kv_vectors * config->head_dim;
    printf("KV cache, bytes per token of the whole job: %" PRId64 " in q8, %" PRId64 " in bf16, %" PRId64 " in f32\n",
           kv_values + 4 * kv_vectors, 2 * kv_values, 4 * kv_values);
}

static bool has_head(const qwen3_tensor_info *tensors, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(tensors[i].name, "lm_head.weight") == 0)
            return true;
    return false;
}

/* On rank 0. */
static qwen3_status print_info(info_job *job, qwen3_error *err)
{
    qwen3_tensor_info *tensors = NULL;
    size_t n = 0;
    qwen3_status status = qwen3_config_read(job->spec, &job->config, err);
    if (status == QWEN3_OK)
        status = qwen3_model_tensors(job->spec, &tensors, &n, err);
    if (status == QWEN3_OK) {
        job->config.no_output_head = !job->config.tie_word_embeddings && !has_head(tensors, n);
        job->dtype = packed_type(tensors, n);
        print_configuration(job->spec, &job->config);
        print_tensors(&job->config, tensors, n, job->tensors);
        print_memory(&job->config, tensors, n, job->nodes);
        free(tensors);
    }
    return status;
}

/* Collective. */
static qwen3_status predict_here(const info_job *job, qwen3_comm *world, qwen3_error *err)
{
    qwen3_status status = threads_settle(world, job->speed.threads, job->bind, err);
    if (status == QWEN3_OK)
        status = print_speed(world, &job->config, job->dtype, &job->speed, err);
    return status;
}

qwen3_status command_info(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err)
{
    info_job job = {.nodes = 1, .bind = BIND_AUTO};
    option options[] = {
        model_spec_option(&job.spec),
        {.name = "nodes",
         .kind = OPTION_INT,
         .value = &job.nodes,
         .min = 1,
         .max = 1024,
         .help = "Memory by number of nodes up to this, with one rank each (default: by ranks of one node)"},
        {.name = "tensors", .kind = OPTION_FLAG, .value = &job.tensors, .help = "List every tensor"},
        {.name = "no-speed",
         .kind = OPTION_FLAG,
         .value = &job.no_speed,
         .help = "Do not measure the machine, which takes a second, to predict how fast the model should be here"},
        {.name = "machine",
         .kind = OPTION_TEXT,
         .value = &job.speed.machine_file,
         .argument = "FILE",
         .help = "Predict from rates of this machine as benchmark_qwen3 --machine-save wrote them"},
        {.name = "threads",
         .short_name = 't',
         .kind = OPTION_INT,
         .value = &job.speed.threads,
         .min = 1,
         .max = 4096,
         .help = "Threads of each rank (default: its share of the cores)"},
        bind_option(&job.bind),
    };
    enum { OPTIONS = sizeof options / sizeof *options };
    int rank = qwen3_comm_rank(world);
    command_line line = {"qwen3 info", self->summary, options, OPTIONS, argc, argv};
    bool finished = false;

    if (options_parse(&line, rank == 0 ? stdout : NULL, &finished, err) == QWEN3_OK && !finished) {
        if (rank == 0 && model_spec_check(job.spec, "DIR, FILE.gguf or synthetic:SIZE", err) == QWEN3_OK)
            print_info(&job, err);
    }
    qwen3_status status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK && !finished && !job.no_speed && job.nodes == 1)
        status = predict_here(&job, world, err);
    options_free(options, OPTIONS);
    return status;
}
