/* http_socket.h - the socket that `qwen3 serve` listens on. */
#ifndef HTTP_SOCKET_H
#define HTTP_SOCKET_H

#include "http.h"

/* A listening socket, and its address as text; -1 on failure. */
int http_socket_open(const http_settings *settings, char *address, size_t size, qwen3_error *err);
/* Closes it, and removes a Unix socket. -1 is allowed. */
void http_socket_close(int listener, const http_settings *settings);

#endif
