/* names.c - names of the choices, as on the command line. */
#include <ctype.h>

#include "qwen3.h"

typedef struct name_entry {
    const char *name;
    int value;
} name_entry;

/* The first name of a value is the one printed. */
static const name_entry strategies[] = {{"auto", QWEN3_STRATEGY_AUTO},           {"headwise", QWEN3_STRATEGY_HEAD_WISE},
                                        {"head_wise", QWEN3_STRATEGY_HEAD_WISE}, {"sequence", QWEN3_STRATEGY_SEQUENCE},
                                        {"hybrid", QWEN3_STRATEGY_HYBRID},       {NULL, 0}};
static const name_entry algorithms[] = {{"auto", QWEN3_ATTENTION_AUTO},
                                        {"standard", QWEN3_ATTENTION_STANDARD},
                                        {"online_softmax", QWEN3_ATTENTION_ONLINE_SOFTMAX},
                                        {"online", QWEN3_ATTENTION_ONLINE_SOFTMAX},
                                        {NULL, 0}};
static const name_entry dtypes[] = {
    {"f32", QWEN3_DTYPE_F32}, {"bf16", QWEN3_DTYPE_BF16}, {"q8", QWEN3_DTYPE_Q8}, {"q4", QWEN3_DTYPE_Q4}, {NULL, 0}};

static const char *name_of(const name_entry *table, int value)
{
    for (; table->name; table++)
        if (table->value == value)
            return table->name;
    return "unknown";
}

static bool same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++) {
        int x = *a == '-' ? '_' : tolower((unsigned char)*a);
        if (x != *b)
            return false;
    }
    return *a == *b;
}

static const name_entry *find(const name_entry *table, const char *name)
{
    for (; table->name; table++)
        if (name && same_name(name, table->name))
            return table;
    return NULL;
}

const char *qwen3_strategy_name(qwen3_parallel_strategy strategy)
{
    return name_of(strategies, (int)strategy);
}

const char *qwen3_algorithm_name(qwen3_attention_algorithm algorithm)
{
    return name_of(algorithms, (int)algorithm);
}

const char *qwen3_dtype_name(qwen3_dtype dtype)
{
    return name_of(dtypes, (int)dtype);
}

bool qwen3_strategy_parse(const char *name, qwen3_parallel_strategy *value)
{
    const name_entry *e = value ? find(strategies, name) : NULL;
    if (e)
        *value = (qwen3_parallel_strategy)e->value;
    return e;
}

bool qwen3_algorithm_parse(const char *name, qwen3_attention_algorithm *value)
{
    const name_entry *e = value ? find(algorithms, name) : NULL;
    if (e)
        *value = (qwen3_attention_algorithm)e->value;
    return e;
}

bool qwen3_dtype_parse(const char *name, qwen3_dtype *value)
{
    const name_entry *e = value ? find(dtypes, name) : NULL;
    if (e)
        *value = (qwen3_dtype)e->value;
    return e;
}
