/* version.c - the version of the library. */
#include "qwen3.h"

const char *qwen3_version(void)
{
    return QWEN3_VERSION;
}
