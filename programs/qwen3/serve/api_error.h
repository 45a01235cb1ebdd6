/* api_error.h - why a request is refused, as the OpenAI interface says it. */
#ifndef API_ERROR_H
#define API_ERROR_H

#include <jansson.h>
#include <stdbool.h>

#include "common/error.h"

typedef struct api_error {
    int http;         /* status of the reply, 0 = no error */
    const char *type; /* "invalid_request_error", ...; a constant */
    const char *code; /* a constant, NULL = null */
    char param[64];   /* the member of the request, "" = null */
    char message[768];
} api_error;

/* A request that is wrong, status 400. Returns false; the first fault wins. param may be NULL. */
bool api_refuse(api_error *e, const char *param, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Another fault, with the type and the code that belong to its status. */
bool api_fail(api_error *e, int http, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* What the library found: faults of arguments and formats are the client's, others the server's. */
bool api_fail_status(api_error *e, const char *param, const qwen3_error *err);
/* {"error": {...}}; NULL = out of memory */
json_t *api_error_json(const api_error *e);

#endif
