/* error.h - how every part of a program reports a fault. */
#ifndef ERROR_H
#define ERROR_H

#include "qwen3.h"

/* Describes a fault in *err, printf-style, and returns `status`. The first fault wins. */
qwen3_status set_error(qwen3_error *err, qwen3_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
