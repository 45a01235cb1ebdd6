/* absent.c - qwen3 serve in a build without libmicrohttpd: it has --help, as all commands have, and nothing else. */
#include <stdio.h>
#include <string.h>

#include "common/error.h"
#include "common/options.h"
#include "qwen3/command.h"

qwen3_status command_serve(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err)
{
    bool finished;
    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return options_parse(&(command_line){"qwen3 serve", self->summary, NULL, 0, argc, argv},
                             qwen3_comm_rank(world) == 0 ? stdout : NULL, &finished, err);
    return set_error(err, QWEN3_ERR_UNSUPPORTED,
                     "serve: this program was built without libmicrohttpd (docs/DEPENDENCIES.md)");
}
