/* fuzz_safetensors.c - libFuzzer target: any bytes as a safetensors file (write_safetensors). A file that is accepted
 * must describe each byte of its data once, within the mapping, in shapes that match. */
#include "fuzz/fuzz.h"
#include "io/safetensors.h"

static void check(const safetensors *file)
{
    const unsigned char *map = file->map, *end = map + file->map_bytes, *expected = NULL;
    for (size_t i = 0; i < file->n_tensors; i++) {
        const stored_tensor *t = &file->tensors[i];
        const unsigned char *begin = t->data;
        demand(begin >= map + 8 && begin + t->bytes <= end && (!expected || begin == expected) && t->name);
        expected = begin + t->bytes;
        if (t->supported && t->rank <= 4) {
            size_t bytes = stored_type_size(t->type);
            for (int d = 0; d < t->rank; d++)
                bytes *= (size_t)t->shape[d];
            demand(bytes == t->bytes);
        }
    }
    demand(!expected || expected == end);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_file f = open_memory_file("", 0);
    write_safetensors(f.descriptor, (fuzz_part){data, size});
    safetensors file;
    qwen3_error err = {0};
    if (succeeded(safetensors_open(f.path, &file, &err), &err)) {
        check(&file);
        safetensors_close(&file);
    }
    close(f.descriptor);
    return 0;
}
