/* select.h - choosing among this rank's logits of one row. Nothing here communicates.
 *
 * Drawing. Let g be independent for each token, with the standard Gumbel distribution. Then the token of the largest
 * log p + g has distribution p (Gumbel 1954; Maddison, Tarlow & Minka 2014), and log p need not be normalised. Here g
 * is a function of a key and the token. So the token drawn does not depend on how the row is split, and one candidate
 * of each part is enough.
 *
 * Order. The order of tokens is that of their logits, the largest first, lower ids first at ties. */
#ifndef QWEN3_ENGINE_SELECT_H
#define QWEN3_ENGINE_SELECT_H

#include "base/random.h"
#include "kernels/kernels.h"

/* The largest logit of each block of this size is kept: most blocks need not be read again. */
#define SELECT_BLOCK 128

typedef struct candidate {
    double g;
    float logit;
    int32_t token; /* -1: none */
} candidate;

/* Whether a is before b in the order. */
static inline bool candidate_before(candidate a, candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

/* Whether a is drawn rather than b; "none" never is. Logits are subtracted first: added to a huge logit, g would be
 * lost. */
static inline bool candidate_beats(candidate a, candidate b, double inverse_temperature)
{
    if (a.token < 0 || b.token < 0)
        return a.token >= 0;
    double ahead = ((double)a.logit - b.logit) * inverse_temperature + (a.g - b.g);
    return ahead > 0 || (ahead == 0 && a.token < b.token);
}

/* Keeps the first k of the candidates that are added. */
typedef struct best_list {
    candidate *items; /* [best_list_room(k)] */
    size_t n, k;
    candidate limit; /* only what is before it is kept */
} best_list;

static inline size_t best_list_room(size_t k)
{
    return 2 * k + 256;
}
void best_list_init(best_list *l, size_t k, candidate *items);
void best_list_add(best_list *l, candidate c);
/* Sorts the k. */
void best_list_finish(best_list *l);

/* One part of a row. Tokens with a logit of -INFINITY are never chosen. */
typedef struct logits_part {
    const kernels *kernels;
    const float *logits; /* [n], those of tokens [first, first + n) */
    size_t n;
    int32_t first;
    float *block_max; /* [logits_part_blocks(n)] */
} logits_part;

/* How to draw: 1 / temperature multiplies the logits, and g belongs to the key. */
typedef struct drawing {
    double inverse_temperature;
    uint64_t key;
} drawing;

static inline size_t logits_part_blocks(size_t n)
{
    return (n + SELECT_BLOCK - 1) / SELECT_BLOCK;
}
/* Fills block_max; false if a logit is NaN or +INFINITY, and then the part must not be used. */
bool logits_part_scan(const logits_part *p);
/* The first token. */
candidate logits_part_first(const logits_part *p);
/* The first k tokens in order, with their g; returns how many there are. out[k]; scratch[best_list_room(k)]. */
size_t logits_part_top(const logits_part *p, const drawing *d, size_t k, candidate *scratch, candidate *out);
/* Draws a token; with limit, among those before *limit. */
candidate logits_part_draw(const logits_part *p, const drawing *d, const candidate *limit);

/* Probabilities as parts of the largest one: writes e[n] = exp((logit - largest) / temperature); e may be logits. */
void relative_probabilities(const kernels *k, size_t n, const float *logits, float largest, const drawing *d, float *e);
/* The same as whole numbers, whose sums do not depend on their order: e times the largest power of 2 with which the sum
 * over a vocabulary fits. */
float mass_scale(int64_t vocab_size);
static inline int64_t mass_of(float e, float scale)
{
    return (int64_t)(e * scale);
}
/* Sums over all tokens, and over those before c. */
void logits_part_masses(const logits_part *p, const drawing *d, float largest, float scale, candidate c, int64_t *total,
                        int64_t *before);

#endif
