/* generation_options.c - the command line of run and chat. */
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "chat_template_option.h"
#include "common/program.h"
#include "generation.h"

#define MAX_PENALTY 1e6

generation_arguments generation_arguments_default(void)
{
    generation_arguments a = {.model = model_arguments_default(), .sampling = qwen3_sampling_options_default()};
    a.model.model.expect_decode = true;
    return a;
}

static void text_options(generation_arguments *a, option_table *table)
{
    const option options[] = {
        {.name = "system",
         .kind = OPTION_TEXT,
         .value = &a->system,
         .argument = "TEXT",
         .utf8 = true,
         .help = "System message"},
        chat_template_option(&a->chat_template),
        {.name = "thinking",
         .kind = OPTION_FLAG,
         .value = &a->thinking,
         .help = "Let the model reason before it answers (default, where it can)"},
        {.name = "no-thinking", .kind = OPTION_FLAG, .value = &a->no_thinking, .help = "Ask for no reasoning"},
        {.name = "hide-thinking", .kind = OPTION_FLAG, .value = &a->hide_thinking, .help = "Do not show reasoning"},
        {.name = "max-tokens",
         .short_name = 'n',
         .kind = OPTION_INT64,
         .value = &a->max_tokens,
         .min = 1,
         .max = INT32_MAX,
         .help = "End an answer after N tokens (default: where the context is full)"},
        {.name = "context",
         .short_name = 'c',
         .kind = OPTION_INT64,
         .value = &a->context,
         .min = 1,
         .max = INT32_MAX,
         .help = "Tokens of prompt and answer together (default: as many as the model has positions; memory is taken "
                 "as it is needed)"},
        {.name = "stop",
         .kind = OPTION_TEXTS,
         .value = &a->stop,
         .argument = "STRING",
         .utf8 = true,
         .help = "End an answer before this string, in reasoning too; can be given several times"},
        {.name = "json", .kind = OPTION_FLAG, .value = &a->json, .help = "Write events, a JSON object a line"},
        {.name = "stats",
         .kind = OPTION_FLAG,
         .value = &a->stats,
         .help = "Write counts and speeds to standard error after each answer"},
    };
    option_table_add(table, sizeof options / sizeof *options, options);
}

void generation_sampling_options(generation_arguments *a, option_table *table)
{
    qwen3_sampling_options *s = &a->sampling;
    const option options[] = {
        {.name = "temperature",
         .kind = OPTION_DOUBLE,
         .value = &s->temperature,
         .most = 1e6,
         .help = "0 takes the likeliest token, more is more varied (default: as for all of these options, what "
                 "generation_config.json says)"},
        {.name = "top-k",
         .kind = OPTION_INT,
         .value = &s->top_k,
         .max = INT32_MAX,
         .help = "Draw from the N likeliest tokens, 0 = from all"},
        {.name = "top-p",
         .kind = OPTION_DOUBLE,
         .value = &s->top_p,
         .most = 1,
         .help = "Draw from the likeliest tokens that have this probability together, 1 = from all"},
        {.name = "min-p",
         .kind = OPTION_DOUBLE,
         .value = &s->min_p,
         .most = 1,
         .help = "Draw from tokens that have this part of the largest probability, 0 = from all"},
        {.name = "presence-penalty",
         .kind = OPTION_DOUBLE,
         .value = &s->presence_penalty,
         .least = -MAX_PENALTY,
         .most = MAX_PENALTY,
         .help = "Taken from the logit of a token that was generated already"},
        {.name = "frequency-penalty",
         .kind = OPTION_DOUBLE,
         .value = &s->frequency_penalty,
         .least = -MAX_PENALTY,
         .most = MAX_PENALTY,
         .help = "The same, once for each time"},
        {.name = "repetition-penalty",
         .kind = OPTION_DOUBLE,
         .value = &s->repetition_penalty,
         .least = DBL_MIN,
         .most = MAX_PENALTY,
         .help = "Divides the logit of a token that is in prompt or answer already, 1 = off"},
    };
    option_table_add(table, sizeof options / sizeof *options, options);
}

static option bias_option(generation_arguments *a)
{
    return (option){.name = "logit-bias",
                    .kind = OPTION_TEXTS,
                    .value = &a->bias,
                    .argument = "ID=VALUE",
                    .help = "Added to the logit of this token, -inf forbids it; can be given several times"};
}

static option seed_option(generation_arguments *a)
{
    return (option){.name = "seed",
                    .kind = OPTION_UINT64,
                    .value = &a->sampling.seed,
                    .help = "Seed of the draws (default: another one each time)"};
}

void generation_options(generation_arguments *a, option_table *table)
{
    const option bias = bias_option(a);
    text_options(a, table);
    generation_sampling_options(a, table);
    option_table_add(table, 1, &bias);
    option *model = &table->options[table->n];
    model_arguments_options(&a->model, table);
    model->argument = "DIR";
    model->help = "Directory with weights, configuration, tokenizer and chat template, or packed model";
    table->options[table->n - 1] = seed_option(a);
}

static qwen3_status read_bias(const char *text, qwen3_logit_bias *bias, qwen3_error *err)
{
    char *end;
    errno = 0;
    long id = strtol(text, &end, 10);
    bool good = *text >= '0' && *text <= '9' && !errno && id <= INT32_MAX && *end == '=';
    const char *value = good ? end + 1 : text;
    good = good && *value && !value[strspn(value, "+-.0123456789eEinf")];
    float number = good ? strtof(value, &end) : 0;
    if (!good || *end || isnan(number) || (isinf(number) && number > 0))
        return set_error(err, QWEN3_ERR_ARGUMENT,
                         "--logit-bias: got \"%s\", expected ID=VALUE with a token id and a number or -inf", text);
    *bias = (qwen3_logit_bias){(int32_t)id, number};
    return QWEN3_OK;
}

qwen3_status generation_check(generation_arguments *a, const command_line *line, int ranks, qwen3_error *err)
{
    if (model_spec_check(a->model.spec, "DIR, such as models/demo, or FILE.gguf", err) != QWEN3_OK)
        return err->status;
    if (strncmp(a->model.spec, "synthetic:", strlen("synthetic:")) == 0)
        return set_error(err, QWEN3_ERR_ARGUMENT, "--model: %s has no tokenizer, expected DIR or FILE.gguf",
                         a->model.spec);
    if (a->thinking && a->no_thinking)
        return set_error(err, QWEN3_ERR_ARGUMENT, "--thinking contradicts --no-thinking");
    return model_arguments_check(&a->model, line, ranks, err);
}

/* Given options override those of the model. */
qwen3_status generation_sampling(const generation_arguments *a, const command_line *line, qwen3_logit_bias *bias,
                                 qwen3_sampling_options *sampling, qwen3_error *err)
{
    const qwen3_sampling_options *given = &a->sampling;
    if (option_given(line, "temperature"))
        sampling->temperature = given->temperature;
    if (option_given(line, "top-k"))
        sampling->top_k = given->top_k;
    if (option_given(line, "top-p"))
        sampling->top_p = given->top_p;
    if (option_given(line, "min-p"))
        sampling->min_p = given->min_p;
    if (option_given(line, "presence-penalty"))
        sampling->presence_penalty = given->presence_penalty;
    if (option_given(line, "frequency-penalty"))
        sampling->frequency_penalty = given->frequency_penalty;
    if (option_given(line, "repetition-penalty"))
        sampling->repetition_penalty = given->repetition_penalty;
    if (option_given(line, "seed"))
        sampling->seed = given->seed;
    for (size_t i = 0; i < a->bias.n; i++)
        if (read_bias(a->bias.texts[i], &bias[i], err) != QWEN3_OK)
            return err->status;
    sampling->bias = bias;
    sampling->n_bias = a->bias.n;
    return QWEN3_OK;
}

qwen3_status generation_set(qwen3_sampling_options *sampling, const char *text, qwen3_error *err)
{
    generation_arguments a = {.sampling = *sampling};
    const option seed = seed_option(&a);
    option_table table = {0};
    char name[32], value[64];
    int used = 0;
    generation_sampling_options(&a, &table);
    option_table_add(&table, 1, &seed);
    if (sscanf(text, "%31s %63s%n", name, value, &used) != 2 || text[used])
        return set_error(err, QWEN3_ERR_ARGUMENT, "/set: got \"%.100s\", expected NAME VALUE", text);
    for (size_t i = 0; i < table.n; i++) {
        option *o = &table.options[i];
        if (strcmp(o->name, name) != 0)
            continue;
        if (option_take(o, value, err) == QWEN3_OK)
            *sampling = a.sampling;
        return err->status;
    }
    return set_error(err, QWEN3_ERR_ARGUMENT,
                     "/set: got \"%s\", expected temperature, top-k, top-p, min-p, presence-penalty, "
                     "frequency-penalty, repetition-penalty or seed",
                     name);
}
