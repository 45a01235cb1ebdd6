/* repack.c - rows of a packed matrix into panels of another height, or from another first row on. */
#include "kernels/blocks.h"

/* A group of one output is a few fields, each of which stands with those of the other outputs of the panel. */
#define FIELDS_MAX 17

static size_t fields_of(qwen3_dtype storage, size_t *bytes)
{
    const bool blocks = storage >= ELEMENT_TYPES;
    const size_t n = !blocks ? 1 : storage == QWEN3_DTYPE_Q8 ? 1 + BLOCK / 2 : 1 + BLOCK / 8;
    for (size_t f = 0; f < n; f++)
        bytes[f] = storage == QWEN3_DTYPE_Q8 || (blocks && f == 0) ? 2 : 4;
    return n;
}

void gemm_repack_rows(const gemm_kernel *g, void *panel, size_t at, size_t rows, size_t k, const packed_matrix *from,
                      size_t from_row, size_t from_k)
{
    const size_t kr = (size_t)g->kr, groups = (k + kr - 1) / kr, from_groups = (from->k + kr - 1) / kr;
    size_t bytes[FIELDS_MAX];
    const size_t fields = fields_of(g->storage, bytes);
    for (size_t r = 0; r < rows; r++) {
        const size_t to = at + r, row = from_row + r, j = row % from->nr;
        for (size_t i = 0; i < groups; i++) {
            const size_t source_group = row / from->nr * from_groups + from_k / kr + i;
            const unsigned char *source = (const unsigned char *)from->data + source_group * from->nr * g->group_bytes;
            unsigned char *group = (unsigned char *)panel + i * (size_t)(g->nr * g->group_bytes);
            for (size_t f = 0; f < fields; f++) {
                memcpy(group + to * bytes[f], source + j * bytes[f], bytes[f]);
                group += (size_t)g->nr * bytes[f];
                source += from->nr * bytes[f];
            }
        }
    }
}
