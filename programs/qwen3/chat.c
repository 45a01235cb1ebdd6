/* chat.c - qwen3 chat: questions and answers in turn.
 *
 * Rank 0 talks with the user and sends orders, for which the other ranks wait. What it does alone may fail without
 * them. A failure that ends the program is an order too. */
#include "chat.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command.h"
#include "common/program.h"
#include "common/utf8.h"
#include "interrupt.h"

static void describe_options(chat *c, option_table *table)
{
    const option own[] = {
        {.name = "overflow",
         .kind = OPTION_CHOICE,
         .value = &c->overflow,
         .choices = "stop|drop",
         .help = "Where the conversation outgrows the context: refuse the question, or leave the oldest turns out of "
                 "the prompt (default stop)"},
        {.name = "no-editing",
         .kind = OPTION_FLAG,
         .value = &c->no_editing,
         .help = "Read lines as they come, and leave the terminal to mpirun (default: edit lines where there is a "
                 "terminal, that of mpirun too, where Ctrl-C then ends an answer and not the job)"},
    };
    option_table_add(table, sizeof own / sizeof *own, own);
    generation_options(&c->arguments, table);
}

/* ---- Rank 0: what comes next -------------------------------------------------------------------- */

/* A question that can be answered becomes an order; any other is withdrawn. */
static qwen3_status take_question(chat *c, order *next, qwen3_error *err)
{
    qwen3_error fault = {0};
    size_t dropped, skip = c->line.data[0] == '/'; /* "//" at the beginning is one '/' */
    free(c->prompt.tokens);
    c->prompt = (token_prompt){0};
    if (conversation_ask(&c->conversation, c->line.data + skip, c->line.n - skip, &fault) != QWEN3_OK)
        return chat_say_error(c, &fault, err);
    if (conversation_prompt(&c->conversation, &c->g, (overflow)c->overflow, &c->prompt, &dropped, &fault) != QWEN3_OK) {
        conversation_withdraw(&c->conversation);
        return chat_say_error(c, &fault, err);
    }
    next->kind = ORDER_ANSWER;
    return dropped == 0 ? QWEN3_OK
                        : output_note(&c->out, "note", err, "the oldest %zu messages left the prompt", dropped);
}

static bool is_blank(const text_buffer *line)
{
    return line->n == 0 || strspn(line->data, " \t\n") == line->n;
}

/* Ctrl-C at the prompt drops what was typed. A second one, with no input between, ends the chat. Where nobody sees a
 * prompt, the signal ends the program as it ends any other. */
static qwen3_status take_interrupt(chat *c, order *next, qwen3_error *err)
{
    if (!c->in.prompts)
        interrupt_end();
    if (c->asked_to_end) {
        next->kind = ORDER_END;
        return QWEN3_OK;
    }
    c->asked_to_end = true;
    return output_note(&c->out, "note", err, "(Ctrl-C once more, Ctrl-D or /exit ends)");
}

static qwen3_status take_input(chat *c, order *next, qwen3_error *err)
{
    line_end end = input_read(&c->in, &c->line, err);
    if (err->status != QWEN3_OK)
        return err->status;
    if (end == LINE_INTERRUPTED)
        return take_interrupt(c, next, err);
    c->asked_to_end = false;
    if (end == LINE_END)
        next->kind = ORDER_END;
    else if (!is_blank(&c->line))
        return c->line.data[0] == '/' && c->line.data[1] != '/' ? chat_command(c, next, err)
                                                                : take_question(c, next, err);
    return QWEN3_OK;
}

static order next_order(chat *c, qwen3_error *err)
{
    order next = {0};
    while (next.kind == ORDER_NONE)
        if (take_input(c, &next, err) != QWEN3_OK)
            next.kind = ORDER_FAIL;
    return next;
}

/* ---- Rank 0: what is said after an answer -------------------------------------------------------- */

static qwen3_status say_answer_stats(chat *c, const answer *a, qwen3_error *err)
{
    char text[512];
    if (c->out.json)
        return output_event(&c->out, answer_event(&c->g, a), err);
    answer_describe(&c->g, a, text, sizeof text);
    if (c->in.prompts)
        return output_note(&c->out, "stats", err, "[%s]", text);
    if (c->arguments.stats)
        fprintf(stderr, "%s\n", text);
    return QWEN3_OK;
}

/* A question without any answer is withdrawn. */
static qwen3_status take_answer(chat *c, const answer *a, qwen3_error *err)
{
    c->answers++;
    c->computed += a->prompt - a->reused;
    c->generated += a->generated;
    c->seconds += a->seconds;
    if (a->generated == 0)
        conversation_withdraw(&c->conversation);
    else if (conversation_answer(&c->conversation, a, err) != QWEN3_OK)
        return err->status;
    return say_answer_stats(c, a, err);
}

static bool answer_interrupted(void *context)
{
    return input_stops(context);
}

/* ---- All ranks ----------------------------------------------------------------------------------- */

/* Collective. */
static qwen3_status give_answer(chat *c, qwen3_error *err)
{
    answer a = {0};
    answer_request request = {.prompt = c->prompt.tokens,
                              .n_prompt = c->prompt.n,
                              .thinking = c->prompt.ends_in_thinking,
                              .out = &c->out,
                              .interrupted = answer_interrupted,
                              .context = &c->in};
    qwen3_status status = answer_generate(&c->g, &request, &a, err);
    if (status == QWEN3_OK) {
        if (c->g.rank == 0)
            take_answer(c, &a, err);
        status = qwen3_comm_agree(c->g.world, err);
    }
    answer_free(&a);
    return status;
}

/* Collective. *done: the chat ends. */
static qwen3_status carry_out(chat *c, const order *o, bool *done, qwen3_error *err)
{
    qwen3_sampling_options sampling = o->sampling;
    switch (o->kind) {
    case ORDER_ANSWER:
        return give_answer(c, err);
    case ORDER_SAMPLING:
        sampling.bias = c->g.bias;
        if (c->g.rank != 0)
            generation_set_sampling(&c->g, &sampling, err);
        break;
    case ORDER_END:
        *done = true;
        break;
    case ORDER_NONE:
    case ORDER_FAIL:
        break;
    }
    return qwen3_comm_agree(c->g.world, err);
}

static qwen3_status say_start(chat *c, qwen3_error *err)
{
    char seed[24];
    const char *spec = c->arguments.model.spec;
    if (c->in.prompts)
        return output_note(&c->out, "start", err, "%s. /help shows what can be said besides questions.", spec);
    if (!c->out.json)
        return QWEN3_OK;
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)c->g.config.sampling.seed);
    return output_event(&c->out,
                        json_pack("{ss,so,si,sI,sb,ss}", "event", "start", "model", json_of_path(spec), "ranks",
                                  qwen3_comm_size(c->g.world), "context", (json_int_t)c->g.context, "thinking",
                                  c->conversation.thinking, "seed", seed),
                        err);
}

/* On rank 0. The terminal is set up after the model is loaded: until then Ctrl-C ends everything. */
static qwen3_status open_talk(chat *c, int ranks, qwen3_error *err)
{
    bool sure, asked = output_is_terminal(STDIN_FILENO, ranks, &sure) && c->out.terminal;
    qwen3_chat_thinking can = qwen3_chat_template_thinking(c->g.chat);
    bool thinking = can == QWEN3_THINKING_ALWAYS || (can == QWEN3_THINKING_OPTIONAL && !c->arguments.no_thinking);
    c->in = (input){.prompts = asked, .out = stdout};
    if (asked && !c->no_editing)
        input_edit(&c->in);
    c->out.file = c->in.out;
    c->out.new_line = true;
    if (conversation_open(&c->conversation, c->arguments.system, thinking, err) != QWEN3_OK)
        return err->status;
    return say_start(c, err);
}

/* Collective. */
static qwen3_status talk(chat *c, qwen3_comm *world, const command_line *line, qwen3_error *err)
{
    bool done = false;
    qwen3_status status = generation_open_text(&c->g, world, &c->arguments, line, false, err);
    if (status == QWEN3_OK)
        status = generation_open_model(&c->g, err);
    if (status != QWEN3_OK)
        return status;
    interrupt_install();
    if (c->g.rank == 0)
        open_talk(c, qwen3_comm_size(world), err);
    status = qwen3_comm_agree(world, err);
    while (status == QWEN3_OK && !done) {
        order next = {0};
        if (c->g.rank == 0)
            next = next_order(c, err);
        qwen3_comm_broadcast(world, &next, sizeof next);
        status = carry_out(c, &next, &done, err);
    }
    return status;
}

static void close_talk(chat *c)
{
    output_close(&c->out);
    input_close(&c->in);
    conversation_close(&c->conversation);
    text_free(&c->line);
    free(c->prompt.tokens);
    generation_close(&c->g);
}

qwen3_status command_chat(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err)
{
    chat c = {.arguments = generation_arguments_default()};
    option_table table = {0};
    describe_options(&c, &table);
    int ranks = qwen3_comm_size(world), rank = qwen3_comm_rank(world);
    command_line line = {"qwen3 chat", self->summary, table.options, table.n, argc, argv};
    bool finished = false;

    if (options_parse(&line, rank == 0 ? stdout : NULL, &finished, err) == QWEN3_OK && !finished)
        generation_check(&c.arguments, &line, ranks, err);
    qwen3_status status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK && !finished) {
        if (rank == 0)
            c.out = output_open(c.arguments.json, c.arguments.hide_thinking, ranks);
        status = talk(&c, world, &line, err);
        close_talk(&c);
    }
    options_free(table.options, table.n);
    return status;
}
