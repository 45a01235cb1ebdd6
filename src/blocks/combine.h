/* combine.h - how the output of a block comes together where several ranks compute its last product.
 *
 *   sums      each rank multiplies the inputs that it has computed, and partial outputs are summed over the ranks
 *   columns   inputs are gathered, each rank computes some of the outputs from all of them, and outputs are gathered.
 *             No sum is taken over ranks: an output has the bits that one rank alone would give it
 *
 * One file each. The grid says which one a model has.
 */
#ifndef QWEN3_BLOCKS_COMBINE_H
#define QWEN3_BLOCKS_COMBINE_H

#include "blocks/block.h"

/* The most that the last product of any block reads for one row of the step: rows of inputs, and values in all of them
 * together, each row padded (activations.h). */
typedef struct last_inputs {
    size_t rows, values;
} last_inputs;

struct combination {
    /* What a rank keeps of tensor `number`, the last matrix [hidden, inputs] of a block, of whose inputs it computes
     * `inputs`. */
    tensor_part (*part)(const declaration *d, size_t number, range inputs);
    /* Adds the buffers of a step. */
    void (*plan)(block_step *b, memory_plan *m, const last_inputs *most);
    /* The last product, as block_output. All threads between barriers; collective over b->among. */
    void (*output)(team *t, const block_step *b, const last_product *p);
    /* Starts what brings the outputs of all ranks together, in slot SLOT_REDUCE + part of b->among. Thread 0, after a
     * barrier. */
    void (*start)(const block_step *b);
    /* When that has been waited for: adds the output of a row to x. */
    void (*finish)(const block_step *b, size_t row);
};

/* At multiples of what ranks split the inputs of a last product that they compute in multiples of `grain`; 0: not at
 * all.
 */
static inline int64_t combined_split(grid_place place, int64_t grain)
{
    return place.deterministic || place.s_groups * place.h_groups == 1 ? 0 : grain;
}

extern const combination combine_sums, combine_columns;

static inline const combination *combination_of(grid_place place)
{
    return place.deterministic ? &combine_columns : &combine_sums;
}

#endif
