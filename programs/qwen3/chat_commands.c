/* chat_commands.c - the commands of a chat, which the program answers and not the model. Rank 0. */
#include <float.h>
#include <string.h>

#include "chat.h"
#include "common/topology.h"

typedef struct chat_action {
    const char *name, *argument, *help;
    qwen3_status (*run)(chat *c, char *argument, order *next, qwen3_error *err);
} chat_action;

enum { NAME_WIDTH = 22 };

qwen3_status chat_say_error(chat *c, qwen3_error *fault, qwen3_error *err)
{
    qwen3_status status =
        output_note(&c->out, "error", err, "%s%s", c->out.json ? "" : "qwen3: error: ", fault->message);
    *fault = (qwen3_error){0};
    return status;
}

static qwen3_status set_thinking(chat *c, bool thinking, qwen3_error *err)
{
    qwen3_chat_thinking can = qwen3_chat_template_thinking(c->g.chat);
    if (can == (thinking ? QWEN3_THINKING_NEVER : QWEN3_THINKING_ALWAYS))
        return output_note(&c->out, "error", err, "this model %s reasons", thinking ? "never" : "always");
    c->conversation.thinking = thinking;
    return output_note(&c->out, "note", err, "answers come with%s reasoning", thinking ? "" : "out");
}

static qwen3_status run_think(chat *c, char *argument, order *next, qwen3_error *err)
{
    (void)argument, (void)next;
    return set_thinking(c, true, err);
}

static qwen3_status run_no_think(chat *c, char *argument, order *next, qwen3_error *err)
{
    (void)argument, (void)next;
    return set_thinking(c, false, err);
}

static qwen3_status run_reset(chat *c, char *argument, order *next, qwen3_error *err)
{
    (void)argument, (void)next;
    conversation_reset(&c->conversation);
    return output_note(&c->out, "note", err, "a new conversation");
}

static qwen3_status run_system(chat *c, char *argument, order *next, qwen3_error *err)
{
    (void)next;
    qwen3_error fault = {0};
    if (conversation_set_system(&c->conversation, *argument ? argument : NULL, strlen(argument), &fault) != QWEN3_OK)
        return chat_say_error(c, &fault, err);
    return output_note(&c->out, "note", err, *argument ? "the system message is set" : "there is no system message");
}

static qwen3_status run_save(chat *c, char *argument, order *next, qwen3_error *err)
{
    (void)next;
    qwen3_error fault = {0};
    if (conversation_save(&c->conversation, argument, c->arguments.model.spec, &fault) != QWEN3_OK)
        return chat_say_error(c, &fault, err);
    return output_note(&c->out, "note", err, "%s: %zu messages saved", argument,
                       json_array_size(c->conversation.messages));
}

static qwen3_status run_load(chat *c, char *argument, order *next, qwen3_error *err)
{
    (void)next;
    qwen3_error fault = {0};
    if (conversation_load(&c->conversation, &c->g, argument, &fault) != QWEN3_OK)
        return chat_say_error(c, &fault, err);
    return output_note(&c->out, "note", err, "%s: %zu messages loaded", argument,
                       json_array_size(c->conversation.messages));
}

/* ---- Sampling */

static qwen3_status run_set(chat *c, char *argument, order *next, qwen3_error *err)
{
    qwen3_error fault = {0};
    qwen3_sampling_options sampling = c->g.config.sampling;
    if (generation_set(&sampling, argument, &fault) != QWEN3_OK ||
        generation_set_sampling(&c->g, &sampling, &fault) != QWEN3_OK)
        return chat_say_error(c, &fault, err);
    *next = (order){.kind = ORDER_SAMPLING, .sampling = sampling};
    return output_note(&c->out, "note", err, "%s", argument);
}

/* ---- What there is */

static json_t *stats_event(const chat *c)
{
    const qwen3_sampling_options *s = &c->g.config.sampling;
    char seed[24];
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)s->seed);
    return json_pack("{ss,sI,sI,sI,sI,sI,sI,sf,sb,sf,si,sf,sf,sf,sf,sf,ss}", "event", "stats", "messages",
                     (json_int_t)json_array_size(c->conversation.messages), "answers", (json_int_t)c->answers,
                     "computed_tokens", (json_int_t)c->computed, "generated_tokens", (json_int_t)c->generated,
                     "context_tokens", (json_int_t)c->g.n_held, "context", (json_int_t)c->g.context, "seconds",
                     c->seconds, "thinking", c->conversation.thinking, "temperature", s->temperature, "top_k", s->top_k,
                     "top_p", s->top_p, "min_p", s->min_p, "presence_penalty", s->presence_penalty, "frequency_penalty",
                     s->frequency_penalty, "repetition_penalty", s->repetition_penalty, "seed", seed);
}

static qwen3_status run_stats(chat *c, char *argument, order *next, qwen3_error *err)
{
    (void)argument, (void)next;
    const qwen3_sampling_options *s = &c->g.config.sampling;
    const qwen3_plan *plan = qwen3_model_plan(c->g.model);
    if (c->out.json)
        return output_event(&c->out, stats_event(c), err);
    return output_note(
        &c->out, "stats", err,
        "conversation  %zu messages, %zu of them out of the prompt; with%s reasoning\n"
        "answers       %zu, in %.1f s; %zu tokens of prompts computed, %zu generated\n"
        "context       %zu of %lld tokens (%.0f %%)\n"
        "sampling      temperature %g, top-k %d, top-p %g, min-p %g, presence %g, frequency %g, repetition %g, "
        "seed %llu\n"
        "model         %s, %s, %d ranks, %d threads each, %s",
        json_array_size(c->conversation.messages), c->conversation.dropped, c->conversation.thinking ? "" : "out",
        c->answers, c->seconds, c->computed, c->generated, c->g.n_held, (long long)c->g.context,
        100.0 * (double)c->g.n_held / (double)c->g.context, s->temperature, s->top_k, s->top_p, s->min_p,
        s->presence_penalty, s->frequency_penalty, s->repetition_penalty, (unsigned long long)s->seed,
        c->arguments.model.spec, plan_dtype_name(plan), qwen3_comm_size(c->g.world), plan->threads,
        qwen3_isa_name(plan->isa));
}

static qwen3_status run_exit(chat *c, char *argument, order *next, qwen3_error *err)
{
    (void)c, (void)argument, (void)err;
    next->kind = ORDER_END;
    return QWEN3_OK;
}

static qwen3_status run_stop(chat *c, char *argument, order *next, qwen3_error *err)
{
    (void)argument, (void)next;
    return output_note(&c->out, "note", err, "nothing is being answered");
}

static qwen3_status run_help(chat *c, char *argument, order *next, qwen3_error *err);

static const chat_action actions[] = {
    {"/think", NULL, "let the model reason before it answers", run_think},
    {"/no_think", NULL, "ask for no reasoning", run_no_think},
    {"/system", "[TEXT]", "set the system message, or take it away", run_system},
    {"/reset", NULL, "forget the conversation but for the system message", run_reset},
    {"/save", "FILE", "write the conversation as JSON", run_save},
    {"/load", "FILE", "go on with a conversation that was written", run_load},
    {"/set", "NAME VALUE", "change an option of sampling: /set temperature 0.7", run_set},
    {"/stats", NULL, "show counts, speeds, context and options", run_stats},
    {"/stop", NULL, "end the answer that is being written", run_stop},
    {"/help", NULL, "show this", run_help},
    {"/exit", NULL, "end, as Ctrl-D does", run_exit},
};
enum { ACTIONS = sizeof actions / sizeof *actions };

static qwen3_status run_help(chat *c, char *argument, order *next, qwen3_error *err)
{
    (void)argument, (void)next;
    char text[800];
    size_t used = 0;
    for (size_t i = 0; i < ACTIONS && used < sizeof text; i++) {
        const char *operand = actions[i].argument ? actions[i].argument : "";
        int width = NAME_WIDTH - (int)strlen(actions[i].name);
        used += (size_t)snprintf(text + used, sizeof text - used, "%s %-*s%s\n", actions[i].name, width, operand,
                                 actions[i].help);
    }
    return output_note(&c->out, "help", err,
                       "%s\nSeveral lines: end a line with \\, or write \"\"\" alone on the lines before and after%s.\n"
                       "A line that begins with / and is no command begins with //.\n"
                       "%s",
                       text, c->in.editor ? ", or paste them" : "",
                       c->in.editor ? "Ctrl-C ends an answer, and clears the line; twice, or Ctrl-D, ends the program."
                                    : "Lines are read as they come, without editing. To end an answer, type /stop, or "
                                      "press Ctrl-C where the launcher hands it on.");
}

/* Splits "/name argument" in place; spaces around the argument are left out. */
static char *split(char *line)
{
    char *argument = line + strcspn(line, " \t\n");
    if (*argument)
        *argument++ = '\0';
    argument += strspn(argument, " \t\n");
    for (size_t n = strlen(argument); n > 0 && strchr(" \t\n", argument[n - 1]); n--)
        argument[n - 1] = '\0';
    return argument;
}

qwen3_status chat_command(chat *c, order *next, qwen3_error *err)
{
    char *argument = split(c->line.data);
    for (size_t i = 0; i < ACTIONS; i++) {
        const chat_action *a = &actions[i];
        if (strcmp(c->line.data, a->name) != 0)
            continue;
        bool optional = a->argument && *a->argument == '[';
        if (a->argument && !*argument && !optional)
            return output_note(&c->out, "error", err, "%s: expected %s", a->name, a->argument);
        if (!a->argument && *argument)
            return output_note(&c->out, "error", err, "%s: expected nothing behind it, got \"%.200s\"", a->name,
                               argument);
        return a->run(c, argument, next, err);
    }
    return output_note(&c->out, "error", err,
                       "%.100s: no such command (/help shows them; // begins a line that begins with /)", c->line.data);
}
