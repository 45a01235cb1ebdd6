/* http_socket.c - see http_socket.h. */
#include "http_socket.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 1024

static int fail(int fd, const char *what, const char *name, qwen3_error *err)
{
    set_error(err, QWEN3_ERR_IO, "%s: %s: %s", what, name, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

/* A socket that nobody listens on any more is left by a server that was killed. */
static void remove_stale(const struct sockaddr_un *address)
{
    struct stat info;
    if (lstat(address->sun_path, &info) != 0 || !S_ISSOCK(info.st_mode))
        return;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 && errno == ECONNREFUSED)
        unlink(address->sun_path);
    close(fd);
}

static int open_unix(const char *path, qwen3_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        set_error(err, QWEN3_ERR_ARGUMENT, "--socket: the path has %zu bytes, expected at most %zu", strlen(path),
                  sizeof address.sun_path - 1);
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path));
    remove_stale(&address);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof address) != 0 || listen(fd, BACKLOG) != 0)
        return fail(fd, "--socket", path, err);
    return fd;
}

static int listen_at(const struct addrinfo *a)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 && bind(fd, a->ai_addr, a->ai_addrlen) == 0 &&
        listen(fd, BACKLOG) == 0)
        return fd;
    int fault = errno;
    close(fd);
    errno = fault;
    return -1;
}

static int open_tcp(const http_settings *s, char *text, size_t size, qwen3_error *err)
{
    char port[8], name[80];
    struct addrinfo *found = NULL, wanted = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    snprintf(port, sizeof port, "%d", s->port);
    int fault = getaddrinfo(s->host, port, &wanted, &found);
    if (fault) {
        set_error(err, QWEN3_ERR_ARGUMENT, "--host: %.200s: %s", s->host, gai_strerror(fault));
        return -1;
    }
    int fd = listen_at(found);
    freeaddrinfo(found);
    snprintf(name, sizeof name, "%.60s port %d", s->host, s->port);
    if (fd < 0)
        return fail(fd, "--host", name, err);
    struct sockaddr_storage bound;
    socklen_t length = sizeof bound;
    if (getsockname(fd, (struct sockaddr *)&bound, &length) != 0 ||
        getnameinfo((struct sockaddr *)&bound, length, name, sizeof name, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return fail(fd, "--host", s->host, err);
    snprintf(text, size, strchr(name, ':') ? "http://[%s]:%s" : "http://%s:%s", name, port);
    return fd;
}

int http_socket_open(const http_settings *settings, char *address, size_t size, qwen3_error *err)
{
    if (!settings->socket)
        return open_tcp(settings, address, size, err);
    snprintf(address, size, "unix:%s", settings->socket);
    return open_unix(settings->socket, err);
}

void http_socket_close(int listener, const http_settings *settings)
{
    if (listener < 0)
        return;
    close(listener);
    if (settings->socket)
        unlink(settings->socket);
}
