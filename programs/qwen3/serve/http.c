/* http.c - see http.h.
 *
 * Connections that wait for tokens are suspended, and libmicrohttpd does not look at them meanwhile. Nor does it notice
 * a client that closes its connection together with the last bytes that it sends: the event of both is one. So whether
 * clients are still there is asked of the sockets: every LOOK_AFTER_MS, or LOOK_IDLE_MS between requests. */
#include "http.h"

#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/program.h"
#include "common/statistics.h"
#include "common/text_buffer.h"
#include "http_socket.h"

#define LOOK_AFTER_MS 100
#define LOOK_IDLE_MS 1000
#define STREAM_BLOCK 16384
/* A body that nobody wants is read nevertheless: clients that are still sending when a connection is closed do not see
 * the reply. Longer ones are not waited for. */
#define MOST_DISCARDED (64u << 20)

/* A connection, with or without a request. */
typedef struct http_link {
    struct MHD_Connection *connection;
    bool busy; /* with a reply; otherwise it reads, or waits for a request */
    struct http_link *next, **link;
} http_link;

struct http_server {
    const http_settings *settings;
    http_handler handler;
    struct MHD_Daemon *daemon;
    int listener, epoll, wake; /* sockets; -1 = none */
    bool door_closed;
    char address[160];
    http_exchange *open;   /* list of all exchanges */
    http_link *links;      /* list of all connections */
    struct pollfd *looked; /* [connections] */
    double readers_looked; /* seconds_now of the last look_after_readers */
};

struct http_exchange {
    http_server *server;
    struct MHD_Connection *connection;
    http_exchange *next, **link; /* in the list of the server; *link is this */
    char *method, *path;
    void *user;
    text_buffer body;
    bool taken;     /* the whole request has been given to the handler */
    bool suspended; /* waits for a reply, or for more of it */
    bool ended;     /* the handler is done with it */
    struct MHD_Response *response;
    int status;
    bool streaming, broken;
    text_buffer out; /* of a stream: what has not been sent */
};

/* ---- Connections -------------------------------------------------------------------------------- */

static http_link *link_of(struct MHD_Connection *connection)
{
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

/* Called by libmicrohttpd. A connection without memory for a link is only missed later, or never. */
static void connection_changed(void *context, struct MHD_Connection *connection, void **state,
                               enum MHD_ConnectionNotificationCode what)
{
    http_server *s = context;
    http_link *l = what == MHD_CONNECTION_NOTIFY_STARTED ? calloc(1, sizeof *l) : *state;
    if (!l)
        return;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        *l = (http_link){.connection = connection, .next = s->links, .link = &s->links};
        if (l->next)
            l->next->link = &l->next;
        s->links = *state = l;
        return;
    }
    *l->link = l->next;
    if (l->next)
        l->next->link = l->link;
    free(l);
    *state = NULL;
}

static int socket_of(struct MHD_Connection *connection)
{
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
}

static void set_busy(struct MHD_Connection *connection, bool busy)
{
    http_link *l = link_of(connection);
    if (l)
        l->busy = busy;
}

/* ---- Exchanges ---------------------------------------------------------------------------------- */

static void suspend(http_exchange *x)
{
    x->suspended = true;
    MHD_suspend_connection(x->connection);
}

static void resume(http_exchange *x)
{
    if (x->suspended)
        MHD_resume_connection(x->connection);
    x->suspended = false;
}

static http_exchange *begin_exchange(http_server *s, struct MHD_Connection *connection, const char *method,
                                     const char *path)
{
    http_exchange *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    *x = (http_exchange){.server = s, .connection = connection, .method = strdup(method), .path = strdup(path)};
    x->link = &s->open;
    x->next = s->open;
    if (x->next)
        x->next->link = &x->next;
    s->open = x;
    return x;
}

static void free_exchange(http_exchange *x)
{
    *x->link = x->next;
    if (x->next)
        x->next->link = x->link;
    if (x->response)
        MHD_destroy_response(x->response);
    text_free(&x->body);
    text_free(&x->out);
    free(x->method);
    free(x->path);
    free(x);
}

/* The client went away: tells the handler, once. */
static void end_by_client(http_exchange *x)
{
    if (x->ended)
        return;
    x->ended = true;
    if (x->taken)
        x->server->handler.gone(x->server->handler.context, x);
}

/* Called by libmicrohttpd when it is done with a request, for better or worse. */
static void complete(void *context, struct MHD_Connection *connection, void **state,
                     enum MHD_RequestTerminationCode why)
{
    http_exchange *x = *state;
    (void)context, (void)why;
    if (!x)
        return;
    set_busy(connection, false);
    end_by_client(x);
    free_exchange(x);
    *state = NULL;
}

/* Queues the reply if there is one, and otherwise waits for it. */
static enum MHD_Result answer(http_exchange *x)
{
    set_busy(x->connection, true);
    if (!x->response) {
        if (!x->broken)
            suspend(x);
        return x->broken ? MHD_NO : MHD_YES;
    }
    enum MHD_Result result = MHD_queue_response(x->connection, (unsigned)x->status, x->response);
    MHD_destroy_response(x->response);
    x->response = NULL;
    return result;
}

unsigned long long http_body_length(const http_exchange *x)
{
    const char *text = http_header(x, "Content-Length");
    return text ? strtoull(text, NULL, 10) : 0;
}

/* libmicrohttpd calls it with the head of a request, with each piece of the body, at the end, and when a connection
 * that waited for its reply is resumed. */
static enum MHD_Result access_request(void *context, struct MHD_Connection *connection, const char *path,
                                      const char *method, const char *version, const char *data, size_t *n,
                                      void **state)
{
    http_server *s = context;
    http_exchange *x = *state;
    qwen3_error fault = {0};
    (void)version;
    if (!x) {
        *state = x = begin_exchange(s, connection, method, path);
        if (!x || !x->method || !x->path)
            return MHD_NO;
        s->handler.admit(s->handler.context, x);
        return x->response && http_body_length(x) > MOST_DISCARDED ? answer(x) : MHD_YES;
    }
    if (*n > 0) { /* a body that does not say how long it is can only be cut off */
        if (!x->response &&
            (x->body.n + *n > s->settings->body_bytes || text_append(&x->body, data, *n, &fault) != QWEN3_OK))
            return MHD_NO;
        *n = 0;
        return MHD_YES;
    }
    if (!x->taken && !x->response) {
        x->taken = true;
        s->handler.take(s->handler.context, x);
    }
    return answer(x);
}

const char *http_method(const http_exchange *x)
{
    return x->method;
}

const char *http_path(const http_exchange *x)
{
    return x->path;
}

const char *http_header(const http_exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

const char *http_body(const http_exchange *x, size_t *n)
{
    *n = x->body.n;
    return x->body.n ? x->body.data : "";
}

size_t http_body_limit(const http_exchange *x)
{
    return x->server->settings->body_bytes;
}

uint64_t http_client(const http_exchange *x)
{
    const struct sockaddr *address =
        MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr;
    const unsigned char *bytes = NULL;
    size_t n = 0;
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    if (address->sa_family == AF_INET) {
        bytes = (const unsigned char *)&((const struct sockaddr_in *)address)->sin_addr;
        n = sizeof(struct in_addr);
    } else if (address->sa_family == AF_INET6) {
        bytes = (const unsigned char *)&((const struct sockaddr_in6 *)address)->sin6_addr;
        n = sizeof(struct in6_addr);
    }
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ bytes[i]) * 1099511628211u;
    return hash;
}

void http_set_user(http_exchange *x, void *user)
{
    x->user = user;
}

void *http_user(const http_exchange *x)
{
    return x->user;
}

/* ---- Replies ------------------------------------------------------------------------------------ */

static void add_header(http_exchange *x, const char *name, const char *value)
{
    if (value)
        MHD_add_response_header(x->response, name, value);
}

/* Who may read the reply from a page of another origin. */
static void add_cors(http_exchange *x)
{
    const char *origin = x->server->settings->cors_origin;
    if (!origin)
        return;
    add_header(x, "Access-Control-Allow-Origin", origin);
    if (strcmp(origin, "*") != 0)
        add_header(x, "Vary", "Origin");
    if (strcmp(x->method, "OPTIONS") == 0) {
        add_header(x, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
        add_header(x, "Access-Control-Allow-Headers", http_header(x, "Access-Control-Request-Headers"));
        add_header(x, "Access-Control-Max-Age", "86400");
    }
}

static void set_response(http_exchange *x, int status, const char *type, struct MHD_Response *response)
{
    x->response = response;
    x->status = status;
    x->broken = !response;
    if (response) {
        add_header(x, "Content-Type", type);
        add_header(x, "Cache-Control", "no-cache");
        add_cors(x);
    }
}

void http_reply(http_exchange *x, int status, const char *type, const char *data, size_t n, int retry_after)
{
    char seconds[16];
    set_response(x, status, type, MHD_create_response_from_buffer(n, (void *)data, MHD_RESPMEM_MUST_COPY));
    if (retry_after > 0 && x->response) {
        snprintf(seconds, sizeof seconds, "%d", retry_after);
        add_header(x, "Retry-After", seconds);
    }
    if (status == 401 && x->response)
        add_header(x, "WWW-Authenticate", "Bearer");
    x->ended = true;
    resume(x);
}

static ssize_t read_stream(void *context, uint64_t position, char *buffer, size_t room)
{
    http_exchange *x = context;
    (void)position;
    if (x->broken)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    size_t n = x->out.n < room ? x->out.n : room;
    if (n > 0) {
        memcpy(buffer, x->out.data, n);
        text_drop(&x->out, n);
        return (ssize_t)n;
    }
    if (x->ended)
        return MHD_CONTENT_READER_END_OF_STREAM;
    suspend(x);
    return 0;
}

void http_stream_begin(http_exchange *x)
{
    x->streaming = true;
    set_response(x, 200, "text/event-stream",
                 MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, x, NULL));
    if (x->response)
        add_header(x, "X-Accel-Buffering", "no"); /* nginx passes each event on at once */
    resume(x);
}

void http_stream_write(http_exchange *x, const char *data, size_t n)
{
    qwen3_error fault = {0};
    if (text_append(&x->out, data, n, &fault) != QWEN3_OK)
        x->broken = true;
    resume(x);
}

void http_stream_end(http_exchange *x)
{
    x->ended = true;
    resume(x);
}

void http_stream_break(http_exchange *x)
{
    x->broken = true;
    resume(x);
}

/* ---- The server --------------------------------------------------------------------------------- */

qwen3_status http_open(const http_settings *settings, http_server **server, qwen3_error *err)
{
    http_server *s = *server = allocate(1, sizeof *s, "HTTP server", err);
    if (!s)
        return err->status;
    *s = (http_server){.settings = settings, .listener = -1, .wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    s->looked = allocate((size_t)settings->connections, sizeof *s->looked, "connections", err);
    if (s->wake < 0)
        set_error(err, QWEN3_ERR_MEMORY, "HTTP server: no event descriptor: %s", strerror(errno));
    if (err->status == QWEN3_OK)
        s->listener = http_socket_open(settings, s->address, sizeof s->address, err);
    return err->status;
}

const char *http_address(const http_server *s)
{
    return s->address;
}

/* libmicrohttpd reports what clients do wrong; they learn it from their replies. */
static void ignore(void *context, const char *format, va_list arguments)
{
    (void)context, (void)format, (void)arguments;
}

qwen3_status http_start(http_server *s, const http_handler *handler, qwen3_error *err)
{
    const http_settings *o = s->settings;
    s->handler = *handler;
    s->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
                                 access_request, s, MHD_OPTION_EXTERNAL_LOGGER, ignore, NULL, MHD_OPTION_LISTEN_SOCKET,
                                 s->listener, MHD_OPTION_CONNECTION_LIMIT, (unsigned)o->connections,
                                 MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)o->timeout,
                                 MHD_OPTION_CONNECTION_MEMORY_LIMIT, o->header_bytes, MHD_OPTION_STRICT_FOR_CLIENT, 1,
                                 MHD_OPTION_NOTIFY_COMPLETED, complete, s, MHD_OPTION_NOTIFY_CONNECTION,
                                 connection_changed, s, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
    if (!s->daemon)
        return set_error(err, QWEN3_ERR_IO, "HTTP server: libmicrohttpd does not start");
    s->epoll = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    return QWEN3_OK;
}

void http_wake(http_server *s)
{
    const uint64_t one = 1;
    if (write(s->wake, &one, sizeof one) < 0) /* the counter is full: it will wake */
        return;
}

/* Ends exchanges whose clients closed their connections, or their half of them. */
static void look_after(http_server *s)
{
    nfds_t n = 0;
    http_exchange *x, *next;
    for (x = s->open; x && n < (nfds_t)s->settings->connections; x = x->next)
        if (x->suspended)
            s->looked[n++] = (struct pollfd){.fd = socket_of(x->connection), .events = POLLRDHUP};
    if (n == 0 || poll(s->looked, n, 0) <= 0)
        return;
    nfds_t i = 0;
    for (x = s->open; x && i < n; x = next) {
        next = x->next;
        if (!x->suspended || !s->looked[i++].revents)
            continue;
        end_by_client(x);
        x->broken = true;
        resume(x);
    }
}

/* Lets libmicrohttpd look at the sockets again whose clients have closed them while they had no reply to wait for. Not
 * more often than every LOOK_IDLE_MS: it is a call for each of them. */
static void look_after_readers(http_server *s)
{
    char byte;
    const double now = seconds_now();
    if (1e3 * (now - s->readers_looked) < LOOK_IDLE_MS)
        return;
    s->readers_looked = now;
    for (http_link *l = s->links; l; l = l->next) {
        if (l->busy)
            continue;
        const ssize_t n = recv(socket_of(l->connection), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
            continue;
        MHD_suspend_connection(l->connection);
        MHD_resume_connection(l->connection);
    }
}

static unsigned connections(const http_server *s)
{
    return MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS)->num_connections;
}

/* Milliseconds until something must be looked at; -1 = none. */
static int patience(const http_server *s)
{
    MHD_UNSIGNED_LONG_LONG ms = 0;
    const int most = s->open || s->door_closed ? LOOK_AFTER_MS : s->links ? LOOK_IDLE_MS : -1;
    if (MHD_get_timeout(s->daemon, &ms) != MHD_YES)
        return most;
    return most >= 0 && ms > (MHD_UNSIGNED_LONG_LONG)most ? most : (int)(ms < 60000 ? ms : 60000);
}

void http_run(http_server *s)
{
    const http_handler *h = &s->handler;
    bool more = true;
    while (more) {
        uint64_t count;
        const unsigned before = connections(s);
        MHD_run(s->daemon);
        if (connections(s) < before) /* libmicrohttpd accepts again, after it was full, when it runs the next time */
            MHD_run(s->daemon);
        struct pollfd ready[] = {{.fd = s->epoll, .events = POLLIN}, {.fd = s->wake, .events = POLLIN}};
        poll(ready, 2, patience(s));
        if (ready[1].revents && read(s->wake, &count, sizeof count) < 0 && errno != EAGAIN)
            break;
        more = h->woken(h->context);
        look_after(s);
        look_after_readers(s);
    }
    /* What was said last still has to leave. */
    for (int i = 0; i < 20 && s->open; i++) {
        MHD_run(s->daemon);
        poll(&(struct pollfd){.fd = s->epoll, .events = POLLIN}, 1, LOOK_AFTER_MS / 2);
    }
}

void http_close_door(http_server *s)
{
    if (s->door_closed)
        return;
    s->door_closed = true;
    MHD_quiesce_daemon(s->daemon);
}

void http_close(http_server *s)
{
    if (!s)
        return;
    for (http_exchange *x = s->open; x; x = x->next)
        resume(x);
    if (s->daemon) {
        http_close_door(s); /* otherwise libmicrohttpd closes the listener */
        MHD_stop_daemon(s->daemon);
    }
    http_socket_close(s->listener, s->settings);
    if (s->wake >= 0)
        close(s->wake);
    free(s->looked);
    free(s);
}
