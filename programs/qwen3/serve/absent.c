/* absent.c - qwen3 serve in a build without libmicrohttpd. */
#include "common/error.h"
#include "qwen3/command.h"

qwen3_status command_serve(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err)
{
    (void)self, (void)world, (void)argc, (void)argv;
    return set_error(err, QWEN3_ERR_UNSUPPORTED,
                     "serve: this program was built without libmicrohttpd (docs/DEPENDENCIES.md)");
}
