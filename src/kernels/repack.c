/* repack.c - rows of a packed matrix into panels of another height, or from another first row on. */
#include "kernels/blocks.h"

/* A group of one output is a few fields. Each is stored beside the same field of the panel's other outputs. */
#define FIELDS_MAX 17

static size_t fields_of(qwen3_dtype storage, size_t *bytes)
{
    const bool blocks = storage >= ELEMENT_TYPES;
    const size_t n = !blocks ? 1 : storage == QWEN3_DTYPE_Q8 ? 1 + BLOCK / 2 : 1 + BLOCK / 8;
    for (size_t f = 0; f < n; f++)
        bytes[f] = storage == QWEN3_DTYPE_Q8 || (blocks && f == 0) ? 2 : 4;
    return n;
}

void gemm_repack_rows(const gemm_kernel *g, const packed_part *from, void *panel, size_t at)
{
    const packed_matrix *whole = &from->matrix;
    const size_t kr = (size_t)g->kr, groups = (from->k + kr - 1) / kr, whole_groups = (whole->k + kr - 1) / kr;
    size_t bytes[FIELDS_MAX];
    const size_t fields = fields_of(g->storage, bytes);
    for (size_t r = 0; r < from->n; r++) {
        const size_t to = at + r, row = from->row + r, j = row % whole->nr;
        for (size_t i = 0; i < groups; i++) {
            const size_t source_group = row / whole->nr * whole_groups + from->col / kr + i;
            const unsigned char *source =
                (const unsigned char *)whole->data + source_group * whole->nr * (size_t)g->group_bytes;
            unsigned char *group = (unsigned char *)panel + i * (size_t)(g->nr * g->group_bytes);
            for (size_t f = 0; f < fields; f++) {
                memcpy(group + to * bytes[f], source + j * bytes[f], bytes[f]);
                group += (size_t)g->nr * bytes[f];
                source += whole->nr * bytes[f];
            }
        }
    }
}
