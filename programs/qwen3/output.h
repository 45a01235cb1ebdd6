/* output.h - what a person or a script is shown: text as it comes, or one JSON object (an event) a line. Rank 0. */
#ifndef OUTPUT_H
#define OUTPUT_H

#include <jansson.h>
#include <stdio.h>

#include "common/error.h"
#include "common/text_buffer.h"

/* What a piece of an answer is. */
typedef enum piece_kind {
    PIECE_TEXT,     /* the answer itself */
    PIECE_THINKING, /* reasoning */
    PIECE_MARK,     /* what separates the two: <think>, </think> and the newlines after them */
} piece_kind;

typedef struct output {
    FILE *file;         /* answers, and with json everything */
    bool json;          /* events */
    bool terminal;      /* a person looks at it: colours */
    bool safe;          /* no control characters: a terminal, or what may be one behind a launcher */
    bool new_line;      /* an answer ends with a newline, at a terminal anyway */
    bool hide_thinking; /* reasoning and marks are not shown */
    char last;          /* state: last character written of an answer, 0 = none */
    text_buffer shown;  /* work space */
} output;

/* Whether what the standard file `fd` (0 input, 1 output) carries is typed or seen at a terminal, by way of an MPI
 * launcher where one is there. *sure is false where a launcher is somewhere that cannot be looked at. */
bool output_is_terminal(int fd, int ranks, bool *sure);
output output_open(bool json, bool hide_thinking, int ranks);
void output_close(output *out);

/* Shows a piece of well-formed UTF-8 at once. */
qwen3_status output_piece(output *out, piece_kind kind, const char *text, size_t n, qwen3_error *err);
/* The end of the pieces of an answer. */
qwen3_status output_end(output *out, qwen3_error *err);
/* Writes the event, which this takes over; NULL is a lack of memory. Nothing without json. */
qwen3_status output_event(output *out, json_t *event, qwen3_error *err);
/* A remark of the program: a line on standard error, or an event of this name with a message. */
qwen3_status output_note(output *out, const char *event, qwen3_error *err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
