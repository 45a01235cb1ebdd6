/* request_grammar.h - the grammars that a request wants its answers to follow. */
#ifndef REQUEST_GRAMMAR_H
#define REQUEST_GRAMMAR_H

#include "request.h"

/* Sets content_grammar by a schema; `where` begins messages. */
bool request_content_grammar(generation_request *r, json_t *schema, const char *where, api_error *e);
/* Sets call_grammar: {"name": ..., "arguments": ...} of a function of the tools, or of the one that is named (`only`,
 * NULL = all). Arguments meet the parameters where `all_strict`, or where the function is strict. */
bool request_call_grammar(generation_request *r, const char *only, bool all_strict, api_error *e);

#endif
