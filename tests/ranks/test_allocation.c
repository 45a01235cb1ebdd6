/* test_allocation.c - what happens where memory runs out: the 1st, 2nd, ... allocation of each call fails, on each rank
 * in turn, until the call no longer makes so many. All ranks then return the same error, nothing is kept, and what
 * was there before is usable: repeated, the call and all that follow give the bits of an undisturbed run (its values
 * where the model had to be opened without shared memory).
 *
 * Jansson is left out of it: where its memory runs out within a token it loses characters and goes on (2.14,
 * lex_save). Only a Jansson without any memory is tested.
 */
#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "check.h"
#include "comm/comm.h"
#include "support/allocations.h"

enum { SEQUENCES = 3, STEPS = 3, MOST_ROWS = 200 };

typedef enum call { OPEN_MODEL, OPEN_SESSION, FORWARD, LOGITS, SAMPLE, CALLS } call;

static const char *const call_names[CALLS] = {"qwen3_model_open", "qwen3_session_open", "qwen3_forward", "qwen3_logits",
                                              "qwen3_sample"};

/* ---- Steps: prefill of several sequences, more of them beside decode, decode --------------------------------- */

static const int step_rows[STEPS][SEQUENCES] = {{150, 2, 19}, {1, 23, 0}, {1, 1, 1}}; /* 150: two pages of the cache */

typedef struct step_input {
    size_t rows;
    int32_t tokens[MOST_ROWS], sequences[MOST_ROWS];
} step_input;

static void make_steps(step_input *steps, int64_t vocabulary, uint64_t *random)
{
    memset(steps, 0, STEPS * sizeof *steps);
    for (int i = 0; i < STEPS; i++)
        for (int sequence = 0; sequence < SEQUENCES; sequence++)
            for (int j = 0; j < step_rows[i][sequence]; j++) {
                steps[i].tokens[steps[i].rows] = (int32_t)(check_random(random) % (uint64_t)vocabulary);
                steps[i].sequences[steps[i].rows++] = sequence;
            }
}

/* ---- One run, in which one allocation may fail ------------------------------------------------------------------ */

/* Allocation n of a call fails on one rank; n = 0: none. */
typedef struct fault {
    call call;
    int step, rank;
    uint64_t n;
} fault;

typedef struct run {
    qwen3_comm *world, *own; /* own: messages of this test alone, whatever state a faulty call leaves the other in */
    const char *spec;
    qwen3_model_options options;
    step_input steps[STEPS];
    qwen3_model *model;
    qwen3_session *session;
    qwen3_sampler *samplers[SEQUENCES];
    int32_t tokens[SEQUENCES], expected_tokens[STEPS][SEQUENCES];
    float *logits, *expected; /* [SEQUENCES, vocabulary], [STEPS, SEQUENCES, vocabulary]; on rank 0 */
    size_t vocabulary;
    fault fault;
    bool reached;   /* the call made so many allocations */
    char name[256]; /* of the fault */
} run;

#define PATIENCE 60 /* seconds that a call may take */
static char hanging[300];

static void report_hang(int signal)
{
    (void)signal;
    if (write(STDERR_FILENO, hanging, strlen(hanging)) < 0)
        _exit(EXIT_FAILURE);
    _exit(EXIT_FAILURE);
}

static size_t open_files(void)
{
    size_t n = 0;
    DIR *list = opendir("/proc/self/fd");
    while (list && readdir(list))
        n++;
    if (list)
        closedir(list);
    return n;
}

static qwen3_status perform(run *r, call c, int step, qwen3_error *err)
{
    qwen3_session_options options = qwen3_session_options_default();
    options.max_sequences = SEQUENCES;
    options.max_tokens = 512;
    const qwen3_batch batch = {
        .n_tokens = r->steps[step].rows, .tokens = r->steps[step].tokens, .sequences = r->steps[step].sequences};
    switch (c) {
    case OPEN_MODEL:
        r->model = (qwen3_model *)r; /* must be overwritten */
        return qwen3_model_open(r->world, r->spec, &r->options, &r->model, err);
    case OPEN_SESSION:
        r->session = (qwen3_session *)r;
        return qwen3_session_open(r->model, &options, &r->session, err);
    case FORWARD:
        return qwen3_forward(r->session, &batch, err);
    case LOGITS:
        memset(r->logits, 0xff, SEQUENCES * r->vocabulary * sizeof *r->logits);
        return qwen3_logits(r->session, r->logits, err);
    default:
        return qwen3_sample(r->session, r->samplers, r->tokens, err);
    }
}

/* The call with its fault. The ranks must return the same. */
static qwen3_status perform_faulty(run *r, qwen3_error *err)
{
    const fault *f = &r->fault;
    uintptr_t caller;
    allocations_fail(qwen3_comm_rank(r->world) == f->rank ? f->n : 0);
    alarm(PATIENCE);
    qwen3_status status = perform(r, f->call, f->step, err);
    r->reached = allocations_failed(&caller);
    allocations_fail(0);
    double all[] = {r->reached ? (double)caller : 0, status, -(double)status};
    qwen3_comm_max(r->own, all, sizeof all / sizeof *all);
    alarm(0);
    r->reached = all[0] > 0;
    snprintf(r->name, sizeof r->name, "%s, step %d of %s (%s), allocation %d of rank %d (at %#jx)", call_names[f->call],
             f->step, r->spec, qwen3_strategy_name(r->options.strategy), (int)f->n, f->rank, (uintmax_t)all[0]);
    check(all[1] == -all[2], "%s: status %d here, %d to %d on all ranks", r->name, (int)status, (int)-all[2],
          (int)all[1]);
    return status;
}

/* What a failed call leaves. */
static void check_failure(run *r, qwen3_status status, const qwen3_error *err)
{
    const fault *f = &r->fault;
    check(r->reached, "%s: %s without a fault", r->name, err->message);
    check(status == QWEN3_ERR_MEMORY && err->status == status, "%s: status %d, error %d: %s", r->name, (int)status,
          (int)err->status, err->message);
    check(strnlen(err->message, sizeof err->message) > 8, "%s: message \"%s\"", r->name, err->message);
    check(err->rank == f->rank, "%s: the error names rank %d: %s", r->name, err->rank, err->message);
    if (f->call == OPEN_MODEL) {
        check(r->model == NULL, "%s: a model", r->name);
    } else if (f->call == OPEN_SESSION) {
        check(r->session == NULL, "%s: a session", r->name);
    } else {
        for (int sequence = 0; sequence < SEQUENCES; sequence++) {
            int64_t length = 0;
            for (int i = 0; i < f->step + (f->call != FORWARD); i++)
                length += step_rows[i][sequence];
            check(qwen3_session_length(r->session, sequence) == length, "%s: sequence %d holds %d tokens, not %d",
                  r->name, sequence, (int)qwen3_session_length(r->session, sequence), (int)length);
        }
    }
}

/* Makes a call; first with the fault, where it is meant for this call. */
static bool attempt(run *r, call c, int step)
{
    qwen3_error err = {0};
    if (r->fault.n > 0 && r->fault.call == c && r->fault.step == step) {
        qwen3_status status = perform_faulty(r, &err);
        if (status == QWEN3_OK)
            return true; /* so many are not made, or the call can do without */
        check_failure(r, status, &err);
    }
    qwen3_status status = perform(r, c, step, &err);
    check(status == QWEN3_OK, "%s: afterwards %s: %s", r->name, call_names[c], err.message);
    return status == QWEN3_OK;
}

static double relative_l2(const float *got, const float *expected, size_t n)
{
    double difference = 0, reference = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)got[i] - expected[i]) * ((double)got[i] - expected[i]);
        reference += (double)expected[i] * expected[i];
    }
    return sqrt(difference / reference);
}

/* The logits and drawn tokens of a step: kept by the run without a fault, compared by the others. */
static void compare(run *r, int step, bool keep)
{
    bool root = qwen3_comm_rank(r->world) == 0;
    size_t rows = qwen3_logits_rows(r->session), bytes = rows * r->vocabulary * sizeof *r->logits;
    float *expected = r->expected + (size_t)(step * SEQUENCES) * r->vocabulary;
    if (keep) {
        memcpy(expected, r->logits, root ? bytes : 0);
        memcpy(r->expected_tokens[step], r->tokens, rows * sizeof *r->tokens);
    }
    /* Ranks that got no shared memory when they opened the model exchange by messages, in an order of its own. */
    const bool messages = r->fault.n > 0 && r->fault.call == OPEN_MODEL;
    check(!root || (messages ? relative_l2(r->logits, expected, bytes / sizeof *expected) < 1e-2
                             : memcmp(r->logits, expected, bytes) == 0),
          "%s: other logits in step %d", r->name, step);
    check(memcmp(r->tokens, r->expected_tokens[step], rows * sizeof *r->tokens) == 0, "%s: other tokens in step %d",
          r->name, step);
}

static void open_samplers(run *r)
{
    qwen3_sampling_options options = qwen3_sampling_options_default();
    options.temperature = 1;
    options.top_p = 0.9;
    options.frequency_penalty = 0.5;
    for (int i = 0; i < SEQUENCES; i++) {
        qwen3_error err = {0};
        options.seed = (uint64_t)i;
        check(qwen3_sampler_open(qwen3_model_config(r->model), 0, &options, &r->samplers[i], &err) == QWEN3_OK, "%s",
              err.message);
    }
}

/* Session, steps, end; a model of its own where there is none. */
static void run_all(run *r, fault f, bool keep)
{
    const allocations before = allocations_live();
    const size_t files = open_files();
    const bool own_model = r->model == NULL;
    r->fault = f;
    r->reached = false;
    bool ok = !own_model || attempt(r, OPEN_MODEL, 0);
    if (ok)
        open_samplers(r);
    ok = ok && attempt(r, OPEN_SESSION, 0);
    for (int i = 0; ok && i < STEPS; i++) {
        ok = attempt(r, FORWARD, i) && attempt(r, LOGITS, i) && attempt(r, SAMPLE, i);
        if (ok)
            compare(r, i, keep);
    }
    qwen3_session_close(r->session);
    r->session = NULL;
    for (int i = 0; i < SEQUENCES; i++) {
        qwen3_sampler_close(r->samplers[i]);
        r->samplers[i] = NULL;
    }
    if (own_model) {
        qwen3_model_close(r->model);
        r->model = NULL;
    }
    const allocations after = allocations_live();
    check(after.blocks == before.blocks && after.mapped == before.mapped,
          "%s: %zu blocks and %zu bytes of mappings left", r->name, after.blocks - before.blocks,
          after.mapped - before.mapped);
    if (after.blocks > before.blocks)
        allocations_print(before.blocks);
    check(keep || open_files() == files, "%s: %zu open files, not %zu", r->name, open_files(), files);
}

/* Every allocation of one call, on every rank; with QWEN3_TEST_CASES one in three, by chance. Returns about how many
 * this rank makes. */
static int fail_each(run *r, call c, int step, uint64_t *random)
{
    const uint64_t most = getenv("QWEN3_TEST_CASES") ? 5 : 1;
    int made = 0;
    for (int rank = 0; rank < qwen3_comm_size(r->world); rank++) {
        uint64_t n = 0;
        do {
            n += 1 + check_random(random) % most;
            snprintf(hanging, sizeof hanging, "rank %d hangs: %s, step %d of %s, %s: allocation %d of rank %d failed\n",
                     qwen3_comm_rank(r->world), call_names[c], step, r->spec, qwen3_strategy_name(r->options.strategy),
                     (int)n, rank);
            run_all(r, (fault){c, step, rank, n}, false);
        } while (r->reached && check_failures < CHECK_PRINTED);
        made += rank == qwen3_comm_rank(r->world) ? (int)n - 1 : 0;
    }
    return made;
}

/* The calls up to `last`. */
static void check_model(qwen3_comm *world, const char *spec, qwen3_parallel_strategy strategy, call last,
                        uint64_t *random)
{
    run *r = calloc(1, sizeof *r);
    qwen3_config config;
    qwen3_error err = {0};
    check(qwen3_config_read(spec, &config, &err) == QWEN3_OK, "%s", err.message);
    *r = (run){.world = world, .spec = spec, .options = qwen3_model_options_default(), .name = "undisturbed"};
    r->vocabulary = (size_t)config.vocab_size;
    r->options.strategy = strategy;
    r->options.threads = qwen3_comm_size(world) == 1 ? 2 : 1;
    check(comm_split(world, 0, qwen3_comm_rank(world), &r->own, &err) == QWEN3_OK, "%s", err.message);
    make_steps(r->steps, config.vocab_size, random);
    r->logits = calloc((1 + STEPS) * SEQUENCES * r->vocabulary, sizeof *r->logits);
    r->expected = r->logits + SEQUENCES * r->vocabulary;
    run_all(r, (fault){0}, true);
    printf("%s, %s, rank %d:", spec, qwen3_strategy_name(strategy), qwen3_comm_rank(world));
    for (int c = 0; c <= (int)last; c++) {
        int made = 0;
        if (c == OPEN_SESSION)
            check(attempt(r, OPEN_MODEL, 0), "no model");
        for (int i = 0; i < (c < FORWARD ? 1 : STEPS); i++)
            made += fail_each(r, (call)c, i, random);
        check(made > 0 || c > FORWARD, "%s allocates nothing", call_names[c]);
        printf(" %d in %s", made, call_names[c]);
    }
    printf("\n");
    qwen3_model_close(r->model);
    comm_free(r->own);
    free(r->logits);
    free(r);
}

/* ---- Text: calls of one rank --------------------------------------------------------------------- */

static qwen3_tokenizer *tokenizer;
static qwen3_chat_template *template;

static qwen3_status open_tokenizer(qwen3_error *err)
{
    qwen3_tokenizer *t = tokenizer;
    qwen3_status status = qwen3_tokenizer_open(QWEN3_TEST_MODEL, &t, err);
    check(!status == !!t, "status %d with a tokenizer, or none without", (int)status);
    qwen3_tokenizer_close(t);
    return status;
}

static qwen3_status open_gguf_tokenizer(qwen3_error *err)
{
    qwen3_tokenizer *t = tokenizer;
    qwen3_status status = qwen3_tokenizer_open(QWEN3_TEST_GGUF, &t, err);
    check(!status == !!t, "status %d with a tokenizer, or none without", (int)status);
    qwen3_tokenizer_close(t);
    return status;
}

static qwen3_status read_gguf_generation_config(qwen3_error *err)
{
    qwen3_generation_config config;
    return qwen3_generation_config_read(QWEN3_TEST_GGUF, &config, err);
}

static qwen3_status read_generation_config(qwen3_error *err)
{
    qwen3_generation_config config;
    return qwen3_generation_config_read(QWEN3_TEST_MODEL, &config, err);
}

static qwen3_status open_template(qwen3_error *err)
{
    qwen3_chat_template *t = template;
    qwen3_status status = qwen3_chat_template_open(QWEN3_TEST_MODEL, &t, err);
    check(!status == !!t, "status %d with a template, or none without", (int)status);
    qwen3_chat_template_close(t);
    return status;
}

static qwen3_status render(qwen3_error *err)
{
    static const char conversation[] = "[{\"role\": \"user\", \"content\": \"What is a rank, and why?\"}]";
    qwen3_chat_prompt prompt;
    const qwen3_render_args args = {.conversation = conversation, .conversation_bytes = strlen(conversation)};
    qwen3_status status = qwen3_chat_template_render(template, &args, &prompt, err);
    check(!status == !!prompt.text, "status %d with a prompt, or none without", (int)status);
    qwen3_chat_prompt_free(&prompt);
    return status;
}

/* There and back, whole and token by token. */
static qwen3_status encode_and_decode(qwen3_error *err)
{
    static const char text[] = "A rank, u\xcc\x88"
                               "ber alles <|im_end|>";
    int32_t *ids = (int32_t *)1;
    char *back = NULL;
    size_t n, length;
    qwen3_text_stream *stream = NULL;
    const qwen3_encode_args args = {.text = text, .length = strlen(text)};
    qwen3_status status = qwen3_tokenizer_encode(tokenizer, &args, &ids, &n, err);
    check(!status == !!ids, "status %d with ids, or none without", (int)status);
    if (!status)
        status = qwen3_tokenizer_decode(tokenizer, ids, n, false, &back, &length, err);
    check(!status == !!back, "status %d with a text, or none without", (int)status);
    if (!status)
        status = qwen3_text_stream_open(tokenizer, false, &stream, err);
    check(!status == !!stream, "status %d with a stream, or none without", (int)status);
    for (size_t i = 0; !status && i < n; i++) {
        const char *part;
        status = qwen3_text_stream_push(stream, ids[i], &part, &length, err);
    }
    qwen3_text_stream_close(stream);
    free(back);
    free(ids);
    return status;
}

static void *no_memory(size_t bytes)
{
    (void)bytes;
    return NULL;
}

static void check_text(void)
{
    static const struct {
        const char *name;
        qwen3_status (*perform)(qwen3_error *err);
        bool json; /* reads JSON through Jansson */
    } calls[] = {{"opening a tokenizer", open_tokenizer, true},
                 {"reading a generation config", read_generation_config, true},
                 {"opening a chat template", open_template, true},
                 {"opening a tokenizer of a GGUF file", open_gguf_tokenizer, false},
                 {"reading a generation config of a GGUF file", read_gguf_generation_config, false},
                 {"rendering", render, true},
                 {"encoding and decoding", encode_and_decode, false}};
    qwen3_error err = {0};
    check(qwen3_tokenizer_open(QWEN3_TEST_MODEL, &tokenizer, &err) == QWEN3_OK, "%s", err.message);
    check(qwen3_chat_template_open(QWEN3_TEST_MODEL, &template, &err) == QWEN3_OK, "%s", err.message);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        bool failed = true;
        uintptr_t caller;
        uint64_t n = 0;
        const allocations before = allocations_live();
        while (failed) {
            memset(&err, 0, sizeof err);
            allocations_fail(++n);
            qwen3_status status = calls[i].perform(&err);
            failed = allocations_failed(&caller);
            allocations_fail(0);
            check(status == (failed ? QWEN3_ERR_MEMORY : QWEN3_OK), "%s, allocation %d (at %#jx): status %d: %s",
                  calls[i].name, (int)n, (uintmax_t)caller, (int)status, err.message);
            const allocations after = allocations_live();
            check(after.blocks == before.blocks && after.mapped == before.mapped,
                  "%s, allocation %d (at %#jx): %zu blocks left", calls[i].name, (int)n, (uintmax_t)caller,
                  after.blocks - before.blocks);
        }
        check(n > 1, "%s allocates nothing", calls[i].name);
        printf("%s: %d allocations\n", calls[i].name, (int)n - 1);
        if (!calls[i].json)
            continue;
        memset(&err, 0, sizeof err);
        json_malloc_t json_malloc;
        json_free_t json_free;
        json_get_alloc_funcs(&json_malloc, &json_free);
        json_set_alloc_funcs(no_memory, json_free);
        qwen3_status status = calls[i].perform(&err);
        json_set_alloc_funcs(json_malloc, json_free);
        check(status == QWEN3_ERR_MEMORY, "%s without memory for JSON: status %d: %s", calls[i].name, (int)status,
              err.message);
    }
    qwen3_chat_template_close(template);
    qwen3_tokenizer_close(tokenizer);
}

int main(int argc, char **argv)
{
    uint64_t random;
    qwen3_comm *world = check_begin(argc, argv, 20261127, &random);
    signal(SIGALRM, report_hang);
    const qwen3_parallel_strategy strategies[] = {QWEN3_STRATEGY_HEAD_WISE, QWEN3_STRATEGY_SEQUENCE};
    for (int i = 0; i < (qwen3_comm_size(world) > 1 ? 2 : 1); i++) {
        check_model(world, "synthetic:tiny", strategies[i], SAMPLE, &random);
        check_model(world, "synthetic:tiny-moe:layers=1", strategies[i], FORWARD, &random);
        check_model(world, QWEN3_TEST_MODEL, strategies[i], OPEN_MODEL, &random);
        check_model(world, QWEN3_TEST_GGUF, strategies[i], OPEN_MODEL, &random);
    }
    if (qwen3_comm_size(world) == 1)
        check_text();
    return check_end(world);
}
