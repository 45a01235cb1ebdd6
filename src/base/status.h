/* status.h - how every internal function reports a fault. */
#ifndef QWEN3_BASE_STATUS_H
#define QWEN3_BASE_STATUS_H

#include "qwen3.h"

/* Describes a fault where it is seen, printf-style, and returns `status`. err may be NULL. Rank and host
 * are filled in where the ranks agree (comm_agree). The first fault wins: a set err is left alone. */
qwen3_status fail(qwen3_error *err, qwen3_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

void error_clear(qwen3_error *err);

/* The error that a public function works with, cleared: the caller's, or `local` where the caller wants none. */
qwen3_error *error_begin(qwen3_error *err, qwen3_error *local);

#endif
