#include "model/declaration.h"

#include <stdio.h>
#include <stdlib.h>

/* Room for one more after n items of `size` bytes; NULL without memory. The array doubles where n is a power of 2. */
static void *grow(declaration *d, void *items, size_t n, size_t size)
{
    if (d->failed)
        return NULL;
    if ((n & (n - 1)) != 0)
        return items;
    void *more = realloc(items, (n ? 2 * n : 1) * size);
    d->failed = more == NULL;
    return more;
}

size_t declare_tensor(declaration *d, tensor_kind kind, const char *suffix, int64_t rows, int64_t cols)
{
    tensor *more = grow(d, d->tensors, d->n_tensors, sizeof *more);
    if (!more)
        return 0;
    d->tensors = more;
    const size_t number = d->n_tensors++;
    tensor *t = &more[number];
    *t = (tensor){.rows = rows, .cols = cols, .kind = kind, .same_as = number};
    snprintf(t->name, sizeof t->name, "%s%s", d->prefix, suffix);
    return number;
}

void declare_same(declaration *d, size_t number, size_t as)
{
    if (!d->failed)
        d->tensors[number].same_as = as;
}

/* Rows of one type must end with a panel where those of another type follow. This does not depend on how many rows a
 * rank has, for neither may the bits of its results. */
static void choose_kernels(const declaration *d, matrix_declaration *m)
{
    bool same = true;
    for (int i = 0; i < m->n_parts; i++) {
        m->gemm[i] = weight_format_gemm(&d->format, m->parts[i].tensor, m->split);
        same &= m->gemm[i] == m->gemm[0];
    }
    for (int i = 0; i < m->n_parts && !same && m->unit % d->format.nr != 0; i++)
        m->gemm[i] = weight_format_plain(&d->format);
}

void declare_matrix(declaration *d, matrix_declaration matrix)
{
    choose_kernels(d, &matrix);
    matrix_declaration *more = grow(d, d->matrices, d->n_matrices, sizeof *more);
    if (!more)
        return;
    d->matrices = more;
    more[d->n_matrices++] = matrix;
}

void declare_vector(declaration *d, vector_declaration vector)
{
    vector_declaration *more = grow(d, d->vectors, d->n_vectors, sizeof *more);
    if (!more)
        return;
    d->vectors = more;
    more[d->n_vectors++] = vector;
}

void declare_norm(declaration *d, const char *suffix, int64_t n)
{
    const size_t number = declare_tensor(d, TENSOR_NORM, suffix, n, 1);
    declare_vector(d, (vector_declaration){{{number, {0, n}, {0, 1}}}, 1});
}

void declaration_free(declaration *d)
{
    free(d->tensors);
    free(d->matrices);
    free(d->vectors);
    free(d->blocks);
    *d = (declaration){0};
}
