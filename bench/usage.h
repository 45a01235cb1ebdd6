/* usage.h - --help of programs without options. */
#ifndef QWEN3_USAGE_H
#define QWEN3_USAGE_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whether the program ends at once, with *status: help is wanted, or there is an option, which is refused. */
static inline bool usage_ends(int argc, char **argv, const char *usage, int *status)
{
    *status = EXIT_SUCCESS;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(usage, stdout);
            return true;
        }
    for (int i = 1; i < argc; i++)
        if (argv[i][0] == '-') {
            fprintf(stderr, "unknown option %s\n%s", argv[i], usage);
            *status = EXIT_FAILURE;
            return true;
        }
    return false;
}

#endif
