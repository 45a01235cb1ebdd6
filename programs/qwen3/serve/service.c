/* service.c - see service.h. Routes, keys, and the end. */
#include "service.h"

#include <stdlib.h>
#include <string.h>

#include "common/statistics.h"
#include "fields.h"
#include "job.h"
#include "page.h"
#include "text_routes.h"

#define RETRY_SECONDS 2    /* of 429 */
#define SILENCE_SECONDS 10 /* after which a stream has a comment, which keeps proxies waiting */

/* ---- Replies ------------------------------------------------------------------------------------ */

static void reply_text(service *s, http_exchange *x, int status, const char *type, const char *text, size_t n)
{
    metrics_count_reply(&s->metrics, status);
    http_reply(x, status, type, text, n, status == 429 ? RETRY_SECONDS : 0);
}

void service_reply(service *s, http_exchange *x, int status, json_t *json)
{
    static const char none[] = "{\"error\":{\"message\":\"out of memory\",\"type\":\"server_error\",\"param\":null,"
                               "\"code\":\"unavailable\"}}";
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    if (text)
        reply_text(s, x, status, "application/json", text, strlen(text));
    else
        reply_text(s, x, 503, "application/json", none, sizeof none - 1);
    free(text);
    json_decref(json);
}

void service_refuse(service *s, http_exchange *x, const api_error *e)
{
    service_reply(s, x, e->http, api_error_json(e));
}

/* ---- Routes ------------------------------------------------------------------------------------- */

static void chat(service *s, http_exchange *x)
{
    generate_begin(s, x, REQUEST_CHAT);
}

static void completion(service *s, http_exchange *x)
{
    generate_begin(s, x, REQUEST_COMPLETION);
}

static void respond(service *s, http_exchange *x)
{
    generate_begin(s, x, REQUEST_RESPONSE);
}

static void models(service *s, http_exchange *x)
{
    service_reply(s, x, 200, reply_models(s->defaults.model, s->created, s->text->context));
}

static void health(service *s, http_exchange *x)
{
    service_reply(s, x, s->draining ? 503 : 200, json_pack("{ss}", "status", s->draining ? "shutting down" : "ok"));
}

static void measure(service *s, http_exchange *x)
{
    qwen3_scheduler_stats stats;
    text_buffer text = {0};
    qwen3_error err = {0};
    api_error e = {0};
    qwen3_scheduler_get_stats(s->scheduler, &stats);
    if (metrics_write(&s->metrics, &stats, &text, &err) == QWEN3_OK) {
        reply_text(s, x, 200, "text/plain; version=0.0.4", text.data, text.n);
    } else {
        api_fail_status(&e, NULL, &err);
        service_refuse(s, x, &e);
    }
    text_free(&text);
}

static void show_page(service *s, http_exchange *x)
{
    reply_text(s, x, 200, "text/html; charset=utf-8", (const char *)page_html, page_html_size);
}

typedef struct route {
    const char *method, *path;
    void (*take)(service *s, http_exchange *x);
    bool open; /* without a key */
} route;

static const route routes[] = {
    {"POST", "/v1/chat/completions", chat, false},
    {"POST", "/v1/completions", completion, false},
    {"POST", "/v1/responses", respond, false},
    {"POST", "/v1/embeddings", embed_begin, false},
    {"GET", "/v1/models", models, false},
    {"POST", "/tokenize", tokenize_reply, false},
    {"POST", "/detokenize", detokenize_reply, false},
    {"GET", "/metrics", measure, false},
    {"GET", "/health", health, true},
    {"GET", "/", show_page, true},
};

static bool same_method(const route *r, const char *method)
{
    return strcmp(r->method, method) == 0 || (strcmp(r->method, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

/* NULL, with *e set, where there is none. */
static const route *find_route(const http_exchange *x, api_error *e)
{
    const route *other = NULL;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (strcmp(routes[i].path, http_path(x)) != 0)
            continue;
        if (same_method(&routes[i], http_method(x)))
            return &routes[i];
        other = &routes[i];
    }
    if (other)
        api_fail(e, 405, "%s takes %s, not %.16s", other->path, other->method, http_method(x));
    else
        api_fail(e, 404, "there is nothing at %.200s", http_path(x));
    return NULL;
}

/* "/v1/models/NAME": the name may have slashes. */
static bool is_model_path(const char *path)
{
    return strncmp(path, "/v1/models/", strlen("/v1/models/")) == 0;
}

static void model(service *s, http_exchange *x)
{
    const char *name = http_path(x) + strlen("/v1/models/");
    api_error e = {0};
    if (strcmp(name, s->defaults.model) == 0) {
        service_reply(s, x, 200, reply_model(name, s->created, s->text->context));
        return;
    }
    api_fail(&e, 404, "model: \"%.200s\" is not here, this server has \"%.200s\"", name, s->defaults.model);
    service_refuse(s, x, &e);
}

/* In a time that does not depend on where the key differs. */
static bool same_key(const char *key, const char *given)
{
    const size_t n = strlen(key), length = strlen(given);
    unsigned differs = n != length;
    for (size_t i = 0; i < length; i++)
        differs |= (unsigned char)given[i] ^ (unsigned char)key[i % (n + 1)];
    return !differs;
}

static bool has_key(const service *s, const http_exchange *x)
{
    const text_list *keys = &s->settings->keys;
    const char *given = http_header(x, "Authorization");
    bool found = keys->n == 0;
    if (!given || strncasecmp(given, "Bearer ", strlen("Bearer ")) != 0)
        return found;
    for (size_t i = 0; i < keys->n; i++)
        found |= same_key(keys->texts[i], given + strlen("Bearer "));
    return found;
}

static void admit(void *context, http_exchange *x)
{
    service *s = context;
    api_error e = {0};
    const char *path = http_path(x);
    if (strcmp(http_method(x), "OPTIONS") == 0) {
        reply_text(s, x, 204, "text/plain", "", 0);
        return;
    }
    const bool of_model = is_model_path(path) && strcmp(http_method(x), "GET") == 0;
    const route *r = of_model ? NULL : find_route(x, &e);
    if (!e.http && (!r || !r->open) && !has_key(s, x))
        api_fail(&e, 401, "the API key is missing or wrong, expected \"Authorization: Bearer KEY\"");
    if (!e.http && s->draining && (!r || !r->open))
        api_fail(&e, 503, "the server is shutting down");
    if (!e.http && http_body_length(x) > http_body_limit(x))
        api_fail(&e, 413, "the body has %llu bytes, expected at most %zu", http_body_length(x), http_body_limit(x));
    if (e.http)
        service_refuse(s, x, &e);
}

static void take(void *context, http_exchange *x)
{
    service *s = context;
    api_error e = {0};
    const route *r = find_route(x, &e);
    if (r)
        r->take(s, x);
    else
        model(s, x);
}

static void gone(void *context, http_exchange *x)
{
    service *s = context;
    job *j = http_user(x);
    s->metrics.left++;
    if (j)
        job_end(j);
}

/* ---- The end ------------------------------------------------------------------------------------ */

static void fail_all(service *s, const api_error *e)
{
    job *next;
    for (job *j = s->jobs; j; j = next) {
        next = j->next;
        if (j->x)
            job_fail(j, e);
    }
}

static bool someone_waits(const service *s)
{
    const job *j = s->jobs;
    while (j && !j->x)
        j = j->next;
    return j != NULL;
}

/* Whether the server goes on. */
static bool drain(service *s)
{
    api_error e = {0};
    if (!s->draining) {
        s->draining = true;
        s->deadline = seconds_now() + s->settings->grace;
        http_close_door(s->http);
    }
    if (someone_waits(s) && seconds_now() < s->deadline)
        return true;
    api_fail(&e, 503, "the server is shutting down");
    fail_all(s, &e);
    return false;
}

static void keep_alive(service *s)
{
    const double now = seconds_now();
    for (job *j = s->jobs; j; j = j->next)
        if (j->x && j->streaming && now - j->last_write > SILENCE_SECONDS) {
            http_stream_write(j->x, ": waiting\n\n", strlen(": waiting\n\n"));
            j->last_write = now;
        }
}

static bool woken(void *context)
{
    service *s = context;
    engine_event *events;
    size_t n;
    const bool whole = event_queue_take(&s->events, &events, &n);
    for (size_t i = 0; i < n; i++)
        job_dispatch(&events[i]);
    free(events);
    keep_alive(s);
    bool more = true;
    if (!whole || atomic_load(&s->failed)) {
        api_error e = {0};
        api_fail(&e, 500, "%.700s", whole ? s->fault.message : "the server ran out of memory");
        fail_all(s, &e);
        more = false;
    } else if (*s->stop) {
        more = drain(s);
    }
    if (!more) {
        atomic_store(&s->over, true);
        qwen3_scheduler_wake(s->scheduler);
    }
    return more;
}

http_handler service_handler(service *s)
{
    return (http_handler){s, admit, take, gone, woken};
}

void service_close(service *s)
{
    event_queue_close(&s->events);
    while (s->jobs)
        job_free(s->jobs);
    qwen3_vocabulary_close(s->vocabulary);
}

void service_fail(service *s, const qwen3_error *err)
{
    s->fault = *err;
    atomic_store(&s->failed, true);
    http_wake(s->http);
}
