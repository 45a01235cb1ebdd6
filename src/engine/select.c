#include "engine/select.h"

#include <float.h>
#include <stdlib.h>

/* ---- Lists ------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    return candidate_before(*y, *x) - candidate_before(*x, *y);
}

void best_list_init(best_list *l, size_t k, candidate *items)
{
    *l = (best_list){.items = items, .k = k, .limit = {.logit = -INFINITY, .token = -1}};
}

void best_list_finish(best_list *l)
{
    qsort(l->items, l->n, sizeof *l->items, compare);
    if (l->n < l->k)
        return;
    l->n = l->k;
    l->limit = l->items[l->k - 1];
}

void best_list_add(best_list *l, candidate c)
{
    if (!candidate_before(c, l->limit))
        return;
    l->items[l->n++] = c;
    if (l->n == best_list_room(l->k))
        best_list_finish(l);
}

/* ---- A part of a row --------------------------------------------------------------------------- */

typedef struct block {
    const float *logits;
    size_t n;
    int32_t first;
} block;

static block block_of(const logits_part *p, size_t index)
{
    size_t begin = index * SELECT_BLOCK, n = p->n - begin;
    return (block){p->logits + begin, n < SELECT_BLOCK ? n : SELECT_BLOCK, p->first + (int32_t)begin};
}

bool logits_part_scan(const logits_part *p)
{
    int bad = 0;
    for (size_t b = 0; b < logits_part_blocks(p->n); b++) {
        block k = block_of(p, b);
        p->block_max[b] = p->kernels->max(k.n, k.logits);
        for (size_t i = 0; i < k.n; i++)
            bad |= !(k.logits[i] <= FLT_MAX);
    }
    return !bad;
}

/* The block with the first token, of which there is one. */
static size_t first_block(const logits_part *p)
{
    size_t best = 0;
    for (size_t b = 1; b < logits_part_blocks(p->n); b++)
        if (p->block_max[b] > p->block_max[best])
            best = b;
    return best;
}

candidate logits_part_first(const logits_part *p)
{
    candidate best = {.logit = -INFINITY, .token = -1};
    if (p->n == 0)
        return best;
    block k = block_of(p, first_block(p));
    for (size_t i = 0; i < k.n; i++)
        if (k.logits[i] > best.logit)
            best = (candidate){.logit = k.logits[i], .token = k.first + (int32_t)i};
    return best;
}

/* ---- Drawing ----------------------------------------------------------------------------------- */

/* Bits of the uniform number u that g = -log(-log(u)) is made of: u = (bits + 1/2) / 2^52 is neither 0 nor 1. */
#define NOISE_BITS 52
/* No g is larger. */
#define MOST_GUMBEL 37

static uint64_t noise(uint64_t key, int32_t token)
{
    return mix64(key + ((uint64_t)token + 1) * GOLDEN_GAMMA) >> (64 - NOISE_BITS);
}

static double gumbel(uint64_t bits)
{
    return -log(-log(((double)bits + 0.5) * 0x1p-52));
}

/* A g above `gap` needs noise of at least this: P(g > gap) = 1 - exp(-exp(-gap)), with a margin for rounding. */
static uint64_t least_noise(double gap)
{
    double above = -expm1(-exp(-gap)) * (1 + 1e-9);
    double least = (1 - above) * 0x1p52 - 2;
    return least > 0 ? (uint64_t)least : 0;
}

size_t logits_part_top(const logits_part *p, const drawing *d, size_t k, candidate *scratch, candidate *out)
{
    best_list l;
    best_list_init(&l, k, scratch);
    size_t blocks = logits_part_blocks(p->n);
    /* At least k logits are not smaller than the k-th largest maximum of a block. */
    for (size_t b = 0; b < blocks; b++)
        best_list_add(&l, (candidate){.logit = p->block_max[b], .token = (int32_t)b});
    best_list_finish(&l);
    candidate limit = l.limit;
    best_list_init(&l, k, scratch);
    if (limit.token >= 0)
        l.limit = (candidate){.logit = limit.logit, .token = INT32_MAX};
    for (size_t b = 0; b < blocks; b++) {
        if (p->block_max[b] < l.limit.logit)
            continue;
        block x = block_of(p, b);
        for (size_t i = 0; i < x.n; i++)
            if (x.logits[i] >= l.limit.logit)
                best_list_add(&l, (candidate){.logit = x.logits[i], .token = x.first + (int32_t)i});
    }
    best_list_finish(&l);
    for (size_t i = 0; i < l.n; i++) {
        out[i] = l.items[i];
        out[i].g = gumbel(noise(d->key, out[i].token));
    }
    return l.n;
}

/* Draws from a block; *best is replaced if the block has a better candidate. */
static void draw_from_block(const logits_part *p, const drawing *d, size_t index, const candidate *limit,
                            candidate *best)
{
    const double scale = d->inverse_temperature;
    const float most = p->block_max[index];
    /* The largest logit of the block wins only with a g above this. */
    double gap = best->token < 0 ? -INFINITY : ((double)best->logit - most) * scale + best->g;
    if (most == -INFINITY || gap > MOST_GUMBEL || (limit && most < limit->logit))
        return;
    uint64_t least = least_noise(gap);
    block k = block_of(p, index);
    for (size_t i = 0; i < k.n; i++) {
        candidate c = {.logit = k.logits[i], .token = k.first + (int32_t)i};
        uint64_t bits = noise(d->key, c.token);
        if (bits < least || c.logit == -INFINITY || (limit && !candidate_before(c, *limit)))
            continue;
        c.g = gumbel(bits);
        if (candidate_beats(c, *best, scale)) {
            *best = c;
            least = least_noise(((double)c.logit - most) * scale + c.g);
        }
    }
}

candidate logits_part_draw(const logits_part *p, const drawing *d, const candidate *limit)
{
    candidate best = {.token = -1};
    if (p->n == 0)
        return best;
    size_t first = first_block(p); /* most others have nothing better */
    draw_from_block(p, d, first, limit, &best);
    for (size_t b = 0; b < logits_part_blocks(p->n); b++)
        if (b != first)
            draw_from_block(p, d, b, limit, &best);
    return best;
}

/* ---- Masses ------------------------------------------------------------------------------------ */

float mass_scale(int64_t vocab_size)
{
    return ldexpf(1, __builtin_clzll((unsigned long long)vocab_size) - 2);
}

void relative_probabilities(const kernels *k, size_t n, const float *logits, float largest, const drawing *d, float *e)
{
    const float factor = (float)d->inverse_temperature;
    for (size_t i = 0; i < n; i++)
        e[i] = (logits[i] - largest) * factor;
    k->exp_sum(n, e, 0, e, QWEN3_DTYPE_F32);
}

void logits_part_masses(const logits_part *p, const drawing *d, float largest, float scale, candidate c, int64_t *total,
                        int64_t *before)
{
    const float negligible = -logf(scale) - 1, factor = (float)d->inverse_temperature;
    *total = *before = 0;
    for (size_t b = 0; b < logits_part_blocks(p->n); b++) {
        float e[SELECT_BLOCK];
        if ((p->block_max[b] - largest) * factor < negligible)
            continue;
        block k = block_of(p, b);
        relative_probabilities(p->kernels, k.n, k.logits, largest, d, e);
        for (size_t i = 0; i < k.n; i++) {
            int64_t mass = mass_of(e[i], scale);
            candidate x = {.logit = k.logits[i], .token = k.first + (int32_t)i};
            *total += mass;
            *before += candidate_before(x, c) ? mass : 0;
        }
    }
}
