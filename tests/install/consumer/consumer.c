/* A program of somebody else: its names are those of the library's internals, and its version is asked for in both
 * ways. */
#include <stdio.h>
#include <string.h>

#include "qwen3.h"

/* The library has functions of these names. */
int fail(int value);
int step_plan(int value);

int fail(int value)
{
    return value + 1;
}

int step_plan(int value)
{
    return fail(value) + 1;
}

int main(int argc, char **argv)
{
    char version[32];
    qwen3_comm *world;
    qwen3_error err;
    qwen3_model *model = NULL;
    snprintf(version, sizeof version, "%d.%d.%d", QWEN3_VERSION_MAJOR, QWEN3_VERSION_MINOR, QWEN3_VERSION_PATCH);
    if (strcmp(version, QWEN3_VERSION) != 0 || strcmp(version, qwen3_version()) != 0)
        return 1;
    if (qwen3_init(&argc, &argv, &world, &err) != QWEN3_OK)
        return 2;
    /* An error that the library makes with its own function fail(). */
    qwen3_status status = qwen3_model_open(world, "/nowhere", NULL, &model, &err);
    qwen3_finalize();
    if (status == QWEN3_OK || !err.message[0] || step_plan(1) != 3)
        return 3;
    printf("version %s\n", version);
    return 0;
}
