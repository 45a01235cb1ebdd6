/* block.h - a block of a decoder layer: what it consists of, as a table of functions. */
#ifndef QWEN3_BLOCKS_BLOCK_H
#define QWEN3_BLOCKS_BLOCK_H

#include "model/declaration.h"

typedef struct block {
    const char *name;
    /* Declares the tensors of one layer, then what the rank at d->place keeps of them. */
    void (*declare)(declaration *d);
} block;

#endif
