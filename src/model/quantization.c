/* quantization.c - reads "quantization_config" of config.json. */
#include <string.h>
#include <strings.h>

#include "model/quantised.h"

/* What is done with activations is the engine's own affair. */
static qwen3_status read_fp8(const json_section *s)
{
    const json_t *format = json_value_of(s, "fmt"), *block = json_value_of(s, "weight_block_size");
    if (format && !json_is_text(format, "e4m3"))
        return json_fail_value(s, QWEN3_ERR_UNSUPPORTED, "fmt", format, "\"e4m3\"");
    if (json_array_size(block) != 2 || json_integer_value(json_array_get(block, 0)) != F8_BLOCK ||
        json_integer_value(json_array_get(block, 1)) != F8_BLOCK)
        return json_fail_value(s, QWEN3_ERR_UNSUPPORTED, "weight_block_size", block, "[128, 128]");
    return QWEN3_OK;
}

/* A text that may be missing must be the expected one, in any case of letters. */
static qwen3_status check_text(const json_section *s, const char *key, const char *expected, const char *in_words)
{
    const json_t *value = json_value_of(s, key);
    if (value && (!json_is_string(value) || strcasecmp(json_string_value(value), expected) != 0))
        return json_fail_value(s, QWEN3_ERR_UNSUPPORTED, key, value, in_words);
    return QWEN3_OK;
}

/* bits and group_size. */
static qwen3_status read_groups(const json_section *s, bool eight, quantization *q)
{
    int64_t bits;
    qwen3_status status = json_read_integer(s, "bits", &bits);
    if (!status)
        status = json_read_integer(s, "group_size", &q->group_size);
    if (status)
        return status;
    if (bits != 4 && !(bits == 8 && eight))
        return json_fail_value(s, QWEN3_ERR_UNSUPPORTED, "bits", json_value_of(s, "bits"), eight ? "4 or 8" : "4");
    if (q->group_size != -1 && q->group_size < 1)
        return json_fail_value(s, QWEN3_ERR_CONFIG, "group_size", json_value_of(s, "group_size"),
                               "a positive number, or -1");
    q->bits = (int)bits;
    return QWEN3_OK;
}

static qwen3_status read_gptq(const json_section *s, quantization *q)
{
    const json_t *format = json_value_of(s, "checkpoint_format");
    const bool first = !format || json_is_text(format, "gptq");
    if (!first && !json_is_text(format, "gptq_v2"))
        return json_fail_value(s, QWEN3_ERR_UNSUPPORTED, "checkpoint_format", format, "\"gptq\" or \"gptq_v2\"");
    q->zero_offset = first;
    q->act_order = json_is_true(json_value_of(s, "desc_act"));
    const qwen3_status status = check_text(s, "pack_dtype", "int32", "\"int32\"");
    return status ? status : read_groups(s, true, q);
}

static qwen3_status read_awq(const json_section *s, quantization *q)
{
    const json_t *zero_point = json_value_of(s, "zero_point");
    if (zero_point && !json_is_true(zero_point))
        return json_fail_value(s, QWEN3_ERR_UNSUPPORTED, "zero_point", zero_point, "true");
    const qwen3_status status = check_text(s, "version", "gemm", "\"gemm\"");
    return status ? status : read_groups(s, false, q);
}

qwen3_status quantization_read(const json_section *root, quantization *q)
{
    static const char *const methods[] = {
        [QUANTIZATION_FP8] = "fp8", [QUANTIZATION_GPTQ] = "gptq", [QUANTIZATION_AWQ] = "awq"};
    *q = (quantization){.method = QUANTIZATION_NONE};
    const json_t *value = json_value_of(root, "quantization_config");
    if (!value)
        return QWEN3_OK;
    for (int i = QUANTIZATION_FP8; i <= QUANTIZATION_AWQ; i++)
        if (json_is_text(json_object_get(value, "quant_method"), methods[i]))
            q->method = (quantization_method)i;
    const json_section s = {root->path, "quantization_config.", value, root->err};
    switch (q->method) {
    case QUANTIZATION_FP8:
        return read_fp8(&s);
    case QUANTIZATION_GPTQ:
        return read_gptq(&s, q);
    case QUANTIZATION_AWQ:
        return read_awq(&s, q);
    default:
        return json_fail_value(root, QWEN3_ERR_UNSUPPORTED, "quantization_config", value,
                               "no such key, or quant_method \"fp8\", \"gptq\" or \"awq\"");
    }
}

const char *quantization_name(const quantization *q)
{
    return q->method == QUANTIZATION_AWQ ? "AWQ-4" : q->bits == 8 ? "GPTQ-8" : "GPTQ-4";
}
