/* Sources of weights: synthetic values are a function of their place alone; a checkpoint's blocks are its
 * bytes in every type and alignment; tensors that do not fit the configuration are refused. */
#include "support/temp_files.h"

#include <math.h>

#include "blocks/architectures.h"
#include "model/config.h"

static size_t number_of(const source *s, const char *name)
{
    for (size_t i = 0; i < source_tensors(s); i++)
        if (strcmp(source_tensor(s, i)->name, name) == 0)
            return i;
    fail_msg("no tensor %s", name);
    return 0;
}

static tensor_part part_of(size_t number, int64_t row0, int64_t rows, int64_t col0, int64_t cols)
{
    return (tensor_part){number, {row0, row0 + rows}, {col0, col0 + cols}};
}

static tensor_part whole_of(const source *s, size_t number)
{
    const tensor *t = source_tensor(s, number);
    return part_of(number, 0, t->rows, 0, t->cols);
}

/* Values of a part as f32, whatever its type. */
static void part_values(const source *s, tensor_part part, float *out)
{
    const size_t rows = (size_t)range_size(part.rows), cols = (size_t)range_size(part.cols);
    float *scratch = malloc(rows * cols * sizeof *scratch);
    assert_non_null(scratch);
    const tensor_view v = source_part(s, &part, scratch);
    assert_int_equal((uintptr_t)v.data % dtype_size(v.type), 0);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++)
            out[r * cols + c] = view_value(&v, r * v.stride + c);
    free(scratch);
}

/* Random parts of a tensor equal the same parts of the whole. */
static void check_parts(const source *s, size_t number, uint64_t *random)
{
    const char *name = source_tensor(s, number)->name;
    const int64_t rows = source_tensor(s, number)->rows, cols = source_tensor(s, number)->cols;
    float *whole = malloc((size_t)(rows * cols) * sizeof *whole);
    assert_non_null(whole);
    part_values(s, whole_of(s, number), whole);
    for (int i = 0; i < 30; i++) {
        int64_t row0 = (int64_t)(test_random(random) % (uint64_t)rows);
        int64_t col0 = (int64_t)(test_random(random) % (uint64_t)cols);
        int64_t n = 1 + (int64_t)(test_random(random) % (uint64_t)(rows - row0));
        int64_t m = 1 + (int64_t)(test_random(random) % (uint64_t)(cols - col0));
        n = n > 40 ? 40 : n;
        m = i % 3 == 0 && m > 3 ? 1 + m % 3 : m; /* narrower than a group of the generator, too */
        float *part = malloc((size_t)(n * m) * sizeof *part);
        assert_non_null(part);
        part_values(s, part_of(number, row0, n, col0, m), part);
        for (int64_t r = 0; r < n; r++)
            for (int64_t c = 0; c < m; c++)
                if (part[r * m + c] != whole[(row0 + r) * cols + col0 + c])
                    fail_msg("%s: value (%d, %d) of the part at (%d, %d) differs from the whole", name, (int)r, (int)c,
                             (int)row0, (int)col0);
        free(part);
    }
    free(whole);
}

/* ---- Synthetic --------------------------------------------------------------------------------- */

static source *open_synthetic(const char *spec, uint64_t seed)
{
    source *s;
    qwen3_config config;
    qwen3_error err = {0};
    assert_int_equal(model_source_open(spec, seed, &s, &config, &err), QWEN3_OK);
    return s;
}

static void test_synthetic_parts(void **state)
{
    (void)state;
    uint64_t random = test_seed();
    source *s = open_synthetic("synthetic:tiny", 5);
    for (size_t i = 0; i < source_tensors(s); i++)
        check_parts(s, i, &random);
    source_close(s);
}

/* Mean, standard deviation, kurtosis and the correlation of neighbours are those that the head of
 * source_synthetic.c states, within five standard errors. */
static void test_synthetic_distribution(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double mean, deviation; /* the latter times sqrt(cols) where scaled */
        bool scaled;
    } cases[] = {{"model.embed_tokens.weight", 0, 0.05, false},
                 {"lm_head.weight", 0, 0.05, false},
                 {"model.norm.weight", 1, 0.2, false},
                 {"model.layers.3.post_attention_layernorm.weight", 1, 0.2, false},
                 {"model.layers.3.self_attn.q_proj.weight", 0, 0.7, true},
                 {"model.layers.3.self_attn.o_proj.weight", 0, 0.7, true},
                 {"model.layers.3.mlp.down_proj.weight", 0, 0.7, true}};
    source *s = open_synthetic("synthetic:8B", 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const size_t number = number_of(s, cases[i].name);
        const int64_t cols = source_tensor(s, number)->cols, rows = cols == 1 ? source_tensor(s, number)->rows : 64;
        size_t n = (size_t)(rows * cols);
        float *values = malloc(n * sizeof *values);
        assert_non_null(values);
        part_values(s, part_of(number, 0, rows, 0, cols), values);
        double sum = 0, square = 0, fourth = 0, neighbour = 0, previous = 0;
        for (size_t v = 0; v < n; v++) {
            double x = values[v] - cases[i].mean;
            sum += x;
            square += x * x;
            fourth += x * x * x * x;
            neighbour += x * previous;
            previous = x;
        }
        double deviation = cases[i].deviation / (cases[i].scaled ? sqrt((double)cols) : 1);
        double tolerance = 5 / sqrt((double)n), variance = square / (double)n;
        if (fabs(sum / (double)n) > tolerance * deviation || fabs(sqrt(variance) / deviation - 1) > tolerance ||
            fabs(fourth / (double)n / (variance * variance) - 2.7) > 4 * tolerance ||
            fabs(neighbour / square) > tolerance)
            fail_msg("%s: mean %g, deviation %g, kurtosis %g, correlation %g", cases[i].name, sum / (double)n,
                     sqrt(variance), fourth / (double)n / (variance * variance), neighbour / square);
        free(values);
    }
    source_close(s);
}

/* Any two of (seed, tensor, row) give unrelated rows; the same place the same values. */
static void test_synthetic_identity(void **state)
{
    (void)state;
    enum { WIDTH = 64, ROWS = 5 };
    const struct {
        uint64_t seed;
        const char *name;
        int64_t row;
    } places[ROWS] = {{1, "model.layers.0.self_attn.q_proj.weight", 0},
                      {2, "model.layers.0.self_attn.q_proj.weight", 0},
                      {1, "model.layers.0.self_attn.k_proj.weight", 0},
                      {1, "model.layers.1.self_attn.q_proj.weight", 0},
                      {1, "model.layers.0.self_attn.q_proj.weight", 1}};
    float rows[ROWS][WIDTH], again[WIDTH];
    for (size_t i = 0; i < ROWS; i++) {
        source *s = open_synthetic("synthetic:tiny", places[i].seed);
        const tensor_part row = part_of(number_of(s, places[i].name), places[i].row, 1, 0, WIDTH);
        part_values(s, row, rows[i]);
        source_close(s);
        s = open_synthetic("synthetic:tiny", places[i].seed);
        part_values(s, row, again);
        source_close(s);
        assert_memory_equal(rows[i], again, sizeof again);
        for (size_t other = 0; other < i; other++)
            for (size_t a = 0; a < WIDTH; a++) {
                /* no row is another one shifted, either */
                size_t equal = 0;
                for (size_t b = 0; b + a < WIDTH; b++)
                    equal += rows[i][b + a] == rows[other][b] && rows[i][b + a] != 0;
                if (equal > 4)
                    fail_msg("places %zu and %zu share %zu values at shift %zu", i, other, equal, a);
            }
    }
}

/* Values that must never change: results of other versions are compared with them. */
static void test_synthetic_golden(void **state)
{
    (void)state;
    static const uint16_t expected[3][5] = {{0xbcc1, 0x3c11, 0xbda1, 0xbbfb, 0xbce6},
                                            {0xbb9d, 0x3de3, 0xbd01, 0xbd41, 0xbd57},
                                            {0x3f48, 0x3f99, 0x3fa2, 0x3f2e, 0x3f9f}};
    const struct {
        const char *name;
        int64_t row, col;
    } places[3] = {{"model.embed_tokens.weight", 511, 59},
                   {"model.layers.2.mlp.down_proj.weight", 7, 0},
                   {"model.norm.weight", 3, 0}};
    source *s = open_synthetic("synthetic:tiny", 42);
    for (size_t i = 0; i < 3; i++) {
        bf16 scratch[16];
        const size_t number = number_of(s, places[i].name);
        const bool vector = tensor_is_vector(source_tensor(s, number)->kind);
        const tensor_part part = part_of(number, places[i].row, vector ? 5 : 1, places[i].col, vector ? 1 : 5);
        const bf16 *data = source_part(s, &part, scratch).data;
        assert_int_equal(source_part(s, &part, scratch).type, QWEN3_DTYPE_BF16);
        for (size_t v = 0; v < 5; v++)
            if (data[v] != expected[i][v])
                fail_msg("place %zu, value %zu: got 0x%04x, expected 0x%04x", i, v, data[v], expected[i][v]);
    }
    source_close(s);
}

static void test_tied_head(void **state)
{
    (void)state;
    float embed[128], head[128];
    source *s = open_synthetic("synthetic:tiny", 9);
    part_values(s, part_of(number_of(s, "model.embed_tokens.weight"), 3, 2, 0, 64), embed);
    part_values(s, part_of(number_of(s, "lm_head.weight"), 3, 2, 0, 64), head);
    assert_memory_equal(embed, head, sizeof embed);
    assert_string_equal(source_stored_type(s, number_of(s, "lm_head.weight")), "");
    assert_string_equal(source_stored_type(s, number_of(s, "model.embed_tokens.weight")), "BF16");
    source_close(s);
    s = open_synthetic("synthetic:8B", 9);
    part_values(s, part_of(number_of(s, "model.embed_tokens.weight"), 3, 1, 0, 128), embed);
    part_values(s, part_of(number_of(s, "lm_head.weight"), 3, 1, 0, 128), head);
    assert_memory_not_equal(embed, head, sizeof embed);
    source_close(s);
}

/* ---- Checkpoints ------------------------------------------------------------------------------- */

#define LAYERS 2

/* A checkpoint in the making: the header, and the data it describes. */
typedef struct draft {
    json_t *header;
    unsigned char *data;
    size_t bytes;
} draft;

static void draft_add(draft *d, const char *name, const char *dtype, json_t *shape, const void *data, size_t bytes)
{
    d->data = realloc(d->data, d->bytes + bytes + 1);
    assert_non_null(d->data);
    memcpy(d->data + d->bytes, data, bytes);
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", shape, "data_offsets",
                              (json_int_t)d->bytes, (json_int_t)(d->bytes + bytes));
    assert_non_null(entry);
    assert_int_equal(json_object_set_new(d->header, name, entry), 0);
    d->bytes += bytes;
}

static json_t *shape_of(int64_t rows, int64_t cols)
{
    return cols == 1 ? json_pack("[I]", (json_int_t)rows) : json_pack("[I, I]", (json_int_t)rows, (json_int_t)cols);
}

/* Tensors of type i % 3 in turn, with random bits that are finite numbers. */
static draft draft_all(const qwen3_config *config, uint64_t *random)
{
    static const char *const types[] = {"BF16", "F32", "F16"};
    draft d = {json_object(), NULL, 0};
    declaration declared;
    assert_int_equal(model_declare(config, (grid_place){1, 1, 0, 0, false}, NULL, &declared, NULL), QWEN3_OK);
    for (size_t i = 0; i < declared.n_tensors; i++) {
        const tensor *t = &declared.tensors[i];
        size_t bytes = (size_t)(t->rows * t->cols) * (i % 3 == 1 ? 4 : 2);
        unsigned char *data = malloc(bytes);
        assert_non_null(data);
        for (size_t b = 0; b < bytes; b++)
            data[b] = (unsigned char)test_random(random) & (b % 2 ? 0xbb : 0xff); /* no exponent of all ones */
        draft_add(&d, t->name, types[i % 3], shape_of(t->rows, t->cols), data, bytes);
        free(data);
    }
    declaration_free(&declared);
    return d;
}

static void draft_write(const draft *d, const char *path, size_t spaces)
{
    char *header = json_dumps(d->header, 0);
    assert_non_null(header);
    char *padded = malloc(strlen(header) + spaces + 1);
    assert_non_null(padded);
    sprintf(padded, "%s%*s", header, (int)spaces, "");
    write_safetensors(path, padded, d->data, d->bytes);
    free(padded);
    free(header);
}

static void draft_free(draft *d)
{
    json_decref(d->header);
    free(d->data);
}

typedef enum small_model { UNTIED, TIED, QWEN2, EXPERTS } small_model; /* EXPERTS: in the second layer */

static qwen3_config small_config(small_model model)
{
    static const char *const types[] = {
        [UNTIED] = "qwen3", [TIED] = "qwen3", [QWEN2] = "qwen2", [EXPERTS] = "qwen3_moe"};
    return (qwen3_config){.architecture = types[model],
                          .num_experts = model == EXPERTS ? 3 : 0,
                          .num_experts_per_token = 2,
                          .moe_intermediate_size = 5,
                          .expert_layers = {2},
                          .qk_norm = model != QWEN2,
                          .attention_bias = model == QWEN2,
                          .vocab_size = 11,
                          .hidden_size = 10,
                          .intermediate_size = 7,
                          .num_layers = LAYERS,
                          .num_heads = 3,
                          .num_kv_heads = 1,
                          .head_dim = 6,
                          .tie_word_embeddings = model == TIED};
}

static void write_config(const temp_dir *dir, const qwen3_config *c)
{
    json_t *root = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:f, s:f, s:b}", "model_type", c->architecture,
        "hidden_act", "silu", "vocab_size", (json_int_t)c->vocab_size, "hidden_size", (json_int_t)c->hidden_size,
        "intermediate_size", (json_int_t)c->intermediate_size, "num_hidden_layers", (json_int_t)c->num_layers,
        "num_attention_heads", (json_int_t)c->num_heads, "num_key_value_heads", (json_int_t)c->num_kv_heads, "head_dim",
        (json_int_t)c->head_dim, "max_position_embeddings", 100, "rms_norm_eps", 1e-6, "rope_theta", 1e6,
        "tie_word_embeddings", c->tie_word_embeddings);
    assert_non_null(root);
    if (c->num_experts) {
        json_t *experts =
            json_pack("{s:I, s:I, s:I, s:b, s:i}", "num_experts", (json_int_t)c->num_experts, "num_experts_per_tok",
                      (json_int_t)c->num_experts_per_token, "moe_intermediate_size",
                      (json_int_t)c->moe_intermediate_size, "norm_topk_prob", 1, "decoder_sparse_step", 2);
        assert_int_equal(json_object_update(root, experts), 0);
        json_decref(experts);
    }
    write_json(temp_join(dir, "config.json").text, root);
    json_decref(root);
}

/* The value of an F16 number, by its definition. */
static double f16_value(uint16_t h)
{
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    double sign = h & 0x8000 ? -1 : 1;
    return sign * (exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24));
}

static double stored_value(const unsigned char *data, size_t type, size_t i)
{
    uint16_t half;
    float single;
    memcpy(&half, data + 2 * i, sizeof half);
    if (type == 0)
        return bf16_to_f32(half);
    if (type == 2)
        return f16_value(half);
    memcpy(&single, data + 4 * i, sizeof single);
    return single;
}

/* Every value of every tensor, with the data at every alignment that the header's length can give. */
static void check_values(const temp_dir *dir, small_model model, uint64_t *random)
{
    qwen3_config wanted = small_config(model), config;
    draft d = draft_all(&wanted, random);
    write_config(dir, &wanted);
    for (size_t spaces = 0; spaces < 5; spaces++) {
        draft_write(&d, temp_join(dir, "model.safetensors").text, spaces);
        source *s;
        qwen3_error err = {0};
        if (model_source_open(dir->path, 0, &s, &config, &err))
            fail_msg("%s", err.message);
        size_t i = 0;
        const char *name;
        json_t *entry;
        json_object_foreach(d.header, name, entry)
        {
            const size_t n = (size_t)(source_tensor(s, i)->rows * source_tensor(s, i)->cols);
            assert_string_equal(name, source_tensor(s, i)->name);
            assert_string_equal(source_stored_type(s, i), json_string_value(json_object_get(entry, "dtype")));
            const unsigned char *data =
                d.data + json_integer_value(json_array_get(json_object_get(entry, "data_offsets"), 0));
            float values[400];
            assert_true(n <= 400);
            part_values(s, whole_of(s, i), values);
            for (size_t v = 0; v < n; v++)
                if ((double)values[v] != stored_value(data, i % 3, v))
                    fail_msg("%s[%zu]: got %a, expected %a", name, v, (double)values[v], stored_value(data, i % 3, v));
            check_parts(s, i, random);
            i++;
        }
        source_close(s);
    }
    draft_free(&d);
}

static void test_checkpoint_values(void **state)
{
    uint64_t random = test_seed();
    check_values(*state, UNTIED, &random);
    check_values(*state, QWEN2, &random);
    check_values(*state, EXPERTS, &random);
}

/* All 65536 numbers of type F16. */
static void test_f16(void **state)
{
    temp_dir *dir = *state;
    uint64_t random = test_seed();
    qwen3_config wanted = small_config(TIED), config;
    wanted.vocab_size = 8192;
    wanted.hidden_size = 8;
    draft d = draft_all(&wanted, &random);
    draft whole = {json_object(), NULL, 0};
    const char *name;
    json_t *entry;
    json_object_foreach(d.header, name, entry)
    {
        json_t *offsets = json_object_get(entry, "data_offsets");
        json_int_t begin = json_integer_value(json_array_get(offsets, 0));
        uint16_t numbers[65536];
        bool embed = strcmp(name, "model.embed_tokens.weight") == 0;
        for (size_t i = 0; i < 65536; i++)
            numbers[i] = (uint16_t)i;
        draft_add(&whole, name, embed ? "F16" : json_string_value(json_object_get(entry, "dtype")),
                  json_deep_copy(json_object_get(entry, "shape")), embed ? (void *)numbers : d.data + begin,
                  embed ? sizeof numbers : (size_t)(json_integer_value(json_array_get(offsets, 1)) - begin));
    }
    write_config(dir, &wanted);
    draft_write(&whole, temp_join(dir, "model.safetensors").text, 0);
    source *s;
    qwen3_error err = {0};
    if (model_source_open(dir->path, 0, &s, &config, &err))
        fail_msg("%s", err.message);
    static float values[65536];
    part_values(s, whole_of(s, number_of(s, "model.embed_tokens.weight")), values);
    for (unsigned i = 0; i < 65536; i++) {
        bool special = (i & 0x7c00) == 0x7c00, nan = special && (i & 1023);
        double expected = nan ? NAN : special ? (i & 0x8000 ? -INFINITY : INFINITY) : f16_value((uint16_t)i);
        if (nan ? !isnan(values[i]) : (double)values[i] != expected || !signbit(values[i]) != !(i >> 15))
            fail_msg("F16 0x%04x: got %a, expected %a", i, (double)values[i], expected);
    }
    source_close(s);
    draft_free(&d);
    draft_free(&whole);
}

/* ---- F8 ---------------------------------------------------------------------------------------- */

/* The value of an E4M3 number, by its definition; NAN for both codes of it. */
static double e4m3_value(unsigned char b)
{
    const int exponent = b >> 3 & 15, mantissa = b & 7;
    const double sign = b & 0x80 ? -1 : 1;
    if ((b & 0x7f) == 0x7f)
        return NAN;
    return sign * (exponent ? ldexp(8 + mantissa, exponent - 10) : ldexp(mantissa, -9));
}

/* A tensor of all codes, and its scales of type `type` under the name of the tensor + suffix. */
static void add_f8(draft *d, const tensor *t, const char *type, const char *suffix)
{
    const int64_t rows = (t->rows + 127) / 128, cols = (t->cols + 127) / 128;
    const size_t n = (size_t)(t->rows * t->cols), n_scales = (size_t)(rows * cols);
    unsigned char *data = malloc(n), scales[256];
    char name[128];
    assert_non_null(data);
    assert_true(4 * n_scales <= sizeof scales);
    for (size_t i = 0; i < n; i++)
        data[i] = (unsigned char)i;
    for (size_t i = 0; i < n_scales; i++) {
        const float value = 0.75f + (float)i;
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        const uint16_t half = strcmp(type, "BF16") == 0 ? (uint16_t)(bits >> 16)
                                                        : (uint16_t)((bits >> 13 & 0x3ff) | ((bits >> 23) - 112) << 10);
        if (strcmp(type, "F32") == 0)
            memcpy(scales + 4 * i, &value, 4);
        else
            memcpy(scales + 2 * i, &half, 2);
    }
    draft_add(d, t->name, "F8_E4M3", shape_of(t->rows, t->cols), data, n);
    snprintf(name, sizeof name, "%s%s", t->name, suffix);
    draft_add(d, name, type, json_pack("[I,I]", (json_int_t)rows, (json_int_t)cols), scales,
              n_scales * (strcmp(type, "F32") == 0 ? 4 : 2));
    free(data);
}

/* Every code, in blocks that the shapes are no multiples of. */
static void test_f8(void **state)
{
    static const char *const types[] = {"BF16", "F32", "F16"};
    static const float norm[256] = {1};
    temp_dir *dir = *state;
    qwen3_config wanted = small_config(UNTIED), config;
    wanted.hidden_size = 200;
    wanted.intermediate_size = 136;
    draft d = {json_object(), NULL, 0};
    declaration declared;
    assert_int_equal(model_declare(&wanted, (grid_place){1, 1, 0, 0, false}, NULL, &declared, NULL), QWEN3_OK);
    for (size_t i = 0; i < declared.n_tensors; i++) {
        const tensor *t = &declared.tensors[i];
        if (tensor_is_vector(t->kind))
            draft_add(&d, t->name, "F32", shape_of(t->rows, t->cols), norm, 4 * (size_t)t->rows);
        else
            add_f8(&d, t, types[i % 3], i % 2 ? "_scale_inv" : "_scale");
    }
    declaration_free(&declared);
    write_config(dir, &wanted);
    draft_write(&d, temp_join(dir, "model.safetensors").text, 0);
    source *s;
    qwen3_error err = {0};
    if (model_source_open(dir->path, 0, &s, &config, &err))
        fail_msg("%s", err.message);
    for (size_t i = 0; i < source_tensors(s); i++) {
        const tensor *t = source_tensor(s, i);
        if (tensor_is_vector(t->kind))
            continue;
        float *values = malloc((size_t)(t->rows * t->cols) * sizeof *values);
        assert_non_null(values);
        assert_string_equal(source_stored_type(s, i), "F8_E4M3");
        part_values(s, whole_of(s, i), values);
        for (int64_t row = 0; row < t->rows; row++)
            for (int64_t col = 0; col < t->cols; col++) {
                const size_t at = (size_t)(row * t->cols + col);
                const double scale = 0.75 + (double)(row / 128 * ((t->cols + 127) / 128) + col / 128);
                const double expected = e4m3_value((unsigned char)at) * scale;
                if (isnan(expected) ? !isnan(values[at]) : (double)values[at] != expected)
                    fail_msg("%s[%d, %d]: got %a, expected %a", t->name, (int)row, (int)col, (double)values[at],
                             expected);
                values[at] = 0;
            }
        const tensor_part corner = part_of(i, t->rows / 2, 1, t->cols / 3, t->cols / 2);
        part_values(s, corner, values);
        for (int64_t col = corner.cols.begin; col < corner.cols.end; col++) {
            const int64_t row = corner.rows.begin;
            const double scale = 0.75 + (double)(row / 128 * ((t->cols + 127) / 128) + col / 128);
            const double expected = e4m3_value((unsigned char)(row * t->cols + col)) * scale;
            if (!isnan(expected))
                assert_true((double)values[col - corner.cols.begin] == expected);
        }
        free(values);
    }
    source_close(s);
    draft_free(&d);
}

/* Without scales, or with other ones than its shape has, F8 is refused. */
static void test_f8_refused(void **state)
{
    static const struct {
        const char *name, *type, *shape;
        qwen3_status status;
        const char *word;
    } cases[] = {
        {"none", "F32", "[1,1]", QWEN3_ERR_FORMAT, "model.layers.1.mlp.up_proj.weight: is of type F8_E4M3"},
        {"model.layers.1.mlp.up_proj.weight_scale_inv", "F32", "[1,2]", QWEN3_ERR_FORMAT, "got shape [1, 2]"},
        {"model.layers.1.mlp.up_proj.weight_scale_inv", "F32", "[1]", QWEN3_ERR_FORMAT, "got shape [1]"},
        {"model.layers.1.mlp.up_proj.weight_scale", "F8_E4M3", "[1,1]", QWEN3_ERR_UNSUPPORTED, "got type F8_E4M3"},
        {"model.layers.1.mlp.up_proj.weight_scale", "I8", "[1,1]", QWEN3_ERR_UNSUPPORTED, "got type I8"},
        {"model.layers.1.mlp.up_proj.weight_scale", "BF16", "[1,1]", QWEN3_OK, ""},
    };
    static const unsigned char zeros[256];
    temp_dir *dir = *state;
    uint64_t random = test_seed();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qwen3_config wanted = small_config(UNTIED), config;
        draft d = draft_all(&wanted, &random);
        json_t *shape = json_loads(cases[i].shape, 0, NULL);
        const size_t n = json_array_size(shape) > 1 ? (size_t)json_integer_value(json_array_get(shape, 1)) : 1;
        json_object_set(d.header, "unused", json_object_get(d.header, "model.layers.1.mlp.up_proj.weight"));
        json_object_del(d.header, "model.layers.1.mlp.up_proj.weight");
        draft_add(&d, "model.layers.1.mlp.up_proj.weight", "F8_E4M3", shape_of(7, 10), zeros, 70);
        draft_add(&d, cases[i].name, cases[i].type, shape, zeros,
                  n * (strcmp(cases[i].type, "F32") == 0    ? 4
                       : strcmp(cases[i].type, "BF16") == 0 ? 2
                                                            : 1));
        write_config(dir, &wanted);
        draft_write(&d, temp_join(dir, "model.safetensors").text, 0);
        source *s;
        qwen3_error err = {0};
        const qwen3_status status = model_source_open(dir->path, 0, &s, &config, &err);
        assert_refused(cases[i].name, status, cases[i].status, &err, cases[i].word, "");
        source_close(s);
        draft_free(&d);
    }
}

static size_t elements_of(const json_t *shape)
{
    size_t n = 1, i;
    json_t *dimension;
    json_array_foreach(shape, i, dimension) n *= (size_t)json_integer_value(dimension);
    return n;
}

/* Renames a tensor of a good checkpoint, or adds one of zeros, and says what must come of it. */
static void test_tensor_faults(void **state)
{
    static const struct {
        const char *label, *remove, *add, *dtype, *shape;
        small_model model;
        qwen3_status status;
        const char *word;
    } cases[] = {
        {"as it is", NULL, NULL, NULL, NULL, UNTIED, QWEN3_OK, ""},
        {"missing", "model.layers.1.self_attn.k_norm.weight", NULL, NULL, NULL, UNTIED, QWEN3_ERR_FORMAT,
         "model.layers.1.self_attn.k_norm.weight is missing"},
        {"missing head", "lm_head.weight", NULL, NULL, NULL, UNTIED, QWEN3_ERR_FORMAT, "lm_head.weight is missing"},
        {"missing head, tied", "lm_head.weight", NULL, NULL, NULL, TIED, QWEN3_OK, ""},
        {"head of a wrong shape, tied", "lm_head.weight", "lm_head.weight", "F32", "[2]", TIED, QWEN3_OK, ""},
        {"wrong shape", "model.norm.weight", "model.norm.weight", "F32", "[2]", UNTIED, QWEN3_ERR_FORMAT,
         "model.norm.weight: got shape [2], config.json demands [10]"},
        {"matrix for a vector", "model.norm.weight", "model.norm.weight", "F32", "[1,2]", UNTIED, QWEN3_ERR_FORMAT,
         "got shape [1, 2]"},
        {"column for a vector", "model.norm.weight", "model.norm.weight", "BF16", "[10,1]", UNTIED, QWEN3_ERR_FORMAT,
         "got shape [10, 1], config.json demands [10]"},
        {"wrong columns", "lm_head.weight", "lm_head.weight", "BF16", "[11,9]", UNTIED, QWEN3_ERR_FORMAT,
         "got shape [11, 9], config.json demands [11, 10]"},
        {"vector for a matrix", "lm_head.weight", "lm_head.weight", "F32", "[2]", UNTIED, QWEN3_ERR_FORMAT,
         "config.json demands [11, 10]"},
        {"five dimensions", "lm_head.weight", "lm_head.weight", "F32", "[1,1,1,1,2]", UNTIED, QWEN3_ERR_FORMAT,
         "got shape [1, 1, 1, 1, ...]"},
        {"scalar", "model.norm.weight", "model.norm.weight", "F64", "[]", UNTIED, QWEN3_ERR_UNSUPPORTED, "F64"},
        {"unsupported type", "model.norm.weight", "model.norm.weight", "I8", "[8]", UNTIED, QWEN3_ERR_UNSUPPORTED,
         "model.norm.weight: got type I8"},
        {"unsupported type that nobody needs", NULL, "extra", "I8", "[8]", UNTIED, QWEN3_OK, ""},
        {"rotation table", NULL, "model.layers.0.self_attn.rotary_emb.inv_freq", "F32", "[2]", UNTIED, QWEN3_OK, ""},
        {"bias", NULL, "model.layers.0.self_attn.q_proj.bias", "F32", "[2]", UNTIED, QWEN3_ERR_UNSUPPORTED,
         "model.layers.0.self_attn.q_proj.bias"},
        {"bias of the head", NULL, "lm_head.bias", "F32", "[2]", UNTIED, QWEN3_ERR_UNSUPPORTED, "lm_head.bias"},
        {"bias of the projection back", NULL, "model.layers.0.self_attn.o_proj.bias", "F32", "[2]", QWEN2,
         QWEN3_ERR_UNSUPPORTED, "model.layers.0.self_attn.o_proj.bias: biases"},
        {"missing bias", "model.layers.1.self_attn.v_proj.bias", NULL, NULL, NULL, QWEN2, QWEN3_ERR_FORMAT,
         "model.layers.1.self_attn.v_proj.bias is missing"},
        {"short bias", "model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.q_proj.bias", "F32", "[6]",
         QWEN2, QWEN3_ERR_FORMAT, "got shape [6], config.json demands [18]"},
        {"expert", NULL, "model.layers.1.mlp.experts.0.up_proj.weight", "F32", "[2]", UNTIED, QWEN3_ERR_FORMAT,
         "experts.0.up_proj.weight: config.json has no experts"},
        {"router", NULL, "model.layers.1.mlp.gate.weight", "F32", "[2]", UNTIED, QWEN3_ERR_FORMAT,
         "mlp.gate.weight: config.json has no experts"},
        {"mixture", NULL, NULL, NULL, NULL, EXPERTS, QWEN3_OK, ""},
        {"missing router", "model.layers.1.mlp.gate.weight", NULL, NULL, NULL, EXPERTS, QWEN3_ERR_FORMAT,
         "mlp.gate.weight is missing"},
        {"missing expert", "model.layers.1.mlp.experts.2.up_proj.weight", NULL, NULL, NULL, EXPERTS, QWEN3_ERR_FORMAT,
         "model.layers.1.mlp.experts.2.up_proj.weight is missing"},
        {"expert too many", NULL, "model.layers.1.mlp.experts.3.up_proj.weight", "F32", "[2]", EXPERTS,
         QWEN3_ERR_FORMAT, "experts.3.up_proj.weight: config.json has num_experts = 3"},
        {"expert beyond 64 bits", NULL, "model.layers.1.mlp.experts.99999999999999999999.x", "F32", "[2]", EXPERTS,
         QWEN3_ERR_FORMAT, "config.json has num_experts = 3"},
        {"expert of a dense layer", NULL, "model.layers.0.mlp.experts.0.up_proj.weight", "F32", "[2]", EXPERTS,
         QWEN3_ERR_FORMAT, "model.layers.0.mlp.experts.0.up_proj.weight: config.json has no experts"},
        {"layer too many", NULL, "model.layers.2.mlp.up_proj.weight", "F32", "[2]", UNTIED, QWEN3_ERR_FORMAT,
         "num_hidden_layers = 2"},
        {"layer beyond 64 bits", NULL, "model.layers.99999999999999999999.x", "F32", "[2]", UNTIED, QWEN3_ERR_FORMAT,
         "num_hidden_layers = 2"},
    };
    temp_dir *dir = *state;
    uint64_t random = test_seed();
    static const unsigned char zeros[256];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qwen3_config wanted = small_config(cases[i].model), config;
        draft d = draft_all(&wanted, &random);
        if (cases[i].remove) { /* its bytes stay, under a name that means nothing */
            json_t *entry = json_incref(json_object_get(d.header, cases[i].remove));
            json_object_del(d.header, cases[i].remove);
            json_object_set_new(d.header, "unused", entry);
        }
        if (cases[i].add) {
            json_t *shape = json_loads(cases[i].shape, 0, NULL);
            const char *type = cases[i].dtype;
            size_t size = strstr(type, "64") ? 8 : strcmp(type, "F32") == 0 ? 4 : strcmp(type, "I8") == 0 ? 1 : 2;
            draft_add(&d, cases[i].add, type, shape, zeros, size * elements_of(shape));
        }
        write_config(dir, &wanted);
        draft_write(&d, temp_join(dir, "model.safetensors").text, 0);
        source *s;
        qwen3_error err = {0};
        qwen3_status status = model_source_open(dir->path, 0, &s, &config, &err);
        assert_refused(cases[i].label, status, cases[i].status, &err, cases[i].word, "");
        assert_int_equal(s != NULL, status == QWEN3_OK);
        assert_int_equal(config.vocab_size, status ? 0 : 11);
        source_close(s);
        draft_free(&d);
    }
}

/* The same bytes under names without "model.", or without an output head. */
static draft draft_renamed(const draft *d, bool bare, bool head)
{
    draft renamed = {json_object(), d->data, d->bytes};
    const char *name;
    json_t *entry;
    json_object_foreach(d->header, name, entry)
    {
        const bool is_head = strcmp(name, "lm_head.weight") == 0;
        const char *rest = strncmp(name, "model.", 6) == 0 && bare ? name + 6 : name;
        json_object_set(renamed.header, is_head && !head ? "unused" : rest, entry);
    }
    return renamed;
}

/* As embedding models are published: a decoder without a head, whose names lack the prefix. */
static void test_bare_names(void **state)
{
    static const struct {
        small_model model;
        bool head, no_head;
    } cases[] = {
        {UNTIED, false, true}, {UNTIED, true, false}, {TIED, false, false}, {TIED, true, false}, {QWEN2, false, true}};
    temp_dir *dir = *state;
    uint64_t random = test_seed();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qwen3_config wanted = small_config(cases[i].model), config;
        draft d = draft_all(&wanted, &random), bare = draft_renamed(&d, true, cases[i].head);
        source *s, *named;
        qwen3_error err = {0};
        qwen3_tensor_info *list;
        size_t n;
        write_config(dir, &wanted);
        draft_write(&d, temp_join(dir, "model.safetensors").text, 0);
        assert_int_equal(model_source_open(dir->path, 0, &named, &config, &err), QWEN3_OK);
        assert_false(config.no_output_head);
        draft_write(&bare, temp_join(dir, "model.safetensors.new").text, 0);
        rename(temp_join(dir, "model.safetensors.new").text, temp_join(dir, "model.safetensors").text);
        if (model_source_open(dir->path, 0, &s, &config, &err))
            fail_msg("case %zu: %s", i, err.message);
        assert_int_equal(config.no_output_head, cases[i].no_head);
        for (size_t t = 0; t < source_tensors(s); t++) {
            float values[400], expected[400];
            if (cases[i].no_head && source_tensor(s, t)->kind == TENSOR_HEAD) {
                assert_string_equal(source_stored_type(s, t), "");
                assert_int_equal(source_digest(s, t), 0);
                continue;
            }
            const size_t values_of_t = (size_t)(source_tensor(s, t)->rows * source_tensor(s, t)->cols);
            part_values(s, whole_of(s, t), values);
            part_values(named, whole_of(named, t), expected);
            assert_memory_equal(values, expected, values_of_t * sizeof *values);
        }
        source_close(s);
        source_close(named);
        assert_int_equal(qwen3_model_tensors(dir->path, &list, &n, &err), QWEN3_OK);
        assert_int_equal(n,
                         2 + (cases[i].model != TIED && cases[i].head) + (cases[i].model == QWEN2 ? 12 : 11) * LAYERS);
        free(list);
        json_decref(bare.header);
        draft_free(&d);
    }
}

static void test_tensor_list(void **state)
{
    temp_dir *dir = *state;
    uint64_t random = test_seed();
    qwen3_error err = {0};
    qwen3_tensor_info *list;
    size_t n;
    for (small_model model = UNTIED; model <= EXPERTS; model++) {
        qwen3_config wanted = small_config(model);
        draft d = draft_all(&wanted, &random);
        write_config(dir, &wanted);
        draft_write(&d, temp_join(dir, "model.safetensors").text, 0);
        draft_free(&d);
        assert_int_equal(qwen3_model_tensors(dir->path, &list, &n, &err), QWEN3_OK);
        /* Experts are nine matrices in place of three, and a router. */
        assert_int_equal(n, 3 - (model == TIED) + (model == QWEN2 ? 12 : 11) * LAYERS + (model == EXPERTS ? 7 : 0));
        assert_string_equal(list[0].name, "model.embed_tokens.weight");
        assert_int_equal(list[0].rows, 11);
        assert_int_equal(list[0].cols, 10);
        assert_string_equal(list[0].dtype, "BF16");
        assert_true(list[0].stored);
        assert_string_equal(list[n - 1].name, model == EXPERTS ? "model.layers.1.mlp.experts.2.down_proj.weight"
                                                               : "model.layers.1.mlp.down_proj.weight");
        free(list);
    }
    assert_int_equal(qwen3_model_tensors("synthetic:tiny", &list, &n, &err), QWEN3_OK);
    assert_int_equal(n, 2 + 11 * 3);
    free(list);
    assert_int_equal(qwen3_model_tensors("synthetic:none", &list, &n, &err), QWEN3_ERR_ARGUMENT);
    assert_null(list);
    assert_int_equal(qwen3_model_tensors(NULL, &list, &n, NULL), QWEN3_ERR_ARGUMENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, temp_dir_setup, temp_dir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_synthetic_parts),
        cmocka_unit_test(test_synthetic_distribution),
        cmocka_unit_test(test_synthetic_identity),
        cmocka_unit_test(test_synthetic_golden),
        cmocka_unit_test(test_tied_head),
        TEST(test_checkpoint_values),
        TEST(test_f16),
        TEST(test_f8),
        TEST(test_f8_refused),
        TEST(test_tensor_faults),
        TEST(test_bare_names),
        TEST(test_tensor_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
