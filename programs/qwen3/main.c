/* main.c - qwen3: one program, a table of subcommands. */
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "common/program.h"

static const command commands[] = {
    {"chat", "Talk with a model", command_chat},
    {"run", "Answer one prompt", command_run},
    {"serve", "Answer requests over HTTP, in the form of the OpenAI interface", command_serve},
    {"logits", "Write the logits of given tokens as raw little-endian float32", command_logits},
    {"embed", "Turn texts on standard input into vectors", command_embed},
    {"rerank", "Score documents on standard input by how well they answer a query", command_rerank},
    {"pack", "Pack a checkpoint for the kernels, to be mapped and used in place", command_pack},
    {"info", "Show a model's configuration, tensors, parameters and memory needs", command_info},
    {"tokenize", "Turn text on standard input into token ids", command_tokenize},
    {"detokenize", "Turn token ids on standard input into text", command_detokenize},
    {"template", "Render a conversation into the prompt that the model's chat template makes of it", command_template},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_usage(FILE *out)
{
    fprintf(out, "Usage: qwen3 COMMAND [OPTION...]\n\nCommands:\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(out, "\nqwen3 COMMAND --help (or qwen3 help COMMAND) shows the options of a command. Any command runs "
                 "under mpirun.\n");
}

/* "logits, info" */
static void list_commands(char *text, size_t size)
{
    size_t used = 0;
    for (int i = 0; i < COMMANDS && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "", commands[i].name);
}

/* "help run" is "run --help", and "help" alone is "--help". */
static void turn_help(int argc, const char **argv)
{
    if (argc > 2)
        argv[1] = argv[2];
    argv[argc > 2 ? 2 : 1] = "--help";
}

static qwen3_status dispatch(qwen3_comm *world, int argc, const char **argv, qwen3_error *err)
{
    char names[256];
    if (argc > 1 && strcmp(argv[1], "help") == 0)
        turn_help(argc, argv);
    const char *name = argc > 1 ? argv[1] : NULL;
    if (name && (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)) {
        if (qwen3_comm_rank(world) == 0)
            print_usage(stdout);
        return QWEN3_OK;
    }
    if (name && (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)) {
        if (qwen3_comm_rank(world) == 0)
            printf("qwen3 %s\n", QWEN3_VERSION);
        return QWEN3_OK;
    }
    for (int i = 0; name && i < COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0)
            return commands[i].run(&commands[i], world, argc - 1, argv + 1, err);
    list_commands(names, sizeof names);
    if (name)
        return set_error(err, QWEN3_ERR_ARGUMENT, "unknown command \"%s\", expected one of %s (see --help)", name,
                         names);
    return set_error(err, QWEN3_ERR_ARGUMENT, "no command given, expected one of %s (see --help)", names);
}

static qwen3_status body(qwen3_comm *world, int argc, const char **argv, int *exit_status, qwen3_error *err)
{
    *exit_status = EXIT_OK;
    return dispatch(world, argc, argv, err);
}

int main(int argc, char **argv)
{
    return program_run(argc, argv, body);
}
