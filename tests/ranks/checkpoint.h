/* checkpoint.h - small checkpoints of odd shapes, for tests on ranks. */
#ifndef QWEN3_TESTS_CHECKPOINT_H
#define QWEN3_TESTS_CHECKPOINT_H

#include <math.h>
#include <unistd.h>

#include "blocks/architectures.h"
#include "check.h"

#define CHECKPOINT_NAME 256

typedef struct shape {
    int hidden, inter, layers, heads, kv_heads, head_dim, vocab;
    bool tied;
    int experts, chosen, moe_inter; /* in all layers but the second; 0: none */
} shape;

static inline qwen3_config shape_config(const shape *s)
{
    return (qwen3_config){.architecture = s->experts ? "qwen3_moe" : "qwen3",
                          .qk_norm = true,
                          .num_experts = s->experts,
                          .num_experts_per_token = s->chosen,
                          .moe_intermediate_size = s->moe_inter,
                          .norm_topk_prob = true,
                          .expert_layers = {~UINT64_C(2)},
                          .vocab_size = s->vocab,
                          .hidden_size = s->hidden,
                          .intermediate_size = s->inter,
                          .num_layers = s->layers,
                          .num_heads = s->heads,
                          .num_kv_heads = s->kv_heads,
                          .head_dim = s->head_dim,
                          .tie_word_embeddings = s->tied};
}

static inline void write_config(const char *dir, const shape *s)
{
    char path[512];
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *f = fopen(path, "w");
    if (!f)
        return;
    fprintf(
        f,
        "{\"model_type\": \"%s\", \"num_experts\": %d, \"num_experts_per_tok\": %d, \"moe_intermediate_size\": %d, "
        "\"norm_topk_prob\": true, \"decoder_sparse_step\": 1, \"mlp_only_layers\": [1], \"attention_bias\": false, "
        "\"hidden_act\": \"silu\", \"hidden_size\": %d, \"intermediate_size\": %d, \"num_hidden_layers\": %d, "
        "\"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"head_dim\": %d, \"vocab_size\": %d, "
        "\"max_position_embeddings\": 2048, \"rms_norm_eps\": 1e-6, \"rope_theta\": 1000000, \"rope_scaling\": null, "
        "\"tie_word_embeddings\": %s, \"use_sliding_window\": false, \"torch_dtype\": \"bfloat16\"}\n",
        s->experts ? "qwen3_moe" : "qwen3", s->experts, s->chosen, s->moe_inter, s->hidden, s->inter, s->layers,
        s->heads, s->kv_heads, s->head_dim, s->vocab, s->tied ? "true" : "false");
    fclose(f);
}

static inline void write_tensors(const char *dir, const shape *s, uint64_t seed)
{
    const qwen3_config config = shape_config(s);
    declaration d;
    if (model_declare(&config, (grid_place){1, 1, 0, 0, false}, NULL, &d, NULL))
        return;
    size_t offset = 0;
    char path[512];
    static char header[1 << 16];
    size_t length = (size_t)snprintf(header, sizeof header, "{");
    for (size_t i = 0; i < d.n_tensors; i++) {
        const tensor *t = &d.tensors[i];
        if (t->same_as != i)
            continue;
        size_t bytes = (size_t)(t->rows * t->cols) * 2;
        char dims[64];
        if (t->cols == 1)
            snprintf(dims, sizeof dims, "%lld", (long long)t->rows);
        else
            snprintf(dims, sizeof dims, "%lld,%lld", (long long)t->rows, (long long)t->cols);
        length += (size_t)snprintf(header + length, sizeof header - length,
                                   "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                                   i ? "," : "", t->name, dims, offset, offset + bytes);
        offset += bytes;
    }
    header[length++] = '}';
    while (length % 8)
        header[length++] = ' ';
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    FILE *f = fopen(path, "wb");
    if (!f)
        return;
    uint64_t header_bytes = length;
    fwrite(&header_bytes, sizeof header_bytes, 1, f);
    fwrite(header, 1, length, f);
    for (size_t i = 0; i < d.n_tensors; i++)
        for (int64_t j = 0; d.tensors[i].same_as == i && j < d.tensors[i].rows * d.tensors[i].cols; j++) {
            float u = check_random_float(&seed) * 1.7f, cols = (float)d.tensors[i].cols;
            bf16 value = f32_to_bf16(cols == 1 ? 1.0f + 0.2f * u : 0.8f * u / sqrtf(cols));
            fwrite(&value, sizeof value, 1, f);
        }
    fclose(f);
    declaration_free(&d);
}

static inline void remove_checkpoint(const char *dir)
{
    char path[512];
    snprintf(path, sizeof path, "%s/config.json", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    unlink(path);
    rmdir(dir);
}

/* Written by rank 0 in a directory of its own, whose name all ranks get in dir[CHECKPOINT_NAME]. Collective. */
static inline void make_checkpoint(qwen3_comm *world, const shape *s, uint64_t seed, char *dir)
{
    snprintf(dir, CHECKPOINT_NAME, "/tmp/qwen3-test-checkpoint-XXXXXX");
    if (qwen3_comm_rank(world) == 0 && mkdtemp(dir)) {
        write_config(dir, s);
        write_tensors(dir, s, seed);
    }
    qwen3_comm_broadcast(world, dir, CHECKPOINT_NAME);
}

#endif
