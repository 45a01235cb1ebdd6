/* algorithms.c - the table of attention algorithms. */
#include "attention/algorithms.h"

static const attention_algorithm *const algorithms[] = {
    &attention_standard,
    &attention_online_softmax,
};

const attention_algorithm *attention_algorithm_get(qwen3_attention_algorithm id)
{
    for (size_t i = 0; i < sizeof algorithms / sizeof *algorithms; i++)
        if (algorithms[i]->id == id)
            return algorithms[i];
    return NULL;
}
