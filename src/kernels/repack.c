/* repack.c - rows of a packed matrix into panels of another height, or from another first row on. */
#include "kernels/stored.h"

/* A group of one output is a few fields. Each is stored beside the same field of the panel's other outputs. */
#define FIELDS_MAX 40

typedef struct field_list {
    size_t n, bytes[FIELDS_MAX];
} field_list;

static void add_fields(field_list *l, size_t n, size_t bytes)
{
    for (size_t i = 0; i < n; i++)
        l->bytes[l->n++] = bytes;
}

static void list_fields(field_list *l, weight_type storage)
{
    const stored_format f = stored_format_of(storage);
    switch (storage) {
    case QWEN3_DTYPE_F32:
    case QWEN3_DTYPE_BF16:
        add_fields(l, 1, sizeof(uint32_t));
        break;
    case QWEN3_DTYPE_Q8:
        add_fields(l, 1 + BLOCK / 2, sizeof(uint16_t));
        break;
    case QWEN3_DTYPE_Q4:
        add_fields(l, 1, sizeof(bf16));
        add_fields(l, BLOCK / 8, sizeof(uint32_t));
        break;
    default:
        add_fields(l, (size_t)f.minimum + 1, sizeof(uint16_t));
        add_fields(l, (size_t)f.zero, 1);
        for (int b = 0; b < f.blocks; b++) {
            add_fields(l, stored_scales_bytes(f), 1);
            add_fields(l, (size_t)f.low + (size_t)f.high, sizeof(uint32_t));
        }
    }
}

void gemm_repack_rows(const gemm_kernel *g, const packed_part *from, void *panel, size_t at)
{
    const packed_matrix *whole = &from->matrix;
    const size_t kr = (size_t)g->kr, groups = (from->k + kr - 1) / kr, whole_groups = (whole->k + kr - 1) / kr;
    field_list fields = {0};
    list_fields(&fields, g->storage);
    for (size_t r = 0; r < from->n; r++) {
        const size_t to = at + r, row = from->row + r, j = row % whole->nr;
        for (size_t i = 0; i < groups; i++) {
            const size_t source_group = row / whole->nr * whole_groups + from->col / kr + i;
            const unsigned char *source =
                (const unsigned char *)whole->data + source_group * whole->nr * (size_t)g->group_bytes;
            unsigned char *group = (unsigned char *)panel + i * (size_t)(g->nr * g->group_bytes);
            for (const size_t *bytes = fields.bytes; bytes < fields.bytes + fields.n; bytes++) {
                memcpy(group + to * *bytes, source + j * *bytes, *bytes);
                group += (size_t)g->nr * *bytes;
                source += whole->nr * *bytes;
            }
        }
    }
}
