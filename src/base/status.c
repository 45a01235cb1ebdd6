#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

qwen3_status fail(qwen3_error *err, qwen3_status status, const char *format, ...)
{
    if (err && err->status == QWEN3_OK) {
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

bool missing(const void *argument, const char *name, qwen3_error *err)
{
    if (!argument)
        fail(err, QWEN3_ERR_ARGUMENT, "%s is NULL", name);
    return !argument;
}

void error_clear(qwen3_error *err)
{
    if (err)
        memset(err, 0, sizeof *err);
}

qwen3_error *error_begin(qwen3_error *err, qwen3_error *local)
{
    if (!err)
        err = local;
    error_clear(err);
    return err;
}

const char *qwen3_status_name(qwen3_status status)
{
    static const char *const names[] = {
        "ok",          "bad argument",  "input/output error", "bad format",          "bad configuration",
        "unsupported", "out of memory", "capacity exceeded",  "communication failed"};
    return (size_t)status < sizeof names / sizeof *names ? names[status] : "unknown status";
}
