/* algorithms.h - the attention algorithms there are, one file each. Registered in algorithms.c. */
#ifndef QWEN3_ATTENTION_ALGORITHMS_H
#define QWEN3_ATTENTION_ALGORITHMS_H

#include "attention/attention.h"

extern const attention_algorithm attention_standard;
extern const attention_algorithm attention_online_softmax;

#endif
