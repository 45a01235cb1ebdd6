/* model_arguments.c - see model_arguments.h. */
#include "common/model_arguments.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/program.h"
#include "common/thread_warning.h"

#define MAX_THREADS 4096
#define MAX_BLOCK 65536

model_arguments model_arguments_default(void)
{
    return (model_arguments){.model = qwen3_model_options_default(), .session = qwen3_session_options_default()};
}

option model_spec_option(char **spec)
{
    return (option){.name = "model",
                    .short_name = 'm',
                    .kind = OPTION_TEXT,
                    .value = spec,
                    .argument = "DIR|FILE.gguf|synthetic:SIZE",
                    .help = MODEL_SPEC_HELP};
}

/* How a step is split and computed. */
static void add_step_options(model_arguments *a, option_table *table)
{
    const option options[] = {
        {.name = "q-block-size",
         .kind = OPTION_INT,
         .value = &a->session.q_block_size,
         .min = 1,
         .max = MAX_BLOCK,
         .help = "Queries per attention tile (default: chosen)"},
        {.name = "kv-block-size",
         .kind = OPTION_INT,
         .value = &a->session.kv_block_size,
         .min = 1,
         .max = MAX_BLOCK,
         .help = "Keys per attention tile, rounded up to whole KV pages (default: chosen)"},
        {.name = "token-split-min",
         .kind = OPTION_INT64,
         .value = &a->session.token_split_min,
         .min = 1,
         .max = INT32_MAX,
         .help = "Steps with at least N rows split rows, smaller ones weights (default: chosen)"},
        {.name = "overlap-min-rows",
         .kind = OPTION_INT64,
         .value = &a->session.overlap_min_rows,
         .min = 2,
         .max = INT32_MAX,
         .help =
             "Over several nodes, steps with at least N rows for each rank are computed in two parts, whose messages "
             "and products overlap (default: chosen)"},
        {.name = "wire",
         .kind = OPTION_KV_DTYPE,
         .value = &a->session.wire,
         .argument = "f32|bf16|q8",
         .help = "How long sums over several nodes travel: bf16 and q8 are fewer bytes, and an error (default f32)"},
    };
    option_table_add(table, sizeof options / sizeof *options, options);
}

void model_arguments_options(model_arguments *a, option_table *table)
{
    const option options[] = {
        model_spec_option(&a->spec),
        {.name = "parallel-strategy",
         .kind = OPTION_STRATEGY,
         .value = &a->model.strategy,
         .help = "How the ranks share the work (default auto)"},
        {.name = "grid",
         .kind = OPTION_GRID,
         .value = a->grid,
         .help = "S sequence groups x H head groups, for hybrid; S * H = ranks (default: chosen)"},
        {.name = "machine",
         .kind = OPTION_TEXT,
         .value = &a->machine_file,
         .argument = "FILE",
         .help =
             "What auto goes by, and with it the choice of what ranks send: rates of this machine as benchmark_qwen3 "
             "--machine-save wrote them (default: auto measures)"},
        {.name = "attention-algo",
         .kind = OPTION_ALGORITHM,
         .value = &a->session.algorithm,
         .help = "How a rank computes attention (default auto)"},
        {.name = "dtype",
         .kind = OPTION_DTYPE,
         .value = &a->model.dtype,
         .help = a->model.dtype == QWEN3_DTYPE_F32
                     ? "Type of weights; q8, q4: quantised as they are loaded (default f32)"
                     : "Type of weights; q8, q4: quantised as they are loaded (default bf16, that of a packed "
                       "model, or those of a GGUF file with quantised weights)"},
        {.name = "kv-dtype",
         .kind = OPTION_KV_DTYPE,
         .value = &a->model.kv_dtype,
         .help = "Type of keys and values (default auto: that of the weights, bf16 where these are quantised, f32 in "
                 "small models)"},
        {.name = "isa",
         .kind = OPTION_ISA,
         .value = &a->model.isa,
         .help = "Instruction-set level of the kernels (default auto: the best)"},
        {.name = "threads",
         .short_name = 't',
         .kind = OPTION_INT,
         .value = &a->model.threads,
         .min = 1,
         .max = MAX_THREADS,
         .help = "Threads of each rank (default: its share of the cores)"},
        bind_option(&a->bind),
        {.name = "deterministic",
         .kind = OPTION_FLAG,
         .value = &a->model.deterministic,
         .help = "The same bits for any number of ranks and threads and any strategy; slower"},
    };
    option_table_add(table, sizeof options / sizeof *options, options);
    add_step_options(a, table);
    /* The last one: programs that draw tokens put their own in its place. */
    const option seed = {.name = "seed",
                         .kind = OPTION_UINT64,
                         .value = &a->model.seed,
                         .help = "Seed of synthetic weights and tokens (default 1)"};
    option_table_add(table, 1, &seed);
}

/* The name of a model that scripts/get-model.sh fetches, if the last part of a path is one; otherwise NULL. */
static const char *published_name(const char *path)
{
    static const char *const names[] = {
        "Qwen3-0.6B",
        "Qwen3-1.7B",
        "Qwen3-4B",
        "Qwen3-8B",
        "Qwen3-14B",
        "Qwen3-32B",
        "Qwen3-4B-Instruct-2507",
        "Qwen3-4B-Thinking-2507",
        "Qwen3-0.6B-Base",
        "Qwen3-1.7B-Base",
        "Qwen3-4B-Base",
        "Qwen3-8B-Base",
        "Qwen3-14B-Base",
        "Qwen3-30B-A3B",
        "Qwen3-30B-A3B-Instruct-2507",
        "Qwen3-30B-A3B-Thinking-2507",
        "Qwen3-235B-A22B",
        "Qwen3-235B-A22B-Instruct-2507",
        "Qwen3-235B-A22B-Thinking-2507",
        "Qwen3-Coder-30B-A3B-Instruct",
        "Qwen3-Coder-480B-A35B-Instruct",
        "Qwen3-30B-A3B-Base",
        "Qwen3-0.6B-FP8",
        "Qwen3-1.7B-FP8",
        "Qwen3-4B-FP8",
        "Qwen3-8B-FP8",
        "Qwen3-14B-FP8",
        "Qwen3-32B-FP8",
        "Qwen3-4B-Instruct-2507-FP8",
        "Qwen3-4B-Thinking-2507-FP8",
        "Qwen3-30B-A3B-FP8",
        "Qwen3-30B-A3B-Instruct-2507-FP8",
        "Qwen3-30B-A3B-Thinking-2507-FP8",
        "Qwen3-235B-A22B-FP8",
        "Qwen3-235B-A22B-Instruct-2507-FP8",
        "Qwen3-235B-A22B-Thinking-2507-FP8",
        "Qwen3-Coder-30B-A3B-Instruct-FP8",
        "Qwen3-Coder-480B-A35B-Instruct-FP8",
        "Qwen3-0.6B-GPTQ-Int8",
        "Qwen3-1.7B-GPTQ-Int8",
        "Qwen3-4B-AWQ",
        "Qwen3-8B-AWQ",
        "Qwen3-14B-AWQ",
        "Qwen3-32B-AWQ",
        "Qwen3-30B-A3B-GPTQ-Int4",
        "Qwen3-235B-A22B-GPTQ-Int4",
        "Qwen3-Embedding-0.6B",
        "Qwen3-Embedding-4B",
        "Qwen3-Embedding-8B",
        "Qwen3-Reranker-0.6B",
        "Qwen3-Reranker-4B",
        "Qwen3-Reranker-8B",
    };
    size_t end = strlen(path);
    while (end > 0 && path[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == end - begin && strncasecmp(names[i], path + begin, end - begin) == 0)
            return names[i];
    return NULL;
}

static bool ends_in(const char *text, const char *ending)
{
    size_t n = strlen(text), length = strlen(ending);
    return n >= length && strcasecmp(text + n - length, ending) == 0;
}

/* Turns the path of a file beside a config.json into that of their directory; false if it is none. */
static bool take_directory(char *spec)
{
    char *slash = strrchr(spec, '/'), *name = slash ? slash + 1 : spec, config[PATH_MAX];
    int length = snprintf(config, sizeof config, "%.*sconfig.json", (int)(name - spec), spec);
    if ((!ends_in(name, ".safetensors") && !ends_in(name, ".json")) || length >= (int)sizeof config ||
        access(config, F_OK) != 0)
        return false;
    if (!slash) /* the directory is "." */
        *name++ = '.';
    else if (slash > spec) /* that of "/config.json" is "/" */
        name = slash;
    *name = '\0';
    return true;
}

qwen3_status model_file_check(const char *spec, const char *expected, qwen3_error *err)
{
    struct stat info;
    if (!spec)
        return set_error(err, QWEN3_ERR_ARGUMENT, "--model is missing, expected %s", expected);
    if (stat(spec, &info) == 0 || errno != ENOENT)
        return QWEN3_OK;
    const char *name = published_name(spec);
    if (name)
        return set_error(
            err, QWEN3_ERR_IO,
            "--model: %s: no such directory; \"scripts/get-model.sh %s\" fetches this model into models/%s", spec, name,
            name);
    return set_error(err, QWEN3_ERR_IO,
                     "--model: %s: no such file or directory, expected %s (README.md says where models come from)",
                     spec, expected);
}

qwen3_status model_spec_check(char *spec, const char *expected, qwen3_error *err)
{
    struct stat info;
    if (spec && strncmp(spec, "synthetic:", strlen("synthetic:")) == 0)
        return QWEN3_OK;
    if (model_file_check(spec, expected, err) != QWEN3_OK)
        return err->status;
    if (stat(spec, &info) != 0 || S_ISDIR(info.st_mode) || ends_in(spec, ".gguf") || take_directory(spec))
        return QWEN3_OK;
    return set_error(err, QWEN3_ERR_ARGUMENT,
                     "--model: %s: is a file, expected %s (of a checkpoint, any file beside its config.json will do)",
                     spec, expected);
}

bool model_spec_is_gguf(const char *spec)
{
    struct stat info;
    return ends_in(spec, ".gguf") && stat(spec, &info) == 0 && !S_ISDIR(info.st_mode);
}

static bool is_grouped(const char *type)
{
    return strncmp(type, "GPTQ", 4) == 0 || strncmp(type, "AWQ", 3) == 0;
}

/* Whether BF16 rounds a type that it is worth speaking of: of a checkpoint that of quantised weights, of a GGUF file
 * F16 and F32, where types are mixed. */
static bool is_rounded(const qwen3_tensor_info *t, bool gguf)
{
    if (strcmp(t->held, "bf16") != 0)
        return false;
    if (gguf)
        return strcmp(t->dtype, "F16") == 0 || strcmp(t->dtype, "F32") == 0;
    return strcmp(t->dtype, "F8_E4M3") == 0 || is_grouped(t->dtype);
}

/* The types of matrices that are rounded to BF16, "F16, F32"; "" where there are none. */
static void list_rounded(const qwen3_tensor_info *tensors, size_t n, bool gguf, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < n && used < size; i++)
        if (is_rounded(&tensors[i], gguf) && !strstr(text, tensors[i].dtype))
            used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", tensors[i].dtype);
}

/* The matrices in groups that are held as f32; *type is that of one of them. */
static size_t count_expanded(const qwen3_tensor_info *tensors, size_t n, const char **type)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        if (is_grouped(tensors[i].dtype) && strcmp(tensors[i].held, "f32") == 0) {
            *type = tensors[i].dtype;
            count++;
        }
    return count;
}

void model_conversion_note(const qwen3_comm *world, const char *spec, const qwen3_model *model, qwen3_dtype dtype)
{
    qwen3_tensor_info *tensors = NULL;
    size_t n = 0;
    char types[128];
    const char *type = "";
    if (qwen3_comm_rank(world) != 0 || dtype != QWEN3_DTYPE_AUTO ||
        (model ? qwen3_model_held_tensors(model, &tensors, &n, NULL) : qwen3_model_tensors(spec, &tensors, &n, NULL)))
        return;
    list_rounded(tensors, n, model_spec_is_gguf(spec), types, sizeof types);
    if (types[0])
        fprintf(stderr,
                "qwen3: note: %s weights are rounded to bf16; --dtype f32 computes with the file's own values\n",
                types);
    const size_t expanded = count_expanded(tensors, n, &type);
    if (expanded)
        fprintf(stderr,
                "qwen3: note: %zu %s matrices are expanded to f32: they have 8 bits, or groups that are no runs of 32, "
                "64, ... columns, as those in order of activations; --dtype bf16, q8 and q4 need less memory\n",
                expanded, type);
    free(tensors);
}

/* "1x6, 2x3, 3x2, 6x1" */
static void list_grids(int ranks, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (int s = 1; s <= ranks && used < size; s++)
        if (ranks % s == 0)
            used += (size_t)snprintf(text + used, size - used, "%s%dx%d", used ? ", " : "", s, ranks / s);
}

/* What --grid means. */
static qwen3_status check_grid(model_arguments *a, const command_line *line, int ranks, qwen3_error *err)
{
    if (!option_given(line, "grid"))
        return QWEN3_OK;
    if (!option_given(line, "parallel-strategy"))
        a->model.strategy = QWEN3_STRATEGY_HYBRID;
    if (a->model.strategy != QWEN3_STRATEGY_HYBRID)
        return set_error(err, QWEN3_ERR_ARGUMENT,
                         "--grid contradicts --parallel-strategy %s: a grid is given for hybrid only",
                         qwen3_strategy_name(a->model.strategy));
    if ((int64_t)a->grid[0] * a->grid[1] != ranks) {
        char grids[256];
        list_grids(ranks, grids, sizeof grids);
        return set_error(err, QWEN3_ERR_ARGUMENT, "--grid: got %dx%d (%lld ranks), expected a grid of %d ranks: %s",
                         a->grid[0], a->grid[1], (long long)a->grid[0] * a->grid[1], ranks, grids);
    }
    a->model.grid_sequence = a->grid[0];
    a->model.grid_heads = a->grid[1];
    return QWEN3_OK;
}

qwen3_status model_arguments_check(model_arguments *a, const command_line *line, int ranks, qwen3_error *err)
{
    if (check_grid(a, line, ranks, err) != QWEN3_OK || !a->machine_file)
        return err->status;
    a->model.machine = &a->machine;
    return qwen3_machine_read(a->machine_file, &a->machine, err);
}
