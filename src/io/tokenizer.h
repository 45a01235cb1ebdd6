/* tokenizer.h - the tokenizer inside: its tables, and the steps from text to ids.
 *
 * text -> added tokens | stretches between them -> form C (nfc.h) -> pieces (tokenizer_split.c) -> symbols,
 * one for each byte, merged in the order of the merges (tokenizer_merge.c). */
#ifndef QWEN3_IO_TOKENIZER_H
#define QWEN3_IO_TOKENIZER_H

#include <stdatomic.h>

#include "io/utf8.h"

enum {
    TOKEN_LONGEST = 4096,   /* bytes of a token; published ones have at most 128 */
    TOKEN_IDS = 1 << 22,    /* ids are below; published vocabularies have 151,669 */
    TEXT_LONGEST = 1 << 29, /* bytes of a text: three times as many, after U+FFFD, still count in 31 bits */
    NO_ID = -1,
};

typedef struct token {
    uint32_t begin, bytes; /* in tokenizer.bytes */
    qwen3_token_kind kind; /* QWEN3_TOKEN_NONE: no token has this id */
} token;

/* left, right -> id. Merges are numbered by rank: the lowest is done first. left NO_ID = free slot. */
typedef struct merge {
    int32_t left, right, rank, id;
} merge;

/* What encode has learnt of a token: whether merging the bytes of the token yields the token itself. */
enum { WHOLE_UNKNOWN = 0, WHOLE_YES, WHOLE_NO };

struct qwen3_tokenizer {
    unsigned char *bytes; /* of all tokens */
    token *tokens;        /* [n_tokens] by id */
    size_t n_tokens;
    int32_t *vocabulary; /* [vocabulary_slots] hash table of the ids of ordinary tokens, by bytes; NO_ID = free */
    size_t vocabulary_slots;
    merge *merges; /* [merge_slots] hash table */
    size_t merge_slots, n_merges;
    int32_t byte_ids[256];
    int32_t *added; /* [n_added] ids, sorted by bytes */
    size_t n_added;
    bool added_begins[256]; /* whether an added token begins with the byte */
    size_t longest;         /* bytes of the longest token */
    _Atomic uint8_t *whole; /* [n_tokens] WHOLE_*; a memory that any number of threads may fill */
};

/* ---- tokenizer_load.c */
qwen3_status tokenizer_load(qwen3_tokenizer *t, const char *path, const char *text, size_t bytes, qwen3_error *err);

/* ---- tokenizer_tables.c */
/* The bytes of the tokens are in place; fills the vocabulary. Refuses two tokens of the same bytes. */
qwen3_status vocabulary_build(qwen3_tokenizer *t, const char *path, qwen3_error *err);
/* Id of the ordinary token of these bytes, or NO_ID. */
int32_t vocabulary_find(const qwen3_tokenizer *t, const unsigned char *bytes, size_t n);
qwen3_status merges_reserve(qwen3_tokenizer *t, size_t n, qwen3_error *err);
/* Puts a merge into its slot; false where the pair has one already. */
bool merges_insert(qwen3_tokenizer *t, merge m);
/* NULL: the two do not merge. */
const merge *merges_find(const qwen3_tokenizer *t, int32_t left, int32_t right);
/* Sorts t->added. */
void added_sort(qwen3_tokenizer *t);
/* The longest added token at the beginning of the text, or NO_ID. */
int32_t added_match(const qwen3_tokenizer *t, const unsigned char *text, size_t bytes);

/* ---- tokenizer_split.c */
/* Bytes of the first piece of well-formed text; bytes > 0. */
size_t split_piece(const unsigned char *text, size_t bytes);

/* ---- tokenizer_merge.c */
/* A place of a long piece: its symbol, the places beside it (NO_ID: none), and the rank of merging it with
 * the next one. */
typedef struct merge_symbol {
    int32_t id, previous, next, rank;
} merge_symbol;

/* A queued place; `next` is the next entry of the same rank, plus 1 (0: none). */
typedef struct merge_entry {
    int32_t place;
    uint32_t next;
} merge_entry;

/* Workspace for long pieces or their blocks, kept between calls; zero-initialised is empty. */
typedef struct merge_work {
    merge_symbol *symbols; /* [room] */
    merge_entry *entries;  /* [3 room] */
    uint32_t n_entries;
    int32_t *batch; /* [room] */
    size_t room;
    uint32_t *buckets; /* [n_merges] the first entry of each rank, plus 1; all 0 between calls */
    uint64_t *waiting; /* [n_merges / 64 + 1] a bit for each rank with entries; all 0 between calls */
} merge_work;

/* Ids of one piece to ids[] (room for n), *n_ids of them. */
qwen3_status merge_piece(const qwen3_tokenizer *t, merge_work *work, const unsigned char *piece, size_t n, int32_t *ids,
                         size_t *n_ids, qwen3_error *err);
void merge_work_free(merge_work *work);

#endif
