/* fuzz_safetensors.c - libFuzzer target: any bytes as a safetensors file. A file that is accepted must
 * describe each byte of its data once, within the mapping, in shapes that match.
 *
 *   cmake -B build-fuzz -DCMAKE_C_COMPILER=clang -DQWEN3_FUZZ=ON -DQWEN3_MPI=OFF
 *   cmake --build build-fuzz --target fuzz_safetensors
 *   build-fuzz/bin/fuzz_safetensors -max_len=4096 -dict=tests/fuzz/safetensors.dict -max_total_time=300 CORPUS
 *
 * The target writes the eight bytes of the header length itself, from the first two bytes of the input and
 * always within the file, because mutations would hardly ever leave them right. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const safetensors *file)
{
    const unsigned char *map = file->map, *end = map + file->map_bytes, *expected = NULL;
    for (size_t i = 0; i < file->n_tensors; i++) {
        const stored_tensor *t = &file->tensors[i];
        const unsigned char *begin = t->data;
        if (begin < map + 8 || begin + t->bytes > end || (expected && begin != expected) || !t->name)
            abort();
        expected = begin + t->bytes;
        if (t->supported && t->rank <= 4) {
            size_t bytes = stored_type_size(t->type);
            for (int d = 0; d < t->rank; d++)
                bytes *= (size_t)t->shape[d];
            if (bytes != t->bytes)
                abort();
        }
    }
    if (expected && expected != end)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    uint64_t length = ((uint64_t)data[0] | (uint64_t)data[1] << 8) % (size - 1);
    char path[32];
    int descriptor = memfd_create("fuzz", 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    if (descriptor < 0 || write(descriptor, &length, sizeof length) != sizeof length ||
        write(descriptor, data + 2, size - 2) != (ssize_t)(size - 2))
        abort();
    safetensors file;
    qwen3_error err = {0};
    if (safetensors_open(path, &file, &err) == QWEN3_OK) {
        check(&file);
        safetensors_close(&file);
    } else if (err.status == QWEN3_OK || err.message[0] == '\0') {
        abort();
    }
    close(descriptor);
    return 0;
}
