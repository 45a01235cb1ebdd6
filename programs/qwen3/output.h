/* output.h - output for a person, text as it comes, or for a script, one JSON object (an event) a line. Rank 0. */
#ifndef OUTPUT_H
#define OUTPUT_H

#include <jansson.h>
#include <stdio.h>

#include "common/error.h"
#include "common/text_buffer.h"

/* What a part of an answer is. */
typedef enum part_kind {
    PART_TEXT,     /* the answer itself */
    PART_THINKING, /* reasoning */
    PART_MARK,     /* between the two: <think>, </think> and the newlines after them */
} part_kind;

typedef struct output {
    FILE *file;         /* for answers, and with json for everything */
    bool json;          /* events */
    bool terminal;      /* with colours */
    bool safe;          /* without control characters: it is a terminal, or may be one behind a launcher */
    bool new_line;      /* an answer ends with a newline; always so at a terminal */
    bool hide_thinking; /* reasoning and marks are not shown */
    char last;          /* state: the last character written of an answer, 0 = none */
    text_buffer shown;  /* work space */
} output;

/* Whether standard file `fd` (0 input, 1 output) is a terminal, also behind an MPI launcher. *sure is false if there is
 * a launcher that cannot be inspected. */
bool output_is_terminal(int fd, int ranks, bool *sure);
output output_open(bool json, bool hide_thinking, int ranks);
void output_close(output *out);

/* Shows a part of an answer, well-formed UTF-8, at once. */
qwen3_status output_part(output *out, part_kind kind, const char *text, size_t n, qwen3_error *err);
/* Ends an answer. */
qwen3_status output_end(output *out, qwen3_error *err);
/* Writes the event and frees it; NULL means out of memory. Does nothing without json. */
qwen3_status output_event(output *out, json_t *event, qwen3_error *err);
/* A remark of the program: a line on standard error, or an event of this name with a message. */
qwen3_status output_note(output *out, const char *event, qwen3_error *err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
