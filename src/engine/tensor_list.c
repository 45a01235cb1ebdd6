/* tensor_list.c - the tensors of a model for programs: how a file has them and how memory does. */
#include <stdio.h>
#include <stdlib.h>

#include "blocks/architectures.h"
#include "engine/model.h"

/* The type that products read the values of a tensor in; "" where none reads them. A tied output head is a tensor of
 * its own, which reads those of the embedding. */
static const char *held_type(const source *s, const weight_format *format, size_t number)
{
    size_t reader = number;
    if (source_tensor(s, number)->kind == TENSOR_EMBEDDING)
        for (size_t i = 0; i < source_tensors(s); i++)
            reader = source_tensor(s, i)->same_as == number ? i : reader;
    if (!tensor_is_packed(source_tensor(s, reader)->kind))
        return "";
    return weight_type_name(weight_format_gemm(format, reader, 0)->storage);
}

/* Those that are stored in the place of another are not listed, nor is an output head that is not there. */
static qwen3_status list_tensors(const source *s, const weight_format *format, qwen3_tensor_info **tensors, size_t *n,
                                 qwen3_error *err)
{
    qwen3_tensor_info *list = calloc(source_tensors(s), sizeof *list);
    if (!list)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for a list of %zu tensors", source_tensors(s));
    for (size_t i = 0; i < source_tensors(s); i++) {
        const tensor *t = source_tensor(s, i);
        if (t->same_as != i || (t->kind == TENSOR_HEAD && source_config(s)->no_output_head))
            continue;
        qwen3_tensor_info *info = &list[(*n)++];
        *info = (qwen3_tensor_info){.rows = t->rows, .cols = t->cols, .stored = true};
        snprintf(info->name, sizeof info->name, "%s", t->name);
        snprintf(info->dtype, sizeof info->dtype, "%s", source_stored_type(s, i));
        snprintf(info->held, sizeof info->held, "%s", held_type(s, format, i));
    }
    *tensors = list;
    return QWEN3_OK;
}

static qwen3_status begin_list(qwen3_tensor_info **tensors, size_t *n, qwen3_error *err)
{
    if (missing(tensors, "tensors", err) || missing(n, "n", err))
        return err->status;
    *tensors = NULL;
    *n = 0;
    return QWEN3_OK;
}

qwen3_status qwen3_model_tensors(const char *spec, qwen3_tensor_info **tensors, size_t *n, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (begin_list(tensors, n, err) || missing(spec, "spec", err))
        return err->status;
    source *s;
    qwen3_config config;
    qwen3_status status = model_source_open(spec, 0, &s, &config, err);
    if (status)
        return status;
    const weight_format format = source_weight_format(s, kernels_get(QWEN3_ISA_C), QWEN3_DTYPE_AUTO);
    status = list_tensors(s, &format, tensors, n, err);
    source_close(s);
    return status;
}

qwen3_status qwen3_model_held_tensors(const qwen3_model *model, qwen3_tensor_info **tensors, size_t *n,
                                      qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (begin_list(tensors, n, err) || missing(model, "model", err))
        return err->status;
    return list_tensors(model->source, &model->format, tensors, n, err);
}
