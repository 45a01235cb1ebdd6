#include "model/weight_format.h"

#include "kernels/stored.h"

weight_format weight_format_of(const kernels *k, qwen3_dtype dtype)
{
    const gemm_kernel *g = &k->gemm[dtype];
    return (weight_format){
        .kernels = k, .dtype = dtype, .nr = g->nr, .grain = gemm_grain(g), .activation = g->activation};
}

weight_format weight_format_stored(const kernels *k, const weight_type *types, size_t n)
{
    weight_format f = {.kernels = k,
                       .dtype = QWEN3_DTYPE_AUTO,
                       .types = types,
                       .nr = k->mixed[QWEN3_DTYPE_F32].nr,
                       .grain = ACTIVATION_PAD,
                       .activation = k->gemm[WEIGHT_Q8_0].activation};
    for (size_t i = 0; i < n; i++) {
        const int grain = gemm_grain(&k->gemm[types[i]]);
        f.grain = grain > f.grain ? grain : f.grain;
    }
    return f;
}

/* Of values without a scale, beside stored types. */
static const gemm_kernel *plain_gemm(const weight_format *f, qwen3_dtype type)
{
    return f->activation == QWEN3_DTYPE_Q8 ? &f->kernels->mixed[type] : &f->kernels->gemm[type];
}

const gemm_kernel *weight_format_plain(const weight_format *f)
{
    return plain_gemm(f, QWEN3_DTYPE_F32);
}

const gemm_kernel *weight_format_gemm(const weight_format *f, size_t number, int64_t split)
{
    if (!f->types)
        return &f->kernels->gemm[f->dtype];
    const gemm_kernel *gemm_of = f->kernels->gemm;
    weight_type type = f->types[number];
    if (type == WEIGHT_G4_128 && split % gemm_of[type].kr != 0)
        type = WEIGHT_G4_32; /* groups that ranks would split are kept as four of 32 each */
    if (type < ELEMENT_TYPES || split % gemm_of[type].kr != 0)
        return plain_gemm(f, type == QWEN3_DTYPE_BF16 && split % 2 == 0 ? QWEN3_DTYPE_BF16 : QWEN3_DTYPE_F32);
    return &gemm_of[type];
}

const char *weight_type_name(weight_type type)
{
    return type < DTYPE_COUNT ? qwen3_dtype_name((qwen3_dtype)type) : stored_type_name(type);
}

bool weight_type_parse(const char *name, weight_type *type)
{
    qwen3_dtype dtype;
    if (!qwen3_dtype_parse(name, &dtype) || dtype < 0)
        return stored_type_parse(name, type);
    *type = dtype;
    return true;
}
