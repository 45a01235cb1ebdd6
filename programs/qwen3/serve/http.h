/* http.h - the HTTP server below `qwen3 serve`: connections of libmicrohttpd, all of them in one thread.
 *
 * Every function but http_wake is called in the thread of http_run, or while that does not run. */
#ifndef HTTP_H
#define HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

typedef struct http_server http_server;
typedef struct http_exchange http_exchange; /* a request and its reply */

typedef struct http_settings {
    const char *host, *socket; /* socket: path of a Unix socket, in place of host and port; NULL = none */
    int port;                  /* 0 = a free one */
    int connections;           /* most at once; others wait to be accepted */
    size_t header_bytes, body_bytes;
    int timeout;             /* seconds without a byte, after which a connection is closed */
    const char *cors_origin; /* whose pages may read replies; NULL = none but the server's own */
} http_settings;

/* What is called for each exchange. It ends with http_reply or http_stream_end, at once or later, or with `gone`. */
typedef struct http_handler {
    void *context;
    /* The head of a request has come. With a reply that is made here the body is not kept, and `take` not called. */
    void (*admit)(void *context, http_exchange *x);
    /* The whole request has come. */
    void (*take)(void *context, http_exchange *x);
    /* The client went away; x must not be used any more. */
    void (*gone)(void *context, http_exchange *x);
    /* After http_wake, and a few times a second while exchanges are open. False ends http_run. */
    bool (*woken)(void *context);
} http_handler;

/* Binds the address, so that a job fails before it loads a model. settings must outlive the server. */
qwen3_status http_open(const http_settings *settings, http_server **server, qwen3_error *err);
/* "http://127.0.0.1:8080", or "unix:PATH" */
const char *http_address(const http_server *server);
qwen3_status http_start(http_server *server, const http_handler *handler, qwen3_error *err);
/* Serves until `woken` says that it is over. */
void http_run(http_server *server);
/* Lets http_run call `woken` soon. In any thread, and in signal handlers. */
void http_wake(http_server *server);
/* Accepts no more connections. */
void http_close_door(http_server *server);
/* Closes all connections. NULL is allowed. */
void http_close(http_server *server);

const char *http_method(const http_exchange *x);
const char *http_path(const http_exchange *x);
/* The value of a header, NULL = not given. */
const char *http_header(const http_exchange *x, const char *name);
/* [*n] bytes of the exchange */
const char *http_body(const http_exchange *x, size_t *n);
/* The length that the body will have by the head; 0 = it does not say. */
unsigned long long http_body_length(const http_exchange *x);
/* The most bytes that a body may have. */
size_t http_body_limit(const http_exchange *x);
/* A number for the address of the client, the same for all of its exchanges. */
uint64_t http_client(const http_exchange *x);
/* What the handler keeps for an exchange. */
void http_set_user(http_exchange *x, void *user);
void *http_user(const http_exchange *x);

/* A whole reply, copied. retry_after: seconds, 0 = no such header. Ends the exchange: `gone` is not called for it. */
void http_reply(http_exchange *x, int status, const char *type, const char *data, size_t n, int retry_after);
/* A reply in pieces: events of the type text/event-stream. */
void http_stream_begin(http_exchange *x);
void http_stream_write(http_exchange *x, const char *data, size_t n);
void http_stream_end(http_exchange *x);
/* Closes the connection in the middle of a stream; `gone` follows. */
void http_stream_break(http_exchange *x);

#endif
