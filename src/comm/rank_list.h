/* rank_list.h - numbers of ranks as text. */
#ifndef QWEN3_COMM_RANK_LIST_H
#define QWEN3_COMM_RANK_LIST_H

#include <stdbool.h>
#include <stddef.h>

/* "1-3, 7": the r in [0, n) with member[r]; what does not fit into text[size] is left out. */
void rank_list(const bool *member, int n, char *text, size_t size);

#endif
