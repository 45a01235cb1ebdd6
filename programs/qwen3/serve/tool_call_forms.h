/* tool_call_forms.h - reads one call of a tool, the text between <tool_call> and </tool_call>. */
#ifndef TOOL_CALL_FORMS_H
#define TOOL_CALL_FORMS_H

#include "tool_calls.h"

/* call->name stays NULL where the text [n] is no call. The strings are the caller's. */
qwen3_status tool_call_parse(const char *text, size_t n, const json_t *tools, tool_call *call, qwen3_error *err);

#endif
