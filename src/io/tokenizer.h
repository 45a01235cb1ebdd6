/* tokenizer.h - the inside of the tokenizer: its tables, and the stages from text to ids.
 *
 * text -> added tokens | the text between them -> form C (nfc.h) -> pieces, also called pre-tokens (tokenizer_split.c)
 * -> one token for each byte, merged by rank (tokenizer_merge.c). */
#ifndef QWEN3_IO_TOKENIZER_H
#define QWEN3_IO_TOKENIZER_H

#include <stdatomic.h>

#include "io/utf8.h"

enum {
    TOKEN_LONGEST = 4096,   /* bytes of a token; published ones have at most 128 */
    TOKEN_IDS = 1 << 22,    /* ids are below; published vocabularies have 151,669 */
    TEXT_LONGEST = 1 << 29, /* bytes of a text; three times as many, if all become U+FFFD, still fit in 31 bits */
    NO_ID = -1,
};

typedef struct token {
    uint32_t begin, bytes; /* in tokenizer.bytes */
    qwen3_token_kind kind; /* QWEN3_TOKEN_NONE: no token has this id */
} token;

/* left, right -> id. The merge of the lowest rank is done first. left NO_ID = free slot. */
typedef struct merge {
    int32_t left, right, rank, id;
} merge;

/* Whether merging the bytes of a token yields the token itself, as far as encoding has found out. */
enum { WHOLE_UNKNOWN = 0, WHOLE_YES, WHOLE_NO };

struct qwen3_tokenizer {
    atomic_int users;     /* who opened it, and streams: the last of them closes it */
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
    bool marks;             /* the split pattern is the newer one, in which marks belong to words */
    int32_t end;            /* the token that the file's post-processor puts at the end of a text; NO_ID = none */
    _Atomic uint8_t *whole; /* [n_tokens] WHOLE_*; a cache that any number of threads may fill */
};

/* ---- tokenizer_load.c */
qwen3_status tokenizer_load(qwen3_tokenizer *t, const char *path, const char *text, size_t bytes, qwen3_error *err);
/* ---- tokenizer_gguf.c */
struct gguf_file;
qwen3_status tokenizer_load_gguf(qwen3_tokenizer *t, const struct gguf_file *file, qwen3_error *err);

/* ---- tokenizer_tables.c */
/* Fills the vocabulary, `name` in messages, from the bytes of the tokens. Refuses two tokens of the same bytes. */
qwen3_status vocabulary_build(qwen3_tokenizer *t, const char *path, const char *name, qwen3_error *err);
/* Id of the ordinary token of these bytes, or NO_ID. */
int32_t vocabulary_find(const qwen3_tokenizer *t, const unsigned char *bytes, size_t n);
qwen3_status merges_reserve(qwen3_tokenizer *t, size_t n, qwen3_error *err);
/* Inserts a merge; false if the pair has one already. */
bool merges_insert(qwen3_tokenizer *t, merge m);
/* NULL if the two do not merge. */
const merge *merges_find(const qwen3_tokenizer *t, int32_t left, int32_t right);
/* Sorts t->added. */
void added_sort(qwen3_tokenizer *t);
/* The longest added token at the beginning of the text, or NO_ID. */
int32_t added_match(const qwen3_tokenizer *t, const unsigned char *text, size_t bytes);

/* ---- tokenizer_split.c */
/* Bytes of the first piece of well-formed text; bytes > 0. marks: as in qwen3_tokenizer. */
size_t split_piece(const unsigned char *text, size_t bytes, bool marks);

/* ---- tokenizer_merge.c */
/* A place of a long piece: its token, the places beside it (NO_ID: none), the rank of merging it with the next one. */
typedef struct merge_symbol {
    int32_t id, previous, next, rank;
} merge_symbol;

/* A queued place; `next` is the next entry of the same rank, plus 1 (0: none). */
typedef struct merge_entry {
    int32_t place;
    uint32_t next;
} merge_entry;

/* Workspace for long pieces, kept between calls; zeroed = empty. */
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
