/* request_chat.h - the part of a request that only /v1/chat/completions has: messages, tools, reasoning. */
#ifndef REQUEST_CHAT_H
#define REQUEST_CHAT_H

#include "request.h"

bool request_take_chat(generation_request *r, const request_defaults *defaults, api_error *e);

#endif
