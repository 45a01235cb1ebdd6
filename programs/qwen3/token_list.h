/* token_list.h - token ids on the command line: "1,2,3" or "@FILE". */
#ifndef TOKEN_LIST_H
#define TOKEN_LIST_H

#include <stddef.h>
#include <stdint.h>

#include "qwen3.h"

/* Ids separated by commas or white space, in `text` or, if it is "@FILE", in that file, which rank 0 reads for all.
 * *tokens [*n], n >= 1, on all ranks, is freed with free(). Collective. */
qwen3_status token_list_read(qwen3_comm *world, const char *text, int32_t **tokens, size_t *n, qwen3_error *err);

#endif
