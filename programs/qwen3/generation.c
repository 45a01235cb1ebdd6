/* generation.c - see generation.h. */
#include "generation.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "chat_template_option.h"
#include "common/loading.h"
#include "common/program.h"
#include "common/thread_warning.h"
#include "common/topology.h"

/* Without a known template plain completion is still possible, and the message says so. */
static qwen3_status open_template(generation *g, const char *dir, qwen3_error *err)
{
    qwen3_error fault = {0};
    if (chat_template_choose(g->arguments->chat_template, dir, &g->chat, &fault) != QWEN3_OK)
        return set_error(err, fault.status,
                         "%.800s; --chat-template chooses another one, and \"qwen3 run --raw\" completes text without",
                         fault.message);
    if (g->arguments->no_thinking && qwen3_chat_template_thinking(g->chat) == QWEN3_THINKING_ALWAYS)
        return set_error(err, QWEN3_ERR_ARGUMENT, "--no-thinking: the model in %s always reasons", dir);
    if (g->arguments->thinking && qwen3_chat_template_thinking(g->chat) == QWEN3_THINKING_NEVER)
        return set_error(err, QWEN3_ERR_ARGUMENT, "--thinking: the model in %s never reasons", dir);
    return QWEN3_OK;
}

/* A model that reasons, and always takes the likeliest token only because a line is missing in a file, may repeat
 * itself without end. On rank 0. */
static void warn_greedy(const generation *g, const command_line *line)
{
    const bool reasons = g->chat && qwen3_chat_template_thinking(g->chat) != QWEN3_THINKING_NEVER;
    if (g->config.greedy_by_default && reasons && !g->arguments->no_thinking && !option_given(line, "temperature"))
        fprintf(
            stderr,
            "qwen3: warning: %s%s, so that the likeliest token is always taken, and a model that reasons may repeat "
            "itself; --temperature 0.6 draws tokens\n",
            g->arguments->model.spec,
            model_spec_is_gguf(g->arguments->model.spec) ? " does not say general.sampling.temp"
                                                         : "/generation_config.json does not say do_sample");
}

/* On rank 0. */
static qwen3_status open_text(generation *g, const qwen3_config *config, bool raw, qwen3_error *err)
{
    const char *dir = g->arguments->model.spec;
    if (qwen3_tokenizer_open(dir, &g->tokenizer, err) != QWEN3_OK)
        return err->status;
    g->n_tokens = qwen3_tokenizer_vocab_size(g->tokenizer);
    if (g->n_tokens > config->vocab_size)
        return set_error(err, QWEN3_ERR_CONFIG, "%s: the tokenizer has ids up to %d, vocab_size of config.json is %lld",
                         dir, (int)g->n_tokens - 1, (long long)config->vocab_size);
    g->think = qwen3_tokenizer_find(g->tokenizer, "<think>", strlen("<think>"));
    g->think_end = qwen3_tokenizer_find(g->tokenizer, "</think>", strlen("</think>"));
    return raw ? QWEN3_OK : open_template(g, dir, err);
}

/* On rank 0. */
static qwen3_status check_context(generation *g, const qwen3_config *config, qwen3_error *err)
{
    g->most = config->max_positions;
    g->context = g->arguments->context ? g->arguments->context : g->most;
    if (g->context > g->most)
        return set_error(err, QWEN3_ERR_ARGUMENT, "--context: got %lld, expected at most max_position_embeddings, %lld",
                         (long long)g->context, (long long)g->most);
    return QWEN3_OK;
}

const char *generation_context_hint(const generation *g)
{
    return g->context < g->most ? "--context makes more room" : "the model's maximum, max_position_embeddings";
}

/* 32 bits, short enough to be typed. On rank 0. */
static void choose_seed(generation *g)
{
    if (getrandom(&g->config.sampling.seed, sizeof(uint32_t), 0) < 0)
        g->config.sampling.seed = 0;
}

/* What rank 0 has read holds for all, whatever the files of other ranks say: sizes of memory and when to stop depend on
 * it. Collective. */
static void share_text(generation *g)
{
    struct {
        qwen3_generation_config config;
        int32_t n_tokens;
        int64_t context, most;
    } shared = {g->config, g->n_tokens, g->context, g->most};
    qwen3_comm_broadcast(g->world, &shared, sizeof shared);
    qwen3_comm_broadcast(g->world, g->bias, sizeof g->bias);
    g->config = shared.config;
    g->config.sampling.bias = g->bias;
    g->n_tokens = shared.n_tokens;
    g->context = shared.context;
    g->most = shared.most;
}

/* What rank 0 reads for all: sampling options, length of the context, tokenizer and chat template. */
static qwen3_status read_text(generation *g, const qwen3_config *config, const command_line *line, bool raw,
                              qwen3_error *err)
{
    const generation_arguments *a = g->arguments;
    if (qwen3_generation_config_read(a->model.spec, &g->config, err) == QWEN3_OK &&
        generation_sampling(a, line, g->bias, &g->config.sampling, err) == QWEN3_OK &&
        check_context(g, config, err) == QWEN3_OK)
        open_text(g, config, raw, err);
    if (err->status == QWEN3_OK)
        warn_greedy(g, line);
    if (!option_given(line, "seed"))
        choose_seed(g);
    return err->status;
}

qwen3_status generation_open_text(generation *g, qwen3_comm *world, const generation_arguments *arguments,
                                  const command_line *line, bool raw, qwen3_error *err)
{
    qwen3_config config;
    *g = (generation){.world = world, .rank = qwen3_comm_rank(world), .arguments = arguments, .think = -1};
    g->think_end = -1;
    if (qwen3_config_read(arguments->model.spec, &config, err) == QWEN3_OK && g->rank == 0)
        read_text(g, &config, line, raw, err);
    qwen3_status status = qwen3_comm_agree(world, err);
    if (status != QWEN3_OK)
        return status;
    share_text(g);
    g->held = allocate((size_t)g->context, sizeof *g->held, "tokens", err);
    /* Options out of their range are found before the weights are loaded. */
    if (g->held)
        qwen3_sampler_open(&config, g->n_tokens, &g->config.sampling, &g->sampler, err);
    return qwen3_comm_agree(world, err);
}

qwen3_status generation_open_model(generation *g, qwen3_error *err)
{
    qwen3_model_options options = g->arguments->model.model;
    qwen3_session_options session = g->arguments->model.session;
    qwen3_status status = threads_settle(g->world, options.threads, g->arguments->model.bind, err);
    if (status == QWEN3_OK)
        status = load_model(g->world, g->arguments->model.spec, &options, &g->model, err);
    if (status != QWEN3_OK)
        return status;
    plan_warn(g->world, g->model);
    model_conversion_note(g->world, g->arguments->model.spec, g->model, options.dtype);
    session.max_sequences = 1;
    session.max_tokens = g->context;
    return qwen3_session_open(g->model, &session, &g->session, err);
}

qwen3_status generation_set_sampling(generation *g, const qwen3_sampling_options *sampling, qwen3_error *err)
{
    qwen3_sampler *sampler;
    qwen3_status status = qwen3_sampler_open(qwen3_model_config(g->model), g->n_tokens, sampling, &sampler, err);
    if (status != QWEN3_OK)
        return status;
    qwen3_sampler_close(g->sampler);
    g->sampler = sampler;
    g->config.sampling = *sampling;
    return QWEN3_OK;
}

void generation_close(generation *g)
{
    qwen3_sampler_close(g->sampler);
    qwen3_session_close(g->session);
    qwen3_model_close(g->model);
    qwen3_chat_template_close(g->chat);
    qwen3_tokenizer_close(g->tokenizer);
    free(g->held);
}
