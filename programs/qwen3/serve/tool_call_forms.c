/* tool_call_forms.c - see tool_call_forms.h.
 *
 * Arguments are copied from the text, not written anew: their numbers keep their digits. */
#include "tool_call_forms.h"

#include <stdlib.h>
#include <string.h>

typedef struct span {
    const char *begin, *end;
} span;

static qwen3_status out_of_memory(qwen3_error *err)
{
    return set_error(err, QWEN3_ERR_MEMORY, "tool calls: out of memory");
}

static bool is_space(char c)
{
    return c && strchr(" \n\r\t", c);
}

static span strip(span s)
{
    while (s.begin < s.end && is_space(*s.begin))
        s.begin++;
    while (s.begin < s.end && is_space(s.end[-1]))
        s.end--;
    return s;
}

static const char *find(span s, const char *tag)
{
    return s.begin < s.end ? memmem(s.begin, (size_t)(s.end - s.begin), tag, strlen(tag)) : NULL;
}

static json_t *parse(span s)
{
    return json_loadb(s.begin, (size_t)(s.end - s.begin), JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
}

/* ---- Qwen3 -------------------------------------------------------------------------------------- */

static const char *skip_string(const char *at)
{
    for (at++; *at != '"'; at++)
        at += *at == '\\';
    return at + 1;
}

/* The end of a value of well-formed JSON. */
static const char *skip_value(const char *at, const char *end)
{
    int depth = 0;
    while (at < end) {
        if (*at == '"') {
            at = skip_string(at);
        } else {
            if (depth == 0 && strchr(",}]", *at))
                return at;
            depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
            at++;
            if (depth == 0 && strchr("}]", at[-1]))
                return at;
        }
    }
    return at;
}

/* Where the value of a member of the object is, which is well-formed and has it once. */
static span member(span object, const char *name)
{
    const size_t n = strlen(name);
    const char *at = object.begin + 1;
    while (at < object.end) {
        while (is_space(*at) || *at == ',')
            at++;
        const char *key = at;
        if (*key != '"')
            break;
        at = skip_string(at);
        const bool same = (size_t)(at - key) == n + 2 && memcmp(key + 1, name, n) == 0;
        while (is_space(*at) || *at == ':')
            at++;
        const span value = {at, skip_value(at, object.end)};
        if (same)
            return strip(value);
        at = value.end;
    }
    return (span){object.end, object.end};
}

static qwen3_status parse_object(span text, tool_call *call, qwen3_error *err)
{
    json_t *object = parse(text);
    const json_t *name = json_object_get(object, "name"), *arguments = json_object_get(object, "arguments");
    qwen3_status status = QWEN3_OK;
    if (json_is_string(name) && (json_is_object(arguments) || json_is_string(arguments) || !arguments)) {
        const span raw = member(text, "arguments");
        call->name = strdup(json_string_value(name));
        if (json_is_string(arguments))
            call->arguments = strdup(json_string_value(arguments));
        else
            call->arguments = arguments ? strndup(raw.begin, (size_t)(raw.end - raw.begin)) : strdup("{}");
        if (!call->name || !call->arguments)
            status = out_of_memory(err);
    }
    json_decref(object);
    return status;
}

/* ---- Qwen3-Coder -------------------------------------------------------------------------------- */

/* The type of a parameter by the definition of the function; NULL where it says none. */
static const char *parameter_type(const json_t *tools, const char *function, const char *parameter)
{
    size_t i;
    json_t *tool;
    json_array_foreach((json_t *)tools, i, tool)
    {
        const json_t *f = json_object_get(tool, "function");
        const char *name = json_string_value(json_object_get(f, "name"));
        if (!name || strcmp(name, function) != 0)
            continue;
        const json_t *properties = json_object_get(json_object_get(f, "parameters"), "properties");
        return json_string_value(json_object_get(json_object_get(properties, parameter), "type"));
    }
    return NULL;
}

static qwen3_status append_string(text_buffer *out, span s, qwen3_error *err)
{
    json_t *string = json_stringn(s.begin, (size_t)(s.end - s.begin));
    char *text = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
    qwen3_status status = text ? text_append(out, text, strlen(text), err) : out_of_memory(err);
    free(text);
    json_decref(string);
    return status;
}

/* A value is text where the definition says so, and otherwise JSON if it is that. */
static qwen3_status append_value(text_buffer *out, span value, const char *type, qwen3_error *err)
{
    const span stripped = strip(value);
    json_t *json = type && strcmp(type, "string") == 0 ? NULL : parse(stripped);
    const bool is_json = json && (type || !json_is_string(json));
    json_decref(json);
    return is_json ? text_append(out, stripped.begin, (size_t)(stripped.end - stripped.begin), err)
                   : append_string(out, value, err);
}

/* NAME of "<tag=NAME>"; *rest follows it. */
static bool take_name(span *rest, const char *tag, span *name)
{
    const char *at = find(*rest, tag), *end = at ? memchr(at, '>', (size_t)(rest->end - at)) : NULL;
    if (!end)
        return false;
    *name = strip((span){at + strlen(tag), end});
    rest->begin = end + 1;
    return name->begin < name->end;
}

/* A line break after the opening tag and one before the closing tag belong to the tags. */
static span take_parameter(span *rest)
{
    const char *end = find(*rest, "</parameter>");
    span value = {rest->begin, end ? end : rest->end};
    rest->begin = end ? end + strlen("</parameter>") : rest->end;
    if (value.begin < value.end && *value.begin == '\n')
        value.begin++;
    if (value.begin < value.end && value.end[-1] == '\n')
        value.end--;
    return value;
}

static qwen3_status parse_tags(span rest, const json_t *tools, tool_call *call, qwen3_error *err)
{
    text_buffer arguments = {0};
    span function, name;
    if (!take_name(&rest, "<function=", &function))
        return QWEN3_OK;
    if (!(call->name = strndup(function.begin, (size_t)(function.end - function.begin))))
        return out_of_memory(err);
    qwen3_status status = text_append(&arguments, "{", 1, err);
    while (status == QWEN3_OK && take_name(&rest, "<parameter=", &name)) {
        char *parameter = strndup(name.begin, (size_t)(name.end - name.begin));
        const span value = take_parameter(&rest);
        if (arguments.n > 1)
            status = text_append(&arguments, ", ", 2, err);
        if (status == QWEN3_OK)
            status = append_string(&arguments, name, err);
        if (status == QWEN3_OK)
            status = text_append(&arguments, ": ", 2, err);
        if (status == QWEN3_OK)
            status =
                append_value(&arguments, value, parameter_type(tools, call->name, parameter ? parameter : ""), err);
        free(parameter);
    }
    if (status == QWEN3_OK)
        status = text_append(&arguments, "}", 1, err);
    call->arguments = arguments.data;
    return status;
}

qwen3_status tool_call_parse(const char *text, size_t n, const json_t *tools, tool_call *call, qwen3_error *err)
{
    const span body = strip((span){text, text + n});
    qwen3_status status = QWEN3_OK;
    if (body.begin < body.end && *body.begin == '{')
        status = parse_object(body, call, err);
    else if (body.begin < body.end && *body.begin == '<')
        status = parse_tags(body, tools, call, err);
    if (status != QWEN3_OK) {
        free(call->name);
        free(call->arguments);
        *call = (tool_call){0};
    }
    return status;
}
