/* status.h - how every internal function reports a fault. */
#ifndef QWEN3_BASE_STATUS_H
#define QWEN3_BASE_STATUS_H

#include "qwen3.h"

/* Describes a fault where it is seen, printf-style, and returns `status`. err may be NULL. The first fault wins: an
 * error that is set stays. qwen3_comm_agree fills in rank and host. */
qwen3_status fail(qwen3_error *err, qwen3_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

void error_clear(qwen3_error *err);

/* Whether a public function was given NULL for an argument that it needs; then *err names it. */
bool missing(const void *argument, const char *name, qwen3_error *err);

/* The error that a public function works with, cleared: the caller's, or `local` if err is NULL. */
qwen3_error *error_begin(qwen3_error *err, qwen3_error *local);

#endif
