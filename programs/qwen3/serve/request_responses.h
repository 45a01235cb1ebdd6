/* request_responses.h - the body of /v1/responses, translated into that of /v1/chat/completions, so that both are
 * checked and answered by the same code. */
#ifndef REQUEST_RESPONSES_H
#define REQUEST_RESPONSES_H

#include "api_error.h"

/* The body of a chat, owned by the caller; NULL on failure. Members that both have are passed on unchecked. */
json_t *request_of_responses(const json_t *body, api_error *e);
/* Faults that are found in the translation name the members that the client sent. */
void request_rename_fault(api_error *e);

#endif
