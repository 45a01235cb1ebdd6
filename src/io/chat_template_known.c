/* chat_template_known.c - recognises the published templates by a hash of their normal form.
 *
 * Each of their tags begins with "{%-" or "{{-", which removes the white space before it, so the white space between
 * tags has no effect. Nor has the amount of white space inside tags, outside of string literals. The normal form leaves
 * both out. A template with anything else is unknown. */
#include <stdint.h>

#include "io/chat_template.h"

/* tests/data/chat holds the texts. */
static const struct {
    uint64_t hash;
    qwen3_chat_template chat;
} known[] = {
    /* Qwen3, as first published: content must be a string */
    {UINT64_C(0xe51b1376bec950e9), {QWEN3_THINKING_OPTIONAL, CHAT_NULL_WITH_TOOL_CALLS}},
    /* Qwen3, revised */
    {UINT64_C(0xe890ec78ac07188e), {QWEN3_THINKING_OPTIONAL, CHAT_NULL_ALLOWED}},
    /* Qwen3-2507-Thinking */
    {UINT64_C(0x0919f18c0785324f), {QWEN3_THINKING_ALWAYS, CHAT_NULL_ALLOWED}},
    /* Qwen3-2507-Instruct */
    {UINT64_C(0xb249a99b65823bfc), {QWEN3_THINKING_NEVER, CHAT_NULL_ALLOWED}},
};

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

typedef struct scanner {
    const char *at, *end;
    uint64_t hash; /* of what was taken: FNV-1a (Fowler, Noll, Vo) */
} scanner;

static void take(scanner *s, char c)
{
    s->hash = (s->hash ^ (unsigned char)c) * UINT64_C(0x100000001b3);
}

static size_t skip_space(scanner *s)
{
    const char *begin = s->at;
    while (s->at < s->end && is_space(*s->at))
        s->at++;
    return (size_t)(s->at - begin);
}

/* Takes a string literal with its quotes; false if it does not end. */
static bool take_literal(scanner *s)
{
    char quote = *s->at;
    take(s, *s->at++);
    while (s->at < s->end && *s->at != quote) {
        if (*s->at == '\\' && s->at + 1 < s->end)
            take(s, *s->at++);
        take(s, *s->at++);
    }
    if (s->at == s->end)
        return false;
    take(s, *s->at++);
    return true;
}

/* Takes "{%- ... %}" or "{{- ... }}"; false if something else is next. */
static bool take_tag(scanner *s)
{
    if (s->end - s->at < 5 || s->at[0] != '{' || (s->at[1] != '%' && s->at[1] != '{') || s->at[2] != '-')
        return false;
    char closing = s->at[1] == '%' ? '%' : '}';
    take(s, s->at[1]);
    s->at += 3;
    skip_space(s);
    while (s->end - s->at >= 2 && !(s->at[0] == closing && s->at[1] == '}')) {
        size_t spaces = skip_space(s);
        if (s->end - s->at < 2 || (s->at[0] == closing && s->at[1] == '}'))
            continue;
        if (spaces)
            take(s, ' ');
        if (*s->at != '"' && *s->at != '\'')
            take(s, *s->at++);
        else if (!take_literal(s))
            return false;
    }
    if (s->end - s->at < 2)
        return false;
    take(s, closing);
    s->at += 2;
    return true;
}

const qwen3_chat_template *chat_template_recognise(const char *text, size_t length)
{
    scanner s = {text, text + length, UINT64_C(0xcbf29ce484222325)};
    while (s.at < s.end) {
        const char *begin = s.at;
        size_t spaces = skip_space(&s);
        /* The last tag may be followed by a newline; anything more would be part of the prompt. */
        if (s.at == s.end && begin > text && (spaces == 1 && *begin == '\n'))
            break;
        if (!take_tag(&s))
            return NULL;
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].hash == s.hash)
            return &known[i].chat;
    return NULL;
}
