/* qwen3.h - Qwen3 inference on CPUs and CPU clusters. The whole public interface, without MPI types.
 *
 * Model (immutable, shared) and session (mutable: KV cache, positions) are separate. A job is one or
 * more ranks; calls marked "collective" must be made by every rank of the communicator with the same
 * arguments. Nothing here prints, exits or aborts: every function that can fail returns a status and
 * describes the fault in a caller-owned qwen3_error (NULL is allowed where the text is not wanted).
 * After a failed collective call all ranks hold the same error, that of the lowest failing rank.
 *
 * Arguments are checked. NULL for what is needed, a value that is not in its enum and a number out of its range are
 * QWEN3_ERR_ARGUMENT, and the message names the argument. A function without a status does nothing then, and returns
 * 0, false, NULL or -1; name functions return "unknown". A rank that gives a collective call no communicator, model or
 * session cannot tell the others, which wait.
 *
 * Objects may be closed in any order. A communicator lives until the last model on it is closed, a model until its last
 * session and variant are, a tokenizer until its last stream is; those go on working meanwhile. A pointer that was
 * closed must not be used again.
 */
#ifndef QWEN3_H
#define QWEN3_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define QWEN3_API __attribute__((visibility("default")))
#define QWEN3_DEPRECATED(why) __attribute__((deprecated(why)))
#else
#define QWEN3_API
#define QWEN3_DEPRECATED(why)
#endif

#define QWEN3_VERSION "0.1.0"
#define QWEN3_VERSION_MAJOR 0
#define QWEN3_VERSION_MINOR 1
#define QWEN3_VERSION_PATCH 0

/* QWEN3_VERSION of the library that runs; the macros are those of the header that was compiled with. */
QWEN3_API const char *qwen3_version(void);

/* ---- Status ------------------------------------------------------------------------------------ */

typedef enum qwen3_status {
    QWEN3_OK = 0,
    QWEN3_ERR_ARGUMENT,    /* an argument or option is wrong */
    QWEN3_ERR_IO,          /* a file cannot be opened or read */
    QWEN3_ERR_FORMAT,      /* a file is not what its format says */
    QWEN3_ERR_CONFIG,      /* the model's configuration is incomplete or contradictory */
    QWEN3_ERR_UNSUPPORTED, /* well-formed, but not handled by this build or machine */
    QWEN3_ERR_MEMORY,      /* not enough memory */
    QWEN3_ERR_CAPACITY,    /* the KV cache or the sequence table of the session is full */
    QWEN3_ERR_COMM,        /* message passing failed, or the ranks disagree */
} qwen3_status;

/* Where and why a call failed. Plain data, owned by the caller; no clean-up. */
typedef struct qwen3_error {
    qwen3_status status;
    int rank;           /* rank that failed, -1 if the fault belongs to no rank */
    char host[64];      /* its host name, "" if rank is -1 */
    char message[1024]; /* names the file, tensor or option and what was expected */
} qwen3_error;

QWEN3_API const char *qwen3_status_name(qwen3_status status);

/* ---- Choices ----------------------------------------------------------------------------------- */

/* How the work is split over ranks. See docs/PARALLEL_STRATEGIES.md. */
typedef enum qwen3_parallel_strategy {
    QWEN3_STRATEGY_AUTO = 0,  /* chosen by length, ranks and phase */
    QWEN3_STRATEGY_HEAD_WISE, /* ranks share the attention heads (grid 1 x R) */
    QWEN3_STRATEGY_SEQUENCE,  /* ranks share the positions (grid R x 1) */
    QWEN3_STRATEGY_HYBRID,    /* S sequence groups x H head groups, R = S * H */
} qwen3_parallel_strategy;

/* What one rank computes for one tile of queries against keys and values. */
typedef enum qwen3_attention_algorithm {
    QWEN3_ATTENTION_AUTO = 0,
    QWEN3_ATTENTION_STANDARD,       /* explicit score matrix, O(seq^2) memory */
    QWEN3_ATTENTION_ONLINE_SOFTMAX, /* blockwise, O(seq * block) memory (Dao et al. 2022) */
} qwen3_attention_algorithm;

/* The attention types of the earlier C++ interface. STREAMING = HEAD_WISE + ONLINE_SOFTMAX,
 * STANDARD = HEAD_WISE + STANDARD. */
typedef enum qwen3_mpi_attention_type {
    QWEN3_MPI_ATTENTION_STANDARD = 0,
    QWEN3_MPI_ATTENTION_STREAMING,
} qwen3_mpi_attention_type;

typedef enum qwen3_dtype {
    QWEN3_DTYPE_AUTO = -1, /* of weights in memory: that of a packed model, of a GGUF file with quantised weights and of
                              groups of 4 bits (GPTQ, AWQ) the one that each matrix has there, otherwise BF16; of keys
                              and values: see qwen3_model_options */
    QWEN3_DTYPE_F32 = 0,
    QWEN3_DTYPE_BF16,
    QWEN3_DTYPE_Q8, /* weights: 8 bits each and a scale for every 32 along the input, 8.5 bits a weight; keys and
                       values: 8 bits each and an f32 scale for every vector of a head */
    QWEN3_DTYPE_Q4, /* weights only: 4 bits each and a scale for every 32 along the input, 4.5 bits a weight */
} qwen3_dtype;

/* Instruction-set level of the kernels. */
typedef enum qwen3_isa {
    QWEN3_ISA_AUTO = 0,    /* the best this CPU has, except that a model of at most 64 MiB of weights keeps
                              activations, keys and values in f32; environment QWEN3_ISA=c|avx2|... lowers it */
    QWEN3_ISA_C,           /* plain C, the specification of every kernel */
    QWEN3_ISA_AVX2,        /* x86-64: AVX2 + FMA */
    QWEN3_ISA_AVX512,      /* x86-64: AVX-512 F, BW, DQ, VL */
    QWEN3_ISA_AVX512_VNNI, /* x86-64: these and AVX-512 VNNI, for activations of 8 bits where weights are quantised */
    QWEN3_ISA_AVX512_BF16, /* x86-64: these and AVX-512 BF16 */
    QWEN3_ISA_AMX,         /* x86-64: these and AMX with BF16 and INT8, where the operating system lets the process
                              use it */
    QWEN3_ISA_NEON,        /* 64-bit Arm: Advanced SIMD */
    QWEN3_ISA_NEON_DOT,    /* 64-bit Arm: the same with SDOT (Armv8.2), for activations of 8 bits where weights are
                              quantised */
    QWEN3_ISA_NEON_BF16,   /* 64-bit Arm: these and BF16 instructions (Armv8.6) */
    QWEN3_ISA_NEON_I8MM,   /* 64-bit Arm: these and products of small matrices of bytes (I8MM) and BF16 */
} qwen3_isa;

/* Names as on the command line: "headwise", "online_softmax", "bf16", "avx512_bf16", ... */
QWEN3_API const char *qwen3_strategy_name(qwen3_parallel_strategy strategy);
QWEN3_API const char *qwen3_algorithm_name(qwen3_attention_algorithm algorithm);
QWEN3_API const char *qwen3_dtype_name(qwen3_dtype dtype);
QWEN3_API const char *qwen3_isa_name(qwen3_isa isa);
/* The inverse; false and *value untouched where the name is unknown. Case-insensitive; '-' = '_';
 * "head_wise" = "headwise", "online" = "online_softmax". */
QWEN3_API bool qwen3_strategy_parse(const char *name, qwen3_parallel_strategy *value);
QWEN3_API bool qwen3_algorithm_parse(const char *name, qwen3_attention_algorithm *value);
QWEN3_API bool qwen3_dtype_parse(const char *name, qwen3_dtype *value);
QWEN3_API bool qwen3_isa_parse(const char *name, qwen3_isa *value);
/* The best level that this CPU has and this build contains; the same in every run. AVX512_BF16 is passed over where its
 * instruction is not known to multiply faster than those for f32: on all processors but AMD's. */
QWEN3_API qwen3_isa qwen3_isa_best(void);

/* ---- Ranks ------------------------------------------------------------------------------------- */

typedef struct qwen3_comm qwen3_comm; /* communicator: a number of ranks */

/* Starts message passing (MPI_Init_thread with FUNNELED, where built with MPI and not yet initialised)
 * and returns the communicator of all ranks. Fails if a launcher started several processes that cannot
 * reach each other, or if they are of different builds. On failure err->rank is the rank of the calling process, so
 * that one process can print. Collective. *world is owned by the library until qwen3_finalize. A second call returns
 * the same. */
QWEN3_API qwen3_status qwen3_init(int *argc, char ***argv, qwen3_comm **world, qwen3_error *err);
/* Ends what qwen3_init started. What is still open can only be closed then: with several ranks collective calls on it
 * fail with QWEN3_ERR_ARGUMENT, and qwen3_init too. Collective. */
QWEN3_API void qwen3_finalize(void);
/* The communicator of the calling process alone. Owned by the library. Not collective. */
QWEN3_API qwen3_comm *qwen3_comm_self(void);
QWEN3_API int qwen3_comm_rank(const qwen3_comm *comm);
QWEN3_API int qwen3_comm_size(const qwen3_comm *comm);
/* All ranks agree on an outcome: if *err is a failure on any rank, all ranks return that of the lowest failing
 * rank, in *err too. Collective. err must not be NULL, which counts as a failure. */
QWEN3_API qwen3_status qwen3_comm_agree(qwen3_comm *comm, qwen3_error *err);
/* Something that all ranks must have alike. */
typedef struct qwen3_comm_item {
    const char *name, *value;
} qwen3_comm_item;

/* Whether all ranks have the same items[n], in the same order. If not, or if *err is a failure on any rank, all ranks
 * return the same error. It names the first item that is not that of rank 0, both values and the ranks that differ:
 * "SUBJECT: NAME: got VALUE, rank 0 has VALUE (ranks that differ: 1-3); ADVICE". Collective. err must not be NULL. */
QWEN3_API qwen3_status qwen3_comm_compare(qwen3_comm *comm, const char *subject, const qwen3_comm_item *items, size_t n,
                                          const char *advice, qwen3_error *err);
/* For a program that waits in vain for qwen3_init or a first collective call to return: describes in text[size] which
 * ranks are on this host, and what is known of those that should be ("rank 0 of 2 is on vm; rank 1 runs "sleep"").
 * Returns whether this process is the first of them, which then is the one to print. Not collective; may be called in
 * any thread. */
QWEN3_API bool qwen3_ranks_here(char *text, size_t size);
/* Collective. */
QWEN3_API void qwen3_comm_barrier(qwen3_comm *comm);
/* Element-wise maximum over the ranks, in place on all of them. Collective. */
QWEN3_API void qwen3_comm_max(qwen3_comm *comm, double *values, size_t n);
/* Copies bytes from rank 0 to all ranks. Collective. */
QWEN3_API void qwen3_comm_broadcast(qwen3_comm *comm, void *data, size_t bytes);
/* Collects `bytes` from every rank on rank 0 (recv [size][bytes], ignored elsewhere). Collective. */
QWEN3_API void qwen3_comm_gather(qwen3_comm *comm, const void *send, size_t bytes, void *recv);

/* What is communicated, for the counters. */
typedef enum qwen3_comm_kind {
    QWEN3_COMM_REDUCE = 0, /* sums of partial linear-layer outputs */
    QWEN3_COMM_KV,         /* keys and values sent to queries */
    QWEN3_COMM_QUERY,      /* queries (and new keys, values) sent to keys */
    QWEN3_COMM_PARTIAL,    /* partial attention results sent back */
    QWEN3_COMM_LOGITS,     /* hidden states and logits around the output head */
    QWEN3_COMM_CONTROL,    /* agreement, barriers, set-up */
    QWEN3_COMM_KINDS,
} qwen3_comm_kind;

typedef struct qwen3_comm_stats {
    uint64_t calls[QWEN3_COMM_KINDS];
    uint64_t bytes[QWEN3_COMM_KINDS]; /* payload sent by this rank to other ranks */
    double seconds[QWEN3_COMM_KINDS]; /* time this rank spent inside the calls, waiting included */
    /* Time during which something was under way, from its start to its end. Where it is more than `seconds`, the rank
     * computed in the meantime: that part was overlapped. */
    double under_way[QWEN3_COMM_KINDS];
} qwen3_comm_stats;

QWEN3_API const char *qwen3_comm_kind_name(qwen3_comm_kind kind);
/* This rank's counts for the communicator and those split from it, since it was made. */
QWEN3_API void qwen3_comm_get_stats(const qwen3_comm *comm, qwen3_comm_stats *stats);

/* Where this rank runs. */
typedef struct qwen3_rank_info {
    char host[64];
    int node;          /* index of its node among those of the communicator */
    int nodes;         /* nodes of the communicator */
    int ranks_on_node; /* ranks of the communicator on its node */
    int cpus_allowed;  /* logical CPUs this process may run on */
    int cpus_online;   /* logical CPUs of the node */
    int cores_allowed; /* physical cores among cpus_allowed */
    int cores_idle;    /* cores of the node that its cpuset has, and that no rank on the node may run on */
    double cpu_share;  /* cpus_allowed, each divided by the number of ranks that may run on it */
    double cpu_quota;  /* CPUs' worth of time that cgroups give it: quotas are divided among the ranks of the node that
                          they hold for (cgroups v1 and v2); 0: no quota */
    int default_threads; /* of a rank that sets none: OMP_NUM_THREADS, otherwise its share of the physical cores or its
                            quota, whichever is less, rounded down; at least 1 */
    int numa_nodes;      /* of the node */
    int numa_allowed;    /* NUMA nodes that its allowed CPUs belong to; those with the same CPUs are one */
    bool threads_bound;  /* OpenMP keeps each thread where it is (OMP_PROC_BIND) */
    char numa[64];       /* NUMA nodes of the allowed CPUs as a list, "0" */
    char binding[128];   /* allowed CPUs as a list, "0-3,8" */
    char cpu[128];       /* model name */
} qwen3_rank_info;

/* Collective. */
QWEN3_API qwen3_status qwen3_comm_topology(qwen3_comm *comm, qwen3_rank_info *info, qwen3_error *err);

/* Binds each rank anew: the cores that its cpuset permits, in hwloc's order, are divided into consecutive parts among
 * the ranks of its node. For ranks that a launcher has bound to less than they should have. Ranks stay where they are
 * if there are fewer cores than ranks. To be called before the first parallel region; threads that OpenMP binds
 * (threads_bound) stay inside what it found at the start. Fails with QWEN3_ERR_UNSUPPORTED where the system refuses.
 * Collective. */
QWEN3_API qwen3_status qwen3_comm_bind(qwen3_comm *comm, qwen3_error *err);

/* ---- Model ------------------------------------------------------------------------------------- */

/* Most layers of a model. */
#define QWEN3_MAX_LAYERS 4096

/* The model's shape, as read from config.json and checked. */
typedef struct qwen3_config {
    int64_t vocab_size;
    int64_t hidden_size;
    int64_t intermediate_size; /* of dense layers */
    int64_t num_layers;        /* at most QWEN3_MAX_LAYERS */
    int64_t num_heads;         /* query heads */
    int64_t num_kv_heads;      /* divides num_heads */
    int64_t head_dim;
    int64_t max_positions;
    double rms_norm_eps;
    double rope_theta;
    /* YaRN; factor 0 = off (Peng et al. 2023) */
    double yarn_factor, yarn_beta_fast, yarn_beta_slow, yarn_attention_factor;
    int64_t yarn_original_positions;
    bool tie_word_embeddings;
    const char *architecture; /* "model_type" of config.json, a constant; NULL, in one made by hand: "qwen3" */
    bool qk_norm;             /* queries and keys are normalised by head */
    bool attention_bias;      /* of the projections to q, k and v */
    /* Mixture of experts; without one, num_experts is 0 and the rest is not looked at. */
    int64_t num_experts, num_experts_per_token; /* of a layer; chosen for each token */
    int64_t moe_intermediate_size;              /* of one expert */
    bool norm_topk_prob;                        /* the weights of the chosen experts are divided by their sum */
    /* Bit i % 64 of word i / 64: layer i has experts in place of the dense network (qwen3_config_has_experts). */
    uint64_t expert_layers[QWEN3_MAX_LAYERS / 64];
    bool no_output_head; /* the weights have none (embedding models): a session has hidden states, no logits */
} qwen3_config;

/* Whether a layer has experts; false for layers that there are not. */
QWEN3_API bool qwen3_config_has_experts(const qwen3_config *config, int64_t layer);

/* What a prediction needs to know of the machine ("Prediction"). */
typedef struct qwen3_machine qwen3_machine;

/* What may take long when a model is opened or packed. */
typedef enum qwen3_stage {
    QWEN3_STAGE_VERIFY = 0, /* the checksums of a packed model are compared; bytes of the file */
    QWEN3_STAGE_LOAD,       /* weights are read, converted and packed; bytes of packed weights */
    QWEN3_STAGE_PACK,       /* the same for a file; bytes of the file */
} qwen3_stage;

/* How far a stage is: `done` of `total` bytes that are this rank's part, about ten times a second, and once at its end
 * with done = total, unless it failed. Called in the thread that called the library, while other threads work: it
 * should return soon, and must not call the library. */
typedef void qwen3_progress(void *context, qwen3_stage stage, uint64_t done, uint64_t total);

typedef struct qwen3_model_options {
    qwen3_parallel_strategy strategy;
    int grid_sequence, grid_heads; /* S and H of HYBRID; 0, 0 = chosen; otherwise S * H = ranks */
    qwen3_dtype dtype;             /* of the weights in memory; AUTO, or that of the packed model */
    qwen3_dtype kv_dtype; /* of the KV cache: F32, BF16 or Q8; AUTO: that of the weights, BF16 where these are quantised
                             (but see QWEN3_ISA_AUTO) */
    qwen3_isa isa;
    int threads;                  /* per rank, at most 4096; 0 = default_threads of qwen3_rank_info */
    uint64_t seed;                /* of synthetic weights */
    int64_t expected_tokens;      /* length the AUTO strategy plans for; 0 = unknown */
    bool expect_decode;           /* AUTO plans for generation rather than for prefill alone */
    bool share_weights;           /* ranks of one node that need the same slices keep one copy */
    bool deterministic;           /* logits do not depend, in any bit, on the number of ranks and threads, on strategy,
                                     grid and tile sizes, nor on how tokens are split into steps and batches; slower.
                                     isa, dtype, kv_dtype and processor must be the same (docs/ARCHITECTURE.md) */
    bool no_output_head;          /* the output head is not loaded, and there are no logits: for qwen3_hidden and
                                     qwen3_embeddings */
    const qwen3_machine *machine; /* what AUTO and the choice of movements go by; the caller's, read while the model is
                                     opened. NULL: AUTO measures where the model has more than 64 MiB of weights, and
                                     movements have fixed prices */
    qwen3_progress *progress;     /* is told how far opening or packing is; NULL: nobody is. Not collective: some ranks
                                     may have one, and others none */
    void *progress_context;       /* its first argument */
} qwen3_model_options;

QWEN3_API qwen3_model_options qwen3_model_options_default(void);

typedef struct qwen3_model qwen3_model;

/* Opens `spec`: a directory in the published layout (config.json with model.safetensors, or with
 * model.safetensors.index.json and its shards), or "synthetic:SIZE" with SIZE one of tiny, 0.6B, 1.7B,
 * 4B, 8B, 14B, 32B, tiny-moe, 30B-A3B, 235B-A22B (seeded random weights, the same for any number of ranks; after
 * SIZE may follow ":layers=N": with N layers, and ":yarn=N": 32768 N positions), or the directory of a packed model
 * (qwen3_model_pack), or a GGUF file, "FILE.gguf", the first one where it is split (docs/GGUF.md: types and what is
 * exact). Each rank reads and packs only the weights that the strategy gives it. A packed model is mapped by all ranks
 * of a node and used in place if the chosen kernels have panels of its height; otherwise it is repacked. Its checksums
 * are verified before: the ranks of a node read the file once, and a damaged tensor is an error that names it.
 * Collective over comm, which the model shares. options NULL = defaults. On failure *model is NULL and nothing is kept.
 */
QWEN3_API qwen3_status qwen3_model_open(qwen3_comm *comm, const char *spec, const qwen3_model_options *options,
                                        qwen3_model **model, qwen3_error *err);
/* Collective. NULL is allowed. Where sessions are open, the weights are freed with the last of them, whose closing is
 * then collective. */
QWEN3_API void qwen3_model_close(qwen3_model *model);
QWEN3_API const qwen3_config *qwen3_model_config(const qwen3_model *model);

/* Reads and checks only the configuration of `spec`. Not collective. */
QWEN3_API qwen3_status qwen3_config_read(const char *spec, qwen3_config *config, qwen3_error *err);

/* What was decided at opening, on this rank. */
typedef struct qwen3_plan {
    qwen3_parallel_strategy strategy; /* never AUTO */
    int grid_sequence, grid_heads;    /* S, H */
    int sequence_index, head_index;   /* this rank's place in the grid */
    qwen3_dtype dtype, kv_dtype;      /* of weights, of keys and values */
    qwen3_isa isa;
    int threads;
    int64_t first_head, num_heads;       /* query heads of this rank's head group */
    int64_t first_kv_head, num_kv_heads; /* and the KV heads that they read */
    uint64_t weight_bytes;               /* packed weights this rank can reach */
    uint64_t owned_bytes;                /* this rank's part of them: shared copies are divided among their users */
    bool weights_shared;                 /* held in memory shared by the ranks of the node */
    char reason[256];                    /* why AUTO chose so, or "given" */
    bool stored_types;                   /* each matrix has the type that the file has it in (GGUF, GPTQ, AWQ); dtype is
                                            then the one of Q8 and Q4 whose size is nearest */
    char warning[400];                   /* what speaks against these ranks and what they run on, or "" */
} qwen3_plan;

QWEN3_API const qwen3_plan *qwen3_model_plan(const qwen3_model *model);

/* Bytes of the model's weights that a step of so many tokens touches in the whole job. Of experts those that the tokens
 * choose, on average, where each chooses num_experts_per_token = k of num_experts = E at random: of each layer
 * E (1 - (1 - k / E)^rows). INFINITY: all weights. 0 where rows is not positive. */
QWEN3_API double qwen3_model_bytes_per_step(const qwen3_model *model, double rows);
/* The same of one token. */
QWEN3_API uint64_t qwen3_model_bytes_per_token(const qwen3_model *model);

/* Writes to text[size] on which NUMA nodes the weights that this rank can reach are, from a sample of their pages:
 * "0: 48 %, 1: 52 %", or "unknown" if the system does not say. Not collective. */
QWEN3_API void qwen3_model_placement(const qwen3_model *model, char *text, size_t size);

/* A tensor that the configuration requires. */
typedef struct qwen3_tensor_info {
    char name[96];
    int64_t rows, cols; /* vectors have cols = 1 */
    bool stored;        /* present in the checkpoint (always true for synthetic models) */
    char dtype[8];      /* as stored: "BF16", "F32", "F16", in a GGUF file also "Q4_K", ...; quantised:
                           "F8_E4M3", "GPTQ-4", "GPTQ-8", "AWQ-4"; packed: "bf16", "q8", ... */
    char held[8];       /* the type in memory that products read: "bf16", "q8", ...; of a file's quantised matrices
                           that are computed with as they are "Q4_K", ..., "G4_32" and "G4_128" for groups of GPTQ and
                           AWQ; "" where products read none of it: vectors, an embedding that is not the output head */
} qwen3_tensor_info;

/* Writes the model of the directory or GGUF file `spec` as a packed model to the directory `output`, with copies of
 * configuration and tokenizer. `output` must be empty or not exist, and is left like that on failure. What a process
 * that is killed leaves there is refused as a model. Weights are packed as options->dtype for the kernels of
 * options->isa, by options->threads, and options->progress is told; other options are ignored. NULL = defaults. Rank 0
 * does the work. Collective. */
QWEN3_API qwen3_status qwen3_model_pack(qwen3_comm *comm, const char *spec, const qwen3_model_options *options,
                                        const char *output, qwen3_error *err);

/* Lists the tensors of `spec` after checking the checkpoint's headers, held as dtype AUTO does; *tensors [*n] is
 * allocated, free it with free(). Not collective. */
QWEN3_API qwen3_status qwen3_model_tensors(const char *spec, qwen3_tensor_info **tensors, size_t *n, qwen3_error *err);

/* The same of an open model, held as it does; nothing is read. A matrix whose blocks ranks would split may be held as
 * "f32" nevertheless, or as "G4_32". */
QWEN3_API qwen3_status qwen3_model_held_tensors(const qwen3_model *model, qwen3_tensor_info **tensors, size_t *n,
                                                qwen3_error *err);

/* Bytes of packed weights of the fullest rank, of `ranks` (at most 16384) that are in equal blocks on `nodes` nodes; a
 * copy that ranks of a node share is divided among them. dtype AUTO is BF16. 0 where an argument is wrong or the
 * configuration is not that of a model. Pure arithmetic; nothing is loaded. */
QWEN3_API uint64_t qwen3_memory_estimate(const qwen3_config *config, qwen3_parallel_strategy strategy, int ranks,
                                         int nodes, qwen3_dtype dtype);
/* The same of matrices in the types that a list says (qwen3_tensor_info.held): what a GGUF file, or a GPTQ or AWQ
 * checkpoint, needs as dtype AUTO. 0 also where tensors [n] is not such a list of this configuration. */
QWEN3_API uint64_t qwen3_memory_estimate_tensors(const qwen3_config *config, const qwen3_tensor_info *tensors, size_t n,
                                                 qwen3_parallel_strategy strategy, int ranks, int nodes);

/* ---- Session ----------------------------------------------------------------------------------- */

/* Positions of one sequence whose keys and values lie together in a page of the KV cache. */
#define QWEN3_KV_PAGE 128

typedef struct qwen3_session_options {
    int max_sequences;                   /* sequences that can live at once */
    int64_t max_tokens;                  /* tokens per sequence that the KV cache holds */
    qwen3_attention_algorithm algorithm; /* AUTO: ONLINE_SOFTMAX, documented */
    int q_block_size;                    /* queries per tile; 0 = default */
    int kv_block_size;                   /* keys per tile; 0 = default; rounded up to whole KV pages */
    int64_t token_split_min;             /* a step with at least this many rows splits rows over the sequence
                                            groups, a smaller one splits the weights; 0 = default, 1 = always */
    int64_t overlap_min_rows; /* over several nodes a step with at least this many rows for each rank is computed
                                 in two parts, so that messages of one part go on while the other is
                                 computed; 0 = by the machine where it is known (AUTO, options.machine);
                                 otherwise 512 where sums cross nodes, and 4096 where only keys and values do */
    qwen3_dtype wire;         /* how long sums over several nodes travel: F32, or rounded to BF16 or Q8, which is
                                 fewer bytes and an error; AUTO: F32 */
    int64_t kv_pages;         /* pages of keys and values that a rank may keep, of all sequences together, shared ones
                                 once; 0 = as many as it gets memory for. A rank keeps about 1 / grid_sequence of the
                                 positions of a sequence, in pages that it has for this sequence alone, or shares with
                                 those that begin in the same way (qwen3_session_fork) */
} qwen3_session_options;

QWEN3_API qwen3_session_options qwen3_session_options_default(void);

typedef struct qwen3_session qwen3_session;

/* Collective. options NULL = defaults. The session shares the model. */
QWEN3_API qwen3_status qwen3_session_open(qwen3_model *model, const qwen3_session_options *options,
                                          qwen3_session **session, qwen3_error *err);
/* NULL is allowed. Collective only where the model was closed before. */
QWEN3_API void qwen3_session_close(qwen3_session *session);
/* Empties a sequence (-1: all of them) and frees its KV pages. Collective. */
QWEN3_API qwen3_status qwen3_session_reset(qwen3_session *session, int sequence, qwen3_error *err);
/* Removes the tokens of a sequence from position `length` on, 0 <= length <= qwen3_session_length, as if they had never
 * been there, and frees KV pages that become empty. The logits of the last forward pass stay. Collective. */
QWEN3_API qwen3_status qwen3_session_truncate(qwen3_session *session, int sequence, int64_t length, qwen3_error *err);
/* Gives the sequence `to`, which is empty, the first `positions` tokens of `from`, without computing them: what follows
 * is what it would be had they been computed for `to`. Both share the pages of the KV cache; a page in which one of
 * them goes on is copied then. Truncating, resetting or continuing one of them does not change the other. On failure
 * nothing changes. Collective. */
QWEN3_API qwen3_status qwen3_session_fork(qwen3_session *session, int from, int to, int64_t positions,
                                          qwen3_error *err);
/* Tokens that the sequence holds; 0 where there is none of this number. */
QWEN3_API int64_t qwen3_session_length(const qwen3_session *session, int sequence);

/* A ragged batch: tokens of any number of sequences. Prefill, chunked prefill, decode and mixtures of
 * them are the same thing. The arrays belong to the caller and are read during the call only. */
typedef struct qwen3_batch {
    size_t n_tokens;
    const int32_t *tokens;    /* [n_tokens] 0 <= id < vocab_size */
    const int32_t *sequences; /* [n_tokens] 0 <= id < max_sequences; NULL = all of sequence 0 */
    const int32_t *positions; /* [n_tokens] must continue what the sequence holds; NULL = they do */
    const uint8_t *logits;    /* [n_tokens] nonzero where logits are wanted; NULL = each sequence's last token */
} qwen3_batch;

/* One forward pass; appends the batch to the KV cache. Collective. On failure the session holds what
 * it held before. QWEN3_ERR_CAPACITY: a sequence would be longer than max_tokens, or a rank has no more pages. The
 * logits stay distributed over the ranks until the next call on the session. */
QWEN3_API qwen3_status qwen3_forward(qwen3_session *session, const qwen3_batch *batch, qwen3_error *err);
/* Rows of logits, and of hidden states, of the last forward pass, in batch order. */
QWEN3_API size_t qwen3_logits_rows(const qwen3_session *session);
/* Collects all rows [rows, vocab_size] in `logits` on rank 0 (ignored and may be NULL elsewhere). Collective. */
QWEN3_API qwen3_status qwen3_logits(qwen3_session *session, float *logits, qwen3_error *err);
/* The token of the largest logit of each row (lowest id at ties), on all ranks. A logit that is NaN or +INFINITY is
 * an error. Collective; each rank sends one candidate of 16 bytes a row. */
QWEN3_API qwen3_status qwen3_argmax(qwen3_session *session, int32_t *tokens, qwen3_error *err);

/* Hidden states after the final norm, of the rows whose logits are wanted (qwen3_logits_rows), in batch order: hidden
 * [rows, hidden_size], the caller's, on every rank that calls. All ranks have the same ones. A state that is not finite
 * is an error. Not collective. */
QWEN3_API qwen3_status qwen3_hidden(const qwen3_session *session, float *hidden, qwen3_error *err);
/* The same as embeddings: of each row the first `dimensions` values (0 = all), divided by their L2 norm: embeddings
 * [rows, dimensions], the caller's. Not collective. */
QWEN3_API qwen3_status qwen3_embeddings(const qwen3_session *session, int64_t dimensions, float *embeddings,
                                        qwen3_error *err);

typedef struct qwen3_session_info {
    qwen3_attention_algorithm algorithm; /* never AUTO */
    uint64_t kv_bytes;                   /* KV cache reserved on this rank */
    uint64_t kv_bytes_used;              /* the part of it that holds tokens; shared pages count once */
    int64_t kv_pages;                    /* that this rank may keep (qwen3_session_options); 0: no limit */
    int64_t kv_pages_used;               /* that hold tokens */
    uint64_t scratch_bytes;              /* activations and workspaces on this rank */
    uint64_t score_bytes;  /* the part of it for scores: O(seq^2) in STANDARD, O(block) in ONLINE_SOFTMAX */
    double expert_load;    /* of the rows that this rank computed together in the last step: those of the busiest expert
                              of a layer over the mean of its experts, in the mean of the layers; 0: no experts, no rows */
    qwen3_comm_stats comm; /* since the last reset */
} qwen3_session_info;

QWEN3_API void qwen3_session_get_info(const qwen3_session *session, qwen3_session_info *info);
QWEN3_API void qwen3_session_reset_stats(qwen3_session *session);

/* ---- Sampling ---------------------------------------------------------------------------------- */

/* What is added to the logit of a token: a finite number, or -INFINITY, which forbids it. */
typedef struct qwen3_logit_bias {
    int32_t token;
    float bias;
} qwen3_logit_bias;

/* How the next token is chosen. Steps are taken in this order, that of the reference implementation
 * (transformers):
 *   bias                added
 *   repetition_penalty  a positive logit of a token of the history is divided by it, a negative one multiplied
 *   frequency_penalty   subtracted once for each time that the token was generated
 *   presence_penalty    subtracted once if it was
 *   temperature         logits are divided by it; 0: the largest is chosen (lowest id at ties), and no more steps
 *   top_k               the k largest remain (the lowest ids at ties)
 *   top_p               the most likely of these remain: the fewest that together have this probability, at least one
 *   min_p               those remain whose probability is at least this times the largest one
 * and then a token is drawn from what remains, with probabilities softmax(logits). */
typedef struct qwen3_sampling_options {
    double temperature;        /* 0, or 1e-6 to 1e6 */
    int top_k;                 /* 0 = off, as is the number of tokens or more */
    double top_p;              /* 0 to 1; 1 = off */
    double min_p;              /* 0 to 1; 0 = off */
    double presence_penalty;   /* 0 = off; of generated tokens */
    double frequency_penalty;  /* 0 = off; of generated tokens */
    double repetition_penalty; /* above 0; 1 = off; of tokens of the prompt and generated ones (Keskar et al. 2019) */
    const qwen3_logit_bias *bias; /* [n_bias] no token twice; read by qwen3_sampler_open, not kept */
    size_t n_bias;
    uint64_t seed;
} qwen3_sampling_options;

/* Greedy, all else off, seed 0. */
QWEN3_API qwen3_sampling_options qwen3_sampling_options_default(void);

#define QWEN3_MAX_END_TOKENS 16

/* How a model is meant to be sampled, and what ends its answers. Plain data. */
typedef struct qwen3_generation_config {
    qwen3_sampling_options sampling; /* without bias, seed 0 */
    int32_t end_tokens[QWEN3_MAX_END_TOKENS];
    int n_end_tokens;
    bool greedy_by_default; /* temperature is 0 because the file does not say do_sample */
} qwen3_generation_config;

/* Reads generation_config.json of the directory: do_sample (false or missing: temperature is 0), temperature (1 where
 * it is missing), top_k (0 or -1: all), top_p, min_p, repetition_penalty, eos_token_id (an id or several). Options that
 * are missing or null have the defaults of qwen3_sampling_options_default; missing end tokens are those of eos_token_id
 * in config.json, if there. Other keys are ignored. Without the file only the end tokens of config.json are known, and
 * for "synthetic:SIZE" nothing. A GGUF file has end tokens, and may have sampling options. *config is zeroed on
 * failure. Not collective. */
QWEN3_API qwen3_status qwen3_generation_config_read(const char *spec, qwen3_generation_config *config,
                                                    qwen3_error *err);
/* Whether the token is among the end tokens. */
QWEN3_API bool qwen3_generation_config_ends(const qwen3_generation_config *config, int32_t token);

/* Chooses the tokens of one sequence; holds the options and the history for the penalties. Every rank has one for each
 * sequence and makes the same calls on it. Draws are reproducible: they depend on the logits, the options and the
 * number of tokens in the history, not on the number of ranks (with which the last bits of logits differ). A sampler
 * that is given the history of another one continues as that one would. */
typedef struct qwen3_sampler qwen3_sampler;

/* Only ids below n_tokens are chosen (qwen3_tokenizer_vocab_size): later rows of the output head are no tokens. 0 =
 * vocab_size. options NULL = defaults; the error names the option that is out of its range. On failure *sampler is
 * NULL. Not collective. */
QWEN3_API qwen3_status qwen3_sampler_open(const qwen3_config *config, int32_t n_tokens,
                                          const qwen3_sampling_options *options, qwen3_sampler **sampler,
                                          qwen3_error *err);
/* NULL is allowed. */
QWEN3_API void qwen3_sampler_close(qwen3_sampler *sampler);
/* Appends tokens [n], generated or of the prompt, to the history. What qwen3_sample chose is already in it. On failure
 * the history is unchanged. */
QWEN3_API qwen3_status qwen3_sampler_accept(qwen3_sampler *sampler, const int32_t *tokens, size_t n, bool generated,
                                            qwen3_error *err);
/* Empties the history and sets the seed. */
QWEN3_API void qwen3_sampler_reset(qwen3_sampler *sampler, uint64_t seed);

/* Chooses a token for each row of logits of the last forward pass: tokens [rows], on all ranks. They are appended to
 * the histories; the logits are not changed. samplers [rows]: one for each row, none twice; a row without one (NULL),
 * and every row where samplers is NULL, is chosen as by qwen3_argmax. A row in which no token may be chosen, or in
 * which a token's logit is NaN or +INFINITY, is an error, and no history grows. Ranks send candidates of 16 bytes. A
 * rank sends for a row 1 if the choice is greedy, top_k with top_k, otherwise 2. top_p adds 1 for the token drawn and 2
 * for each draw that top_p or min_p rejects, on average fewer than 1 / top_p. Collective. */
QWEN3_API qwen3_status qwen3_sample(qwen3_session *session, qwen3_sampler *const *samplers, int32_t *tokens,
                                    qwen3_error *err);

/* ---- Text -------------------------------------------------------------------------------------- */

/* The tokenizer of a published model directory: normalisation form C, the split pattern of the family,
 * byte-level byte-pair encoding, and added tokens, which stand for themselves in text ("<|im_end|>").
 * Immutable: any number of threads may use one at once. Nothing in this section is collective. */
typedef struct qwen3_tokenizer qwen3_tokenizer;

/* Reads `path`: a directory with tokenizer.json, that file, or a GGUF file. Settings that would change ids and are not
 * handled are refused by name (QWEN3_ERR_UNSUPPORTED). On failure *tokenizer is NULL and nothing is kept. */
QWEN3_API qwen3_status qwen3_tokenizer_open(const char *path, qwen3_tokenizer **tokenizer, qwen3_error *err);
/* NULL is allowed. Where streams are open, the tokenizer is freed with the last of them. */
QWEN3_API void qwen3_tokenizer_close(qwen3_tokenizer *tokenizer);

typedef enum qwen3_token_kind {
    QWEN3_TOKEN_NONE = 0, /* no token has this id */
    QWEN3_TOKEN_ORDINARY, /* a part of text */
    QWEN3_TOKEN_ADDED,    /* an added token that is text to a reader: "<think>", "<tool_call>" */
    QWEN3_TOKEN_SPECIAL,  /* a control token, also added: "<|im_end|>", "<|endoftext|>" */
} qwen3_token_kind;

/* The largest id plus 1. The output head of a model can have more rows; these are no tokens. */
QWEN3_API int32_t qwen3_tokenizer_vocab_size(const qwen3_tokenizer *tokenizer);
/* The token that the file's post-processor puts at the end of every text, -1 if there is none. Tokenizers of embedding
 * models have one. qwen3_tokenizer_encode does not add it. */
QWEN3_API int32_t qwen3_tokenizer_end(const qwen3_tokenizer *tokenizer);
/* Any id is allowed. */
QWEN3_API qwen3_token_kind qwen3_tokenizer_kind(const qwen3_tokenizer *tokenizer, int32_t id);
/* The bytes of the token [*length], owned by the tokenizer, without a final zero. They need not be well-formed
 * UTF-8 on their own. length may be NULL. NULL if no token has the id. */
QWEN3_API const char *qwen3_tokenizer_token(const qwen3_tokenizer *tokenizer, int32_t id, size_t *length);
/* The id of the token of exactly these bytes, added tokens first; -1 if there is none. */
QWEN3_API int32_t qwen3_tokenizer_find(const qwen3_tokenizer *tokenizer, const char *bytes, size_t length);

/* Bytes [begin, end) of a text. */
typedef struct qwen3_text_range {
    size_t begin, end;
} qwen3_text_range;

/* A text to encode. Members that are left zero have their defaults. The arrays belong to the caller and are read
 * during the call only. */
typedef struct qwen3_encode_args {
    const char *text;              /* [length] bytes, which may be zero; NULL is allowed where length is 0 */
    size_t length;                 /* at most 512 MiB */
    const qwen3_text_range *plain; /* [n_plain] where no added token is recognised: ascending, without overlap */
    size_t n_plain;                /* 0 = added tokens are recognised everywhere */
} qwen3_encode_args;

/* The ids of a text. Bytes that are not UTF-8 are read as U+FFFD, one for each maximal subpart (Unicode 15,
 * section 3.9), as published decoders write it. With a plain range over what a user wrote, none of it becomes a
 * control token. A plain range changes nothing else: a word may reach over its edges.
 * *ids [*n] is freed with free(). It is not NULL even where *n is 0. On failure it is NULL. */
QWEN3_API qwen3_status qwen3_tokenizer_encode(const qwen3_tokenizer *tokenizer, const qwen3_encode_args *args,
                                              int32_t **ids, size_t *n, qwen3_error *err);

/* The text of ids, well-formed UTF-8: other bytes become U+FFFD, one for each maximal subpart. skip_special
 * leaves out tokens of kind QWEN3_TOKEN_SPECIAL. *text [*length] is followed by a zero byte and freed with
 * free(). An id without a token is an error. On failure *text is NULL. */
QWEN3_API qwen3_status qwen3_tokenizer_decode(const qwen3_tokenizer *tokenizer, const int32_t *ids, size_t n,
                                              bool skip_special, char **text, size_t *length, qwen3_error *err);

/* Decoding token by token. The texts of the calls together are that of qwen3_tokenizer_decode, and each is
 * well-formed UTF-8: an incomplete character is held back until its other bytes come. */
typedef struct qwen3_text_stream qwen3_text_stream;

QWEN3_API qwen3_status qwen3_text_stream_open(const qwen3_tokenizer *tokenizer, bool skip_special,
                                              qwen3_text_stream **stream, qwen3_error *err);
/* *text [*length] is followed by a zero byte, belongs to the stream and is valid until its next call. */
QWEN3_API qwen3_status qwen3_text_stream_push(qwen3_text_stream *stream, int32_t id, const char **text, size_t *length,
                                              qwen3_error *err);
/* Ends the text: an incomplete character becomes U+FFFD. The stream can then be used again. */
QWEN3_API void qwen3_text_stream_finish(qwen3_text_stream *stream, const char **text, size_t *length);
/* NULL is allowed. */
QWEN3_API void qwen3_text_stream_close(qwen3_text_stream *stream);

/* ---- Chat -------------------------------------------------------------------------------------- */

/* The chat template of a model: how a conversation becomes the text that the model continues. Templates are not
 * interpreted: those published with the family are recognised, and rendered byte for byte as the published
 * implementation renders them. */
typedef struct qwen3_chat_template qwen3_chat_template;

/* Reads chat_template.jinja of the directory or, without that file, chat_template in tokenizer_config.json: a text, or
 * a list of {"name", "template"}, of which "tool_use" is for conversations with tools and "default" for the others. For
 * any other template than the published ones the nearest of them is taken, and qwen3_chat_template_warning says so. One
 * with other control tokens than theirs is refused with QWEN3_ERR_UNSUPPORTED. dir may be a GGUF
 * file. On failure *chat is NULL. Not collective. */
QWEN3_API qwen3_status qwen3_chat_template_open(const char *dir, qwen3_chat_template **chat, qwen3_error *err);
/* The same for a published template by its name ("qwen3", "qwen3-revised", "qwen3-thinking-2507",
 * "qwen3-instruct-2507", "qwen3-coder", "qwen3-coder-revised"), or for a file that holds the text of one. Not
 * collective. */
QWEN3_API qwen3_status qwen3_chat_template_load(const char *name, qwen3_chat_template **chat, qwen3_error *err);
/* In what a template that is not a published one differs from that which is used in its place, or "". Belongs to
 * chat. */
QWEN3_API const char *qwen3_chat_template_warning(const qwen3_chat_template *chat);
/* NULL is allowed. */
QWEN3_API void qwen3_chat_template_close(qwen3_chat_template *chat);

/* Whether the model reasons before it answers. */
typedef enum qwen3_chat_thinking {
    QWEN3_THINKING_OPTIONAL = 0, /* unless enable_thinking is false (Qwen3) */
    QWEN3_THINKING_ALWAYS,       /* the generation prompt opens the reasoning (Qwen3-2507-Thinking) */
    QWEN3_THINKING_NEVER,        /* (Qwen3-2507-Instruct, Qwen3-Coder) */
} qwen3_chat_thinking;

QWEN3_API qwen3_chat_thinking qwen3_chat_template_thinking(const qwen3_chat_template *chat);

typedef struct qwen3_chat_options {
    bool enable_thinking;       /* false: the generation prompt holds an empty block of reasoning. Ignored
                                   unless thinking is optional */
    bool add_generation_prompt; /* the prompt ends with the opening of the assistant's turn */
} qwen3_chat_options;

/* Both true. */
QWEN3_API qwen3_chat_options qwen3_chat_options_default(void);

/* Bytes [begin, end) of a prompt. Text of the template may hold control tokens. Content comes from the conversation
 * (what users, tools and the model said, and the definitions of tools). Added tokens must not be matched in it: a
 * message that contains "<|im_end|>" must not end its turn. */
typedef struct qwen3_chat_segment {
    size_t begin, end;
    bool is_content;
} qwen3_chat_segment;

/* A rendered conversation. The segments cover the text from 0 to length, none is empty, and the two kinds alternate.
 * They only limit where added tokens are matched. A word may reach over the edge of a segment: encode the prompt
 * as one text, not segment by segment. */
typedef struct qwen3_chat_prompt {
    char *text; /* [length] UTF-8, which may hold zero bytes, followed by a zero byte */
    size_t length;
    qwen3_chat_segment *segments; /* [n_segments] */
    size_t n_segments;
} qwen3_chat_prompt;

/* A conversation to render. Members that are left zero have their defaults. What they point to belongs to the caller
 * and is read during the call only. */
typedef struct qwen3_render_args {
    const char *conversation; /* [conversation_bytes] JSON */
    size_t conversation_bytes;
    const char *tools; /* [tools_bytes] JSON, an array of objects; NULL = those of the conversation */
    size_t tools_bytes;
    const qwen3_chat_options *options; /* NULL = defaults */
} qwen3_render_args;

/* Renders a conversation: an array of messages, or an object with "messages" and optionally "tools",
 * "enable_thinking" and "add_generation_prompt". The last two override `options`; other members are ignored.
 * A message is an object:
 *   role               "system", "user", "assistant" or "tool"; "developer" is "system"
 *   content            a string, or an array of parts {"type": "text", "text"}, which are joined by line breaks; other
 *                      parts are refused. May be missing or null in a message that calls tools. All templates but the
 *                      first version of Qwen3's and those of Qwen3-Coder also take null, as an empty string, in any
 *                      message but a system message that is the first
 *   reasoning_content  of an assistant, a string or null. If it is missing, the content before </think> is the
 *                      reasoning. Only reasoning after the user's last question is rendered
 *   tool_calls         of an assistant, an array of {"name", "arguments"} or {"function": {"name", "arguments"}};
 *                      arguments are an object, or a string that is inserted as it is; for Qwen3-Coder it must hold
 *                      an object in JSON, whose members are rendered
 * JSON is written as Python's json.dumps does with ensure_ascii=False. Integers beyond int64, other numbers beyond
 * double, duplicate members of an object, and tools given twice are refused. Errors name line and column, or message
 * and member. *prompt is the caller's (qwen3_chat_prompt_free); zeroed on failure. Not collective. */
QWEN3_API qwen3_status qwen3_chat_template_render(const qwen3_chat_template *chat, const qwen3_render_args *args,
                                                  qwen3_chat_prompt *prompt, qwen3_error *err);
/* Frees what the prompt holds and zeroes it. */
QWEN3_API void qwen3_chat_prompt_free(qwen3_chat_prompt *prompt);

/* ---- Limits of the machine --------------------------------------------------------------------- */

typedef struct qwen3_roofline {
    double read_bytes_per_second; /* streaming reads of memory, all threads of all ranks together */
    double f32_flops;             /* multiply-adds of the isa, counted as 2, all threads of all ranks together */
    double bf16_flops;            /* of BF16 inputs; f32_flops if the isa has no BF16 instruction */
} qwen3_roofline;

/* Measures the limits with `threads` threads on each rank at once (0 = as for a model). Takes about a
 * second and 1 GiB per node. Collective. */
QWEN3_API qwen3_status qwen3_roofline_measure(qwen3_comm *comm, int threads, qwen3_isa isa, qwen3_roofline *out,
                                              qwen3_error *err);

/* ---- Prediction -------------------------------------------------------------------------------- */

/* How fast ranks (inside a node) or nodes (across) reach each other. */
typedef struct qwen3_link {
    double latency;          /* seconds of a small collective, for each doubling of those that take part */
    double message;          /* seconds of a small message to a neighbour */
    double bytes_per_second; /* that each sends while all send and receive */
} qwen3_link;

enum {
    QWEN3_MACHINE_ROWS = 7, /* numbers of rows that products are measured with */
    QWEN3_WEIGHT_TYPES = QWEN3_DTYPE_Q4 + 1,
    QWEN3_KV_TYPES = QWEN3_DTYPE_Q8 + 1,
};

/* A machine, measured or assumed. Rates are those of one node, all of its ranks at work together; 0 = not known. */
struct qwen3_machine {
    int nodes, ranks_per_node, threads;                            /* threads of each rank; what it was measured with */
    qwen3_isa isa;                                                 /* of the kernels */
    double product_values[QWEN3_WEIGHT_TYPES][QWEN3_MACHINE_ROWS]; /* weights per second, read from memory and
                                                               multiplied with 1, 4, 16, 32, 64, 128 and 512 rows */
    double attention_flops[QWEN3_KV_TYPES][2];                     /* of many queries; STANDARD, ONLINE_SOFTMAX */
    double attention_bytes[QWEN3_KV_TYPES];                        /* keys and values that one query reads */
    double row_values;         /* values per second that are normalised, rotated, gated */
    double barrier;            /* seconds, of the threads of a rank */
    qwen3_link inside, across; /* the node */
};

/* A server of about 2022 with 16 cores, and Ethernet of 10 Gbit/s. */
QWEN3_API qwen3_machine qwen3_machine_default(void);
/* Measures all ranks at once, in under a second and with 512 MiB per node. threads: of each rank, 0 = as for a
 * model. dtype: of the weights, AUTO = all types, which takes four times as long. A link that the ranks do not have
 * keeps its default. All ranks get the same numbers. Collective. */
QWEN3_API qwen3_status qwen3_machine_measure(qwen3_comm *comm, int threads, qwen3_isa isa, qwen3_dtype dtype,
                                             qwen3_machine *machine, qwen3_error *err);
/* A JSON file. Not collective. */
QWEN3_API qwen3_status qwen3_machine_read(const char *path, qwen3_machine *machine, qwen3_error *err);
QWEN3_API qwen3_status qwen3_machine_write(const char *path, const qwen3_machine *machine, qwen3_error *err);

/* A model on some ranks of a machine, which need not be there. */
typedef struct qwen3_scenario {
    const qwen3_config *config;
    const qwen3_machine *machine;
    int nodes, ranks_per_node;     /* ranks share the rates of their node equally */
    int grid_sequence, grid_heads; /* S * H = nodes * ranks_per_node, rank s * H + h on node rank / ranks_per_node */
    qwen3_dtype dtype, kv_dtype;   /* AUTO as in qwen3_model_options */
    qwen3_attention_algorithm algorithm;
    bool priced;              /* movements are chosen by the machine's links, as where options.machine is set */
    int64_t overlap_min_rows; /* of qwen3_session_options; 0: default where no machine is known; -1: where one is */
} qwen3_scenario;

/* One forward pass: `tokens` new ones of each of `batch` sequences that hold `past` already, and the logits of the last
 * of each. tokens = 1 is a step of decode. */
typedef struct qwen3_forward_shape {
    int64_t batch, tokens, past;
} qwen3_forward_shape;

typedef struct qwen3_prediction {
    double seconds;                             /* of the pass; the sum of: */
    double products, attention, rows, barriers; /* of the rank that has most to do */
    double messages;                            /* not overlapped */
    double overlapped;                          /* beside these: of messages, while the rank computes */
    double sent_bytes;                          /* by each rank, in all layers */
    double messages_per_layer;                  /* collectives and hops of a ring */
    const char *movement;                       /* of keys and queries; a constant */
    double weight_bytes;                        /* held by the fullest rank; copies that a node shares are divided */
    double kv_bytes;                            /* of all positions, on the fullest rank */
} qwen3_prediction;

/* Pure arithmetic. Fails with QWEN3_ERR_ARGUMENT where the grid does not fit, or where the machine does not know a rate
 * that is needed. Not collective. */
QWEN3_API qwen3_status qwen3_predict(const qwen3_scenario *scenario, const qwen3_forward_shape *shape,
                                     qwen3_prediction *prediction, qwen3_error *err);
/* Floating-point operations of a pass in the whole job; of experts those of the chosen ones. */
QWEN3_API double qwen3_forward_flops(const qwen3_config *config, const qwen3_forward_shape *shape);
/* Bytes of keys and values of one token, all layers. kv_dtype is F32, BF16 or Q8. */
QWEN3_API double qwen3_kv_bytes_per_token(const qwen3_config *config, qwen3_dtype kv_dtype);

/* ---- Attention operators ----------------------------------------------------------------------- */

/* Whether the arrays of an operator call are the same whole arrays on all ranks, or this rank's part. */
typedef enum qwen3_input_layout {
    QWEN3_INPUT_REPLICATED = 0, /* every rank passes the whole q, k, v and receives the whole output */
    QWEN3_INPUT_SHARDED,        /* headwise: this rank's heads; sequence: this rank's positions, in rank order */
} qwen3_input_layout;

/* One attention problem, softmax(scale q k^T + mask) v, all arrays f32 and contiguous in row-major order.
 *
 * Shapes (global sizes first, local ones where the layout is SHARDED):
 *   q, out [batch, heads, q_len, head_dim]     k, v [batch, kv_heads, kv_len, head_dim]
 * Headwise + SHARDED: heads, kv_heads are this rank's own counts (kv_heads may repeat a KV head that a
 *   neighbour has too, or be 0 with heads = 0); q_len and kv_len are global.
 * Sequence + SHARDED: q_len, kv_len are this rank's own counts, 0 allowed; the shards follow each other
 *   in rank order; global_seq_len is the sum of kv_len over the ranks (0 = do not check).
 * Query i (global index) has position i + (global kv_len - global q_len); a causal query sees keys with
 *   key index <= its position.
 * mask: NULL, or additive, addressed mask[b*mask_stride_batch + h*mask_stride_head + i*mask_stride_query + j]
 *   with i this call's query index (local where q is), h its head index, and j the GLOBAL key index; a
 *   stride of 0 broadcasts.
 *   -INFINITY hides a key. A row that sees no key gives zeros.
 * NaN is not hidden: a row that sees a score of NaN or +INFINITY (overflow), only scores of -INFINITY, or a value of
 *   NaN, gives NaN. So may rows near it that do not see the value.
 */
typedef struct qwen3_attention_args {
    size_t batch, heads, kv_heads, q_len, kv_len, head_dim;
    const float *q, *k, *v;
    float *out; /* caller's, same shape as q, must not overlap the inputs */
    const float *mask;
    size_t mask_stride_batch, mask_stride_head, mask_stride_query;
    bool causal;
    float scale; /* 0 = 1/sqrt(head_dim) */
    qwen3_input_layout layout;
    size_t global_seq_len;
    int threads;                     /* 0 = default */
    int q_block_size, kv_block_size; /* 0 = default */
    qwen3_isa isa;
} qwen3_attention_args;

QWEN3_API qwen3_attention_args qwen3_attention_args_default(void);

/* The four pairs. Collective over comm. Exact up to f32 rounding for any number of ranks. */
QWEN3_API qwen3_status qwen3_attention_headwise_standard(const qwen3_attention_args *args, qwen3_comm *comm,
                                                         qwen3_error *err);
QWEN3_API qwen3_status qwen3_attention_headwise_online_softmax(const qwen3_attention_args *args, qwen3_comm *comm,
                                                               qwen3_error *err);
QWEN3_API qwen3_status qwen3_attention_sequence_standard(const qwen3_attention_args *args, qwen3_comm *comm,
                                                         qwen3_error *err);
QWEN3_API qwen3_status qwen3_attention_sequence_online_softmax(const qwen3_attention_args *args, qwen3_comm *comm,
                                                               qwen3_error *err);

#ifdef __cplusplus
}
#endif
#endif
