/* error.c - see error.h. */
#include "common/error.h"

#include <stdarg.h>
#include <stdio.h>

qwen3_status set_error(qwen3_error *err, qwen3_status status, const char *format, ...)
{
    if (err->status == QWEN3_OK) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
        err->status = status;
        err->rank = -1;
        err->host[0] = '\0';
    }
    return status;
}
