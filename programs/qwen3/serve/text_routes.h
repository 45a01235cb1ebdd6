/* text_routes.h - /tokenize and /detokenize. */
#ifndef TEXT_ROUTES_H
#define TEXT_ROUTES_H

#include "service.h"

void tokenize_reply(service *s, http_exchange *x);
void detokenize_reply(service *s, http_exchange *x);

#endif
