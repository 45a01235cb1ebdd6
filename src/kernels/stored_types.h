/* stored_types.h - types of weights that are kept as a file has them: the blocks of a GGUF file, and the groups of 4
 * bits of GPTQ and AWQ, are repacked into panels, and no value is changed.
 *
 *   value = d s (q - bias - z) - m t
 *
 * d and m are binary16 numbers of a group, z is a small integer of it (its zero point), s and t are small integers of
 * its blocks of 32 values, or of halves of these. q is a code of `low` + `high` bits, or what a table has for it. A
 * type may lack s, z, m and t; t is 1 where there is m but no s. So each type is a line of the table below, and a
 * function in stored.c that takes a block of a file apart.
 *
 * A group (kernels.h) has one block of 32 values of each output, or four: where GGUF files have blocks of 256 with one
 * d, a half of such a block, so that ranks can split between heads of 128; and where groups of GPTQ and AWQ have 128
 * values, or a multiple. Those of 32, 64, ... are groups of 32 with d and z repeated. Of nr outputs a group is
 *   d [nr] binary16; m [nr] binary16; z [nr] bytes;
 *   for each block of 32:
 *     s [scales][nr] signed bytes; t [nr] bytes;
 *     low bits, by eights of i: of 4 bits nr x one little-endian 32-bit word, as in Q4 (blocks.h); of 8 bits nr x one
 *     word for i = 0, 4, 1, 5, then nr x one for i = 2, 6, 3, 7;
 *     high bits: nr x one word for each bit. The words of all `fours` (0, 4, 1, 5; 2, 6, 3, 7; 8, 12, ...) have their
 *     high bits in the same bytes, those of the first four lowest.
 */
#ifndef QWEN3_KERNELS_STORED_TYPES_H
#define QWEN3_KERNELS_STORED_TYPES_H

/* X(name, bytes of a block in a file, blocks of 32 in a group, low, high, bias, scales in a block of 32, has m, has z,
 * table). A block of G4 "in a file" is what model/quantised.h makes of the tensors of a matrix: d, z, the codes. */
#define EACH_STORED_TYPE(X)                                                                                            \
    X(Q8_0, 34, 1, 8, 0, 128, 0, 0, 0, NULL)                                                                           \
    X(Q4_0, 18, 1, 4, 0, 8, 0, 0, 0, NULL)                                                                             \
    X(Q4_1, 20, 1, 4, 0, 0, 0, 1, 0, NULL)                                                                             \
    X(Q5_0, 22, 1, 4, 1, 16, 0, 0, 0, NULL)                                                                            \
    X(Q5_1, 24, 1, 4, 1, 0, 0, 1, 0, NULL)                                                                             \
    X(Q4_K, 144, 4, 4, 0, 0, 1, 1, 0, NULL)                                                                            \
    X(Q5_K, 176, 4, 4, 1, 0, 1, 1, 0, NULL)                                                                            \
    X(Q6_K, 210, 4, 4, 2, 32, 2, 0, 0, NULL)                                                                           \
    X(IQ4_NL, 18, 1, 4, 0, 0, 0, 0, 0, iq4_values)                                                                     \
    X(IQ4_XS, 136, 4, 4, 0, 0, 1, 0, 0, iq4_values)                                                                    \
    X(G4_32, 19, 1, 4, 0, 0, 0, 0, 1, NULL)                                                                            \
    X(G4_128, 67, 4, 4, 0, 0, 0, 0, 1, NULL)

#endif
