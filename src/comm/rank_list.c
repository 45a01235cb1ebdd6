/* rank_list.c - see rank_list.h. */
#include "comm/rank_list.h"

#include <stdio.h>

void rank_list(const bool *member, int n, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (int first = 0, end; first < n && used < size; first = end) {
        for (end = first + 1; member[first] && end < n && member[end];)
            end++;
        if (!member[first])
            continue;
        const char *before = used ? ", " : "";
        if (end - first == 1)
            used += (size_t)snprintf(text + used, size - used, "%s%d", before, first);
        else
            used += (size_t)snprintf(text + used, size - used, "%s%d-%d", before, first, end - 1);
    }
}
