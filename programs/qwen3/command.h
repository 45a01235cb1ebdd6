/* command.h - the subcommands of qwen3. A new one is a file and a line in the table of main.c. */
#ifndef COMMAND_H
#define COMMAND_H

#include "qwen3.h"

typedef struct command {
    const char *name;
    const char *summary;
    /* argv[0] is the subcommand. All ranks call it and agree on what it returns. */
    qwen3_status (*run)(const struct command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err);
} command;

qwen3_status command_chat(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err);
qwen3_status command_run(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err);
qwen3_status command_serve(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err);
qwen3_status command_logits(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err);
qwen3_status command_pack(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err);
qwen3_status command_embed(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err);
qwen3_status command_rerank(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err);
qwen3_status command_info(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err);
qwen3_status command_template(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err);
qwen3_status command_tokenize(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err);
qwen3_status command_detokenize(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err);

#endif
