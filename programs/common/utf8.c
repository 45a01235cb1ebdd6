/* utf8.c - see utf8.h. */
#include "common/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool is_utf8(const char *text, size_t n)
{
    json_t *string = json_stringn(text, n);
    json_decref(string);
    return string != NULL;
}

json_t *json_of_path(const char *path)
{
    json_t *string = json_string(path);
    char *escaped = string ? NULL : malloc(4 * strlen(path) + 1);
    if (!escaped)
        return string;
    char *end = escaped;
    for (const char *c = path; *c; c++)
        if ((unsigned char)*c < 0x80)
            *end++ = *c;
        else
            end += sprintf(end, "\\x%02x", (unsigned)(unsigned char)*c);
    *end = '\0';
    string = json_string(escaped);
    free(escaped);
    return string;
}
