/* fuzz_checkpoint.c - libFuzzer target: an index and its shards. Parts of the input: model.safetensors.index.json,
 * then the shards a, b and c (write_safetensors). In a checkpoint that is accepted every tensor of the index is found,
 * within the file that it names. */
#include "fuzz/fuzz.h"
#include "io/checkpoint.h"

static void check(const checkpoint *c)
{
    for (size_t f = 0; f < c->n_files; f++) {
        const safetensors *file = &c->files[f];
        for (size_t i = 0; i < file->n_tensors; i++) {
            const stored_tensor *t = checkpoint_find(c, file->tensors[i].name);
            const unsigned char *begin = t ? t->data : NULL, *map = file->map;
            demand(t == &file->tensors[i] && strcmp(checkpoint_path_of(c, t), file->path) == 0);
            demand(begin >= map && begin + t->bytes <= map + file->map_bytes);
        }
    }
    demand(checkpoint_find(c, "no tensor of this name") == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const shards[] = {"a", "b", "c"};
    fuzz_part rest = {data, size};
    write_file("model.safetensors.index.json", next_part(&rest));
    for (size_t i = 0; i < sizeof shards / sizeof *shards; i++) {
        FILE *file = create_file(shards[i]);
        write_safetensors(fileno(file), next_part(&rest));
        fclose(file);
    }
    checkpoint c;
    qwen3_error err = {0};
    if (succeeded(checkpoint_open(directory(), &c, &err), &err)) {
        check(&c);
        checkpoint_close(&c);
    }
    return 0;
}
