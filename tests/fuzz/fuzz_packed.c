/* fuzz_packed.c - libFuzzer target: packed models. Parts of the input: config.json, the header of packed.safetensors,
 * and values that are repeated over its data, which are as long as the header says. The checksum of the header is the
 * target's. What is accepted must load, whether or not its data have the checksums that the header says. */
#include "base/memory.h"
#include "blocks/architectures.h"
#include "fuzz/fuzz.h"
#include "io/checkpoint.h"
#include "model/packed.h"
#include "model/weights.h"

#include <jansson.h>

#define DATA_LONGEST ((size_t)1 << 20)

/* The end of the data of the last tensor, as far as the header can be understood. */
static size_t data_bytes(fuzz_part header)
{
    json_t *root = json_loadb((const char *)header.data, header.size, 0, NULL), *tensor;
    const char *name;
    json_int_t end = 0;
    json_object_foreach(root, name, tensor)
    {
        const json_int_t own = json_integer_value(json_array_get(json_object_get(tensor, "data_offsets"), 1));
        end = own > end ? own : end;
    }
    json_decref(root);
    return (size_t)end < DATA_LONGEST ? (size_t)end : DATA_LONGEST;
}

/* The header is filled up with spaces, so that the data begin where they must. */
static void write_packed(fuzz_part header, fuzz_part values)
{
    static unsigned char file[DATA_LONGEST + 2 * PACKED_ALIGNMENT];
    const size_t data = data_bytes(header), begin = round_up(sizeof(uint64_t) + header.size, PACKED_ALIGNMENT);
    const uint64_t length = begin - sizeof length;
    if (begin > 2 * PACKED_ALIGNMENT)
        return;
    memset(file, ' ', begin);
    memcpy(file, &length, sizeof length);
    memcpy(file + sizeof length, header.data, header.size);
    if (header.size > strlen(PACKED_HEADER) + PACKED_DIGITS) {
        const checksum sum = packed_header_checksum((char *)file, begin);
        packed_write_digits(&sum, (char *)file + sizeof length + strlen(PACKED_HEADER));
    }
    for (size_t i = 0; i < data; i++)
        file[begin + i] = values.size ? values.data[i % values.size] : 0;
    write_file(PACKED_FILE, (fuzz_part){file, begin + data});
}

static void load(const source *src, const qwen3_config *config)
{
    demand(source_format(src) != NULL);
    declaration d;
    weights w;
    qwen3_error err = {0}, damaged = {0};
    succeeded(source_verify(src, &(source_share){0, 1, 1, NULL}, &damaged), &damaged);
    const weight_format format = source_weight_format(src, kernels_get(QWEN3_ISA_C), QWEN3_DTYPE_AUTO);
    if (!succeeded(model_declare(config, (grid_place){1, 1, 0, 0}, &format, &d, &err), &err))
        return;
    if (succeeded(weights_load(&w, src, &d, qwen3_comm_self(), (packers){1, NULL}, &err), &err))
        demand(w.n_matrices == d.n_matrices);
    weights_free(&w);
    declaration_free(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_part rest = {data, size};
    write_file("config.json", next_part(&rest));
    const fuzz_part header = next_part(&rest);
    write_packed(header, rest);
    source *src;
    qwen3_config config;
    qwen3_error err = {0};
    if (succeeded(model_source_open(directory(), 0, &src, &config, &err), &err))
        load(src, &config);
    source_close(src);
    unlink(path_of(PACKED_FILE).text);
    return 0;
}
