/* fuzz_gguf.c - libFuzzer target: any bytes as a GGUF file, which is then opened as everything that it can be: a file,
 * a configuration, weights, a tokenizer, a chat template, stop tokens. In a file that is accepted all keys and tensors
 * are found, tensors lie apart within the mapping, and all of their blocks can be expanded. */
#include "fuzz/fuzz.h"
#include "io/gguf.h"

static void check_tensor(const gguf *g, const gguf_file *file, const gguf_tensor *t)
{
    const unsigned char *map = file->map;
    const size_t blocks = t->bytes / (size_t)t->type->bytes;
    float values[GGUF_LONGEST_BLOCK];
    demand(gguf_find_tensor(g, t->name) == t && t->path == file->path);
    demand(t->data >= map && t->data + t->bytes <= map + file->map_bytes && (uintptr_t)t->data % 8 == 0);
    demand(blocks * (size_t)t->type->block ==
           (size_t)t->dims[0] * (size_t)t->dims[1] * (size_t)t->dims[2] * (size_t)t->dims[3]);
    for (size_t i = 0; t->type->expand && i < blocks; i++)
        t->type->expand(t->data + i * (size_t)t->type->bytes, 1, values);
}

static void check_value(const gguf_file *file, const gguf_value *v)
{
    char key[100];
    if (v->key.bytes < sizeof key) {
        snprintf(key, sizeof key, "%.*s", (int)v->key.bytes, v->key.data);
        demand(gguf_find(&(gguf_section){file, "", NULL}, key) == v);
    }
    const unsigned char *at = v->data;
    for (uint64_t i = 0; v->kind == GGUF_STRING && i < v->n; i++)
        gguf_next_text(&at);
    demand(v->kind != GGUF_STRING || at == v->data + v->bytes);
}

static void check(const gguf *g)
{
    const gguf_file *file = &g->files[0];
    demand(g->n_files == 1);
    for (size_t i = 0; i < file->n_values; i++)
        check_value(file, &file->values[i]);
    for (size_t i = 0; i < file->n_tensors; i++) {
        demand(i == 0 || file->tensors[i].data >= file->tensors[i - 1].data + file->tensors[i - 1].bytes);
        check_tensor(g, file, &file->tensors[i]);
    }
}

static void check_model(const char *path)
{
    qwen3_config config;
    qwen3_generation_config generation;
    qwen3_tensor_info *tensors;
    qwen3_tokenizer *tokenizer;
    qwen3_chat_template *chat;
    size_t n;
    qwen3_error err = {0};
    if (succeeded(qwen3_config_read(path, &config, &err), &err))
        demand(config.num_layers > 0 && config.vocab_size > 0);
    err = (qwen3_error){0};
    if (succeeded(qwen3_model_tensors(path, &tensors, &n, &err), &err))
        free(tensors);
    err = (qwen3_error){0};
    if (succeeded(qwen3_tokenizer_open(path, &tokenizer, &err), &err))
        qwen3_tokenizer_close(tokenizer);
    err = (qwen3_error){0};
    if (succeeded(qwen3_chat_template_open(path, &chat, &err), &err))
        qwen3_chat_template_close(chat);
    err = (qwen3_error){0};
    succeeded(qwen3_generation_config_read(path, &generation, &err), &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    gguf g;
    qwen3_error err = {0};
    write_file("model.gguf", (fuzz_part){data, size});
    const fuzz_path path = path_of("model.gguf");
    if (succeeded(gguf_open(path.text, &g, &err), &err)) {
        check(&g);
        gguf_close(&g);
    }
    check_model(path.text);
    return 0;
}
