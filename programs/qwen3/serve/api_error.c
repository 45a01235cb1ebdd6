/* api_error.c - see api_error.h. */
#include "api_error.h"

#include <stdarg.h>
#include <stdio.h>

typedef struct kind {
    int http;
    const char *type, *code;
} kind;

static const kind kinds[] = {
    {400, "invalid_request_error", NULL},
    {401, "authentication_error", "invalid_api_key"},
    {404, "not_found_error", "not_found"},
    {405, "invalid_request_error", "method_not_allowed"},
    {413, "invalid_request_error", "request_too_large"},
    {429, "rate_limit_error", "queue_full"},
    {500, "server_error", "internal_error"},
    {503, "server_error", "unavailable"},
};

static bool set(api_error *e, int http, const char *param, const char *format, va_list arguments)
{
    if (e->http)
        return false;
    size_t k = 0;
    while (k + 1 < sizeof kinds / sizeof *kinds && kinds[k].http != http)
        k++;
    *e = (api_error){.http = http, .type = kinds[k].type, .code = kinds[k].code};
    snprintf(e->param, sizeof e->param, "%s", param ? param : "");
    vsnprintf(e->message, sizeof e->message, format, arguments);
    return false;
}

bool api_refuse(api_error *e, const char *param, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    set(e, 400, param, format, arguments);
    va_end(arguments);
    return false;
}

bool api_fail(api_error *e, int http, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    set(e, http, NULL, format, arguments);
    va_end(arguments);
    return false;
}

bool api_fail_status(api_error *e, const char *param, const qwen3_error *err)
{
    switch (err->status) {
    case QWEN3_ERR_ARGUMENT:
    case QWEN3_ERR_FORMAT:
    case QWEN3_ERR_UNSUPPORTED:
        return api_refuse(e, param, "%.700s", err->message);
    case QWEN3_ERR_MEMORY:
    case QWEN3_ERR_CAPACITY:
        return api_fail(e, 503, "%.700s", err->message);
    default:
        return api_fail(e, 500, "%.700s", err->message);
    }
}

/* Messages may quote a request, whose bytes may have been split. */
static json_t *text_of(const char *text)
{
    json_t *string = json_string(text);
    return string ? string : json_string("the request is wrong, and its text not well-formed UTF-8 where it is quoted");
}

json_t *api_error_json(const api_error *e)
{
    return json_pack("{s{so,ss,so?,ss?}}", "error", "message", text_of(e->message), "type", e->type, "param",
                     e->param[0] ? json_string(e->param) : NULL, "code", e->code);
}
