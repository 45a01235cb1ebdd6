/* row_limits.h - when rows are few: one limit for each meaning. A product of few rows is bound by reading its weights
 * (or keys and values), one of many rows by arithmetic; what changes with that changes in each place at its own number
 * of rows. */
#ifndef QWEN3_KERNELS_ROW_LIMITS_H
#define QWEN3_KERNELS_ROW_LIMITS_H

enum {
    /* Up to this many rows a kernel passes over a panel in pieces of the first-level cache and multiplies weights that
     * have both forms as they are stored; more rows share a widened copy (gemm.c). */
    GEMM_FEW_ROWS = 24,
    /* Up to this many rows each thread takes contiguous parts of a matrix; more are handed out panel by panel
     * (linear.c). */
    LINEAR_FEW_ROWS = 16,
    /* Rows that an item of a product of many rows has at least: fewer do not pay for bringing a panel into the caches
     * (linear.c). */
    LINEAR_ITEM_MIN_ROWS = 48,
    /* Steps with fewer rows split weights over ranks instead of rows, where the caller names no number: they read
     * weights for longer than they compute with them (session.c). */
    STEP_SPLIT_MIN_ROWS = 16,
    /* Over several nodes, steps with at least this many rows of a rank are computed in two parts, where nothing is
     * known of the machine and the caller names no number. Each part reads the weights, which must stay small beside
     * what is overlapped: sums, or only keys and values, most of which overlap within one part, too (session.c). */
    STEP_OVERLAP_MIN_ROWS_OF_SUMS = 512,
    STEP_OVERLAP_MIN_ROWS_OF_KEYS = 4096,
    /* Up to this many queries of a KV head are bound by reading keys and values: bytes are multiplied as they are
     * (tile.c), and threads share the pages of one head (run.c). */
    ATTENTION_FEW_QUERIES = 12,
    /* Up to this many queries of a KV head attend to a caller's keys where they are: packing costs about as much as
     * reading the keys ten times (operator_plan.c). */
    ATTENTION_IN_PLACE_QUERIES = 64,
};

#endif
