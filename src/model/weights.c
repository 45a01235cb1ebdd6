/* weights.c - cutting, converting and packing weights.
 *
 * Every matrix is a stack of row ranges of tensors (q, k and v make one matrix). Memory lies near the thread that
 * first writes to it, so each thread packs the panels that it will read when a step has few rows, and only then helps
 * with what others have left. Ranks that share a copy divide it likewise.
 */
#include "model/weights.h"

#include <stdlib.h>

#include "base/memory.h"
#include "base/team.h"

weight_shard weights_shard(const qwen3_config *config, int grain, int grid_s, int grid_h, int s, int h)
{
    /* No panel is cut, nor a group of columns of `down`. */
    return (weight_shard){
        .heads = partition_heads(config->num_heads, config->num_kv_heads, grid_h, h),
        .intermediate = partition(config->intermediate_size, grain, grid_h, h),
        .vocabulary = partition(config->vocab_size, grain, (int64_t)grid_s * grid_h, (int64_t)s * grid_h + h),
    };
}

int64_t weights_head_grain(const gemm_kernel *gemm, int64_t head_dim)
{
    int64_t grain = gemm->nr;
    while (grain % head_dim != 0)
        grain += gemm->nr;
    return grain;
}

range weights_touched(int64_t n, int64_t grain, int64_t nr, int part, int parts, int thread, int threads)
{
    range rows = partition(n, grain, parts, part);
    size_t begin, end;
    team_part(&(team){.tid = thread, .size = threads}, (size_t)range_size(rows), (size_t)nr, &begin, &end);
    return (range){(rows.begin + (int64_t)begin + nr - 1) / nr, (rows.begin + (int64_t)end + nr - 1) / nr};
}

void matrix_product(const gemm_kernel *g, const matrix_part *w, const gemm_input *x, const gemm_output *y)
{
    const matrix *m = w->matrix;
    size_t begin = 0;
    for (const matrix_piece *p = m->pieces; p < m->pieces + m->n_pieces; begin += p++->rows) {
        const size_t first = w->n0 > begin ? w->n0 : begin;
        const size_t end = w->n1 < begin + p->rows ? w->n1 : begin + p->rows;
        if (first >= end)
            continue;
        const gemm_weights part = {.w = p->data,
                                   .n = p->whole_n,
                                   .k = p->whole_k,
                                   .n0 = p->n0 + first - begin,
                                   .n1 = p->n0 + end - begin,
                                   .k0 = p->k0 + w->k0,
                                   .k1 = p->k0 + w->k1,
                                   .next = w->next};
        gemm(g, &part, x, &(gemm_output){y->y + (first - w->n0), y->stride, y->accumulate});
    }
}

const void *matrix_at(const gemm_kernel *g, const matrix *w, size_t n, size_t k)
{
    const matrix_piece *p = w->pieces;
    while (n >= p->rows)
        n -= p++->rows;
    return gemm_at(g, p->data, p->whole_k, p->n0 + n, p->k0 + k);
}

/* ---- What is packed where ---------------------------------------------------------------------- */

/* Consecutive rows of a packed matrix that come from one tensor. */
typedef struct piece {
    tensor_role role;
    range rows, cols;
} piece;

/* A matrix to be packed. */
typedef struct pack_job {
    int64_t layer;
    piece pieces[MATRIX_PIECES];
    int n_pieces;
    size_t n, k;
    int64_t grain;      /* ranks that share the copy divide its rows in multiples of this */
    size_t first_panel; /* over all jobs of the storage */
    size_t offset;      /* bytes into the storage */
    bool own;           /* in `own` rather than `slice` */
    matrix *out;
} pack_job;

enum { JOBS_PER_LAYER = 5 };

typedef struct pack_list {
    pack_job *jobs;
    size_t n_jobs;
    size_t bytes, panels;
} pack_list;

static void list_add(pack_list *list, const gemm_kernel *gemm, matrix *out, int64_t layer, int64_t grain,
                     const piece *pieces, int n_pieces)
{
    pack_job job = {.layer = layer, .grain = grain, .n_pieces = n_pieces, .out = out};
    job.k = (size_t)range_size(pieces[0].cols);
    for (int i = 0; i < n_pieces; i++) {
        job.pieces[i] = pieces[i];
        job.n += (size_t)range_size(pieces[i].rows);
    }
    job.first_panel = list->panels;
    job.offset = list->bytes;
    list->panels += (job.n + (size_t)gemm->nr - 1) / (size_t)gemm->nr;
    list->bytes += round_up(gemm_packed_bytes(gemm, job.n, job.k), CACHE_LINE);
    list->jobs[list->n_jobs++] = job;
}

static range scaled(range r, int64_t factor)
{
    return (range){r.begin * factor, r.end * factor};
}

/* The matrices of the layers. list->jobs has room for JOBS_PER_LAYER * num_layers; layers may be NULL. */
static void list_layers(pack_list *list, const qwen3_config *c, const gemm_kernel *gemm, const weight_shard *shard,
                        layer_weights *layers)
{
    range all_hidden = {0, c->hidden_size};
    range q = scaled(shard->heads.heads, c->head_dim), kv = scaled(shard->heads.kv_heads, c->head_dim);
    range inter = shard->intermediate;
    int64_t heads = weights_head_grain(gemm, c->head_dim), grain = gemm_grain(gemm), nr = gemm->nr;
    for (int64_t i = 0; i < c->num_layers; i++) {
        layer_weights *l = layers ? &layers[i] : NULL;
        list_add(list, gemm, l ? &l->qkv : NULL, i, heads,
                 (piece[]){{TENSOR_Q, q, all_hidden}, {TENSOR_K, kv, all_hidden}, {TENSOR_V, kv, all_hidden}}, 3);
        list_add(list, gemm, l ? &l->o : NULL, i, nr, &(piece){TENSOR_O, all_hidden, q}, 1);
        list_add(list, gemm, l ? &l->gate : NULL, i, grain, &(piece){TENSOR_GATE, inter, all_hidden}, 1);
        list_add(list, gemm, l ? &l->up : NULL, i, grain, &(piece){TENSOR_UP, inter, all_hidden}, 1);
        list_add(list, gemm, l ? &l->down : NULL, i, nr, &(piece){TENSOR_DOWN, all_hidden, inter}, 1);
    }
}

static void list_head(pack_list *list, const qwen3_config *c, const gemm_kernel *gemm, const weight_shard *shard,
                      matrix *out)
{
    tensor_role role = c->tie_word_embeddings ? TENSOR_EMBED : TENSOR_LM_HEAD;
    list_add(list, gemm, out, 0, gemm->nr, &(piece){role, shard->vocabulary, {0, c->hidden_size}}, 1);
}

/* Bytes of the norm vectors: two of hidden and two of head_dim a layer, one of hidden at the end. */
static size_t norm_count(const qwen3_config *c)
{
    return (size_t)(c->num_layers * 2 * (c->hidden_size + c->head_dim) + c->hidden_size);
}

void weights_bytes(const qwen3_config *config, const gemm_kernel *gemm, const weight_shard *shard, size_t *slice_bytes,
                   size_t *own_bytes)
{
    /* All layers are alike: count one. */
    qwen3_config one = *config;
    one.num_layers = 1;
    pack_job jobs[JOBS_PER_LAYER];
    pack_list layers = {.jobs = jobs}, head = {.jobs = jobs};
    list_layers(&layers, &one, gemm, shard, NULL);
    list_head(&head, &one, gemm, shard, NULL);
    *slice_bytes = layers.bytes * (size_t)config->num_layers;
    *own_bytes = head.bytes + norm_count(config) * sizeof(float);
}

/* ---- Packing ----------------------------------------------------------------------------------- */

typedef struct packer {
    const source *src;
    const gemm_kernel *gemm;
    const pack_list *list;
    unsigned char *base;
    int part, parts; /* this rank, of those that share the copy */
    float *scratch;  /* [threads][2][nr * max k] */
    size_t scratch_floats;
    atomic_size_t *taken; /* [threads][jobs] panels of a thread's part that are taken */
    atomic_size_t bad;    /* lowest panel with a value that is not finite, + 1; 0 = none */
} packer;

static const pack_job *job_of_panel(const pack_list *list, size_t panel)
{
    size_t lo = 0, hi = list->n_jobs - 1;
    while (lo < hi) {
        size_t mid = (lo + hi + 1) / 2;
        if (list->jobs[mid].first_panel <= panel)
            lo = mid;
        else
            hi = mid - 1;
    }
    return &list->jobs[lo];
}

/* The rows [row, row + rows) of a job's matrix that lie in one tensor: the piece, and how many they are. */
static const piece *piece_at(const pack_job *job, size_t row, size_t *first, size_t *rows)
{
    size_t begin = 0;
    for (int i = 0; i < job->n_pieces; i++) {
        size_t size = (size_t)range_size(job->pieces[i].rows);
        if (row < begin + size) {
            *first = (size_t)job->pieces[i].rows.begin + row - begin;
            if (*rows > begin + size - row)
                *rows = begin + size - row;
            return &job->pieces[i];
        }
        begin += size;
    }
    return NULL;
}

/* Rows that straddle tensors are brought together as f32 rows of length k. */
static void gather_rows(const packer *p, const pack_job *job, size_t row, size_t rows, float *out, float *scratch)
{
    while (rows > 0) {
        size_t first = 0, n = rows, stride;
        const piece *part = piece_at(job, row, &first, &n);
        const void *data;
        qwen3_dtype type;
        source_block(p->src, part->role, job->layer, (int64_t)first, (int64_t)n, part->cols.begin,
                     range_size(part->cols), scratch, &data, &type, &stride);
        for (size_t r = 0; r < n; r++)
            for (size_t i = 0; i < job->k; i++)
                out[r * job->k + i] = type == QWEN3_DTYPE_F32 ? ((const float *)data)[r * stride + i]
                                                              : bf16_to_f32(((const bf16 *)data)[r * stride + i]);
        out += n * job->k;
        row += n;
        rows -= n;
    }
}

/* The rows of a panel from a packed model, as they are. */
static void repack_panel(const packer *p, const pack_job *job, size_t row, size_t rows, void *dst)
{
    memset(dst, 0, gemm_packed_bytes(p->gemm, (size_t)p->gemm->nr, job->k));
    for (size_t at = 0, n, first; at < rows; at += n) {
        n = rows - at;
        const piece *part = piece_at(job, row + at, &first, &n);
        const packed_part from = {source_packed(p->src, part->role, job->layer), first, n, (size_t)part->cols.begin,
                                  job->k};
        gemm_repack_rows(p->gemm, &from, dst, at);
    }
}

static bool pack_panel(const packer *p, const pack_job *job, size_t panel, float *scratch)
{
    size_t nr = (size_t)p->gemm->nr, row = panel * nr;
    size_t rows = job->n - row < nr ? job->n - row : nr;
    size_t panel_bytes = gemm_packed_bytes(p->gemm, nr, job->k);
    void *dst = p->base + job->offset + panel * panel_bytes;
    if (source_format(p->src)) {
        repack_panel(p, job, row, rows, dst);
        return true;
    }
    size_t first = 0, n = rows;
    const piece *part = piece_at(job, row, &first, &n);
    matrix_rows from = {scratch, QWEN3_DTYPE_F32, job->k, rows, job->k};
    if (n == rows)
        source_block(p->src, part->role, job->layer, (int64_t)first, (int64_t)n, part->cols.begin,
                     range_size(part->cols), scratch, &from.data, &from.type, &from.stride);
    else
        gather_rows(p, job, row, rows, scratch, scratch + nr * job->k);
    return gemm_pack_panel(p->gemm, &from, dst);
}

/* Packs what nobody has taken yet of the part of thread `owner`. */
static void pack_part(packer *p, const team *t, int owner)
{
    float *scratch = p->scratch + (size_t)t->tid * p->scratch_floats;
    for (size_t j = 0; j < p->list->n_jobs; j++) {
        const pack_job *job = &p->list->jobs[j];
        atomic_size_t *taken = &p->taken[(size_t)owner * p->list->n_jobs + j];
        range part = weights_touched((int64_t)job->n, job->grain, p->gemm->nr, p->part, p->parts, owner, t->size);
        for (size_t i; (i = (size_t)part.begin + atomic_fetch_add(taken, 1)) < (size_t)part.end;) {
            if (pack_panel(p, job, i, scratch))
                continue;
            size_t at = job->first_panel + i + 1, bad = atomic_load(&p->bad);
            while ((bad == 0 || at < bad) && !atomic_compare_exchange_weak(&p->bad, &bad, at))
                ;
        }
    }
}

static void pack_body(team *t, void *arg)
{
    for (int i = 0; i < t->size; i++)
        pack_part(arg, t, (t->tid + i) % t->size);
}

/* The lowest panel that could not be packed, as an error. */
static qwen3_status fail_not_finite(const packer *p, const qwen3_config *config, qwen3_error *err)
{
    size_t panel = atomic_load(&p->bad) - 1, first = 0, rows = 1;
    const pack_job *job = job_of_panel(p->list, panel);
    const piece *part = piece_at(job, (panel - job->first_panel) * (size_t)p->gemm->nr, &first, &rows);
    char name[TENSOR_NAME_MAX];
    int64_t n, k;
    tensor_describe(config, part->role, job->layer, name, &n, &k);
    return fail(err, QWEN3_ERR_FORMAT, "tensor %s: NaN or infinite value near row %zu of %lld; expected finite weights",
                name, first, (long long)n);
}

static qwen3_status pack_all(const source *src, const qwen3_config *config, const gemm_kernel *gemm,
                             const pack_list *list, void *base, int part, int parts, int threads, qwen3_error *err)
{
    size_t max_k = 0;
    for (size_t i = 0; i < list->n_jobs; i++)
        max_k = list->jobs[i].k > max_k ? list->jobs[i].k : max_k;
    packer p = {.src = src, .gemm = gemm, .list = list, .base = base, .part = part, .parts = parts};
    p.scratch_floats = round_up(2 * (size_t)gemm->nr * max_k, CACHE_LINE / sizeof(float));
    size_t scratch_bytes = p.scratch_floats * sizeof(float) * (size_t)threads;
    void *scratch;
    qwen3_status status = memory_alloc(&scratch, scratch_bytes, "scratch for packing weights", err);
    p.taken = calloc((size_t)threads * list->n_jobs + 1, sizeof *p.taken);
    if (!status && !p.taken)
        status = fail(err, QWEN3_ERR_MEMORY, "no memory for a table of %d threads", threads);
    if (!status) {
        p.scratch = scratch;
        team_run(threads, pack_body, &p);
        if (atomic_load(&p.bad))
            status = fail_not_finite(&p, config, err);
    }
    free(p.taken);
    memory_free(scratch, scratch_bytes);
    if (status)
        return status;
    for (size_t i = 0; i < list->n_jobs; i++) {
        const pack_job *job = &list->jobs[i];
        const void *data = (const unsigned char *)base + job->offset;
        *job->out = (matrix){job->n, job->k, 1, {{data, job->n, 0, 0, job->n, job->k}}};
    }
    return QWEN3_OK;
}

qwen3_status weights_pack_matrix(const source *src, const qwen3_config *config, const gemm_kernel *gemm,
                                 tensor_role role, int64_t layer, void *dst, int threads, qwen3_error *err)
{
    char name[TENSOR_NAME_MAX];
    int64_t rows, cols;
    tensor_describe(config, role, layer, name, &rows, &cols);
    pack_job job;
    pack_list list = {.jobs = &job};
    matrix ignored;
    list_add(&list, gemm, &ignored, layer, gemm->nr, &(piece){role, {0, rows}, {0, cols}}, 1);
    return pack_all(src, config, gemm, &list, dst, 0, 1, threads, err);
}

/* ---- In place ---------------------------------------------------------------------------------- */

static bool at_panels(range rows, int64_t head_dim, const gemm_kernel *gemm)
{
    return rows.begin * head_dim % gemm->nr == 0 && rows.end * head_dim % gemm->nr == 0;
}

bool weights_mapped(const source *src, const qwen3_config *config, const gemm_kernel *gemm, const weight_shard *shard)
{
    const packed_format *f = source_format(src);
    return f && f->nr == gemm->nr && at_panels(shard->heads.heads, config->head_dim, gemm) &&
           at_panels(shard->heads.kv_heads, config->head_dim, gemm);
}

static void map_all(const source *src, const qwen3_config *config, const pack_list *list)
{
    for (const pack_job *job = list->jobs; job < list->jobs + list->n_jobs; job++) {
        *job->out = (matrix){.n = job->n, .k = job->k, .n_pieces = job->n_pieces};
        for (int i = 0; i < job->n_pieces; i++) {
            const piece *p = &job->pieces[i];
            packed_matrix from = source_packed(src, p->role, job->layer);
            char name[TENSOR_NAME_MAX];
            int64_t rows, cols;
            tensor_describe(config, p->role, job->layer, name, &rows, &cols);
            job->out->pieces[i] = (matrix_piece){
                from.data,   (size_t)range_size(p->rows), (size_t)p->rows.begin, (size_t)p->cols.begin, (size_t)rows,
                (size_t)cols};
        }
    }
}

/* ---- Norm vectors ------------------------------------------------------------------------------ */

static qwen3_status load_norm(const source *src, const qwen3_config *config, tensor_role role, int64_t layer,
                              void *scratch, float **at, const float **out, qwen3_error *err)
{
    char name[TENSOR_NAME_MAX];
    int64_t n, cols;
    tensor_describe(config, role, layer, name, &n, &cols);
    float *v = *at;
    const void *data;
    qwen3_dtype type;
    size_t stride;
    source_block(src, role, layer, 0, n, 0, 1, scratch, &data, &type, &stride);
    for (int64_t i = 0; i < n; i++) {
        size_t at_i = (size_t)i * stride;
        v[i] = type == QWEN3_DTYPE_F32 ? ((const float *)data)[at_i] : bf16_to_f32(((const bf16 *)data)[at_i]);
        if (!isfinite(v[i]))
            return fail(err, QWEN3_ERR_FORMAT, "tensor %s: NaN or infinite value at %lld; expected finite weights",
                        name, (long long)i);
    }
    *out = v;
    *at = v + n;
    return QWEN3_OK;
}

static qwen3_status load_norms(weights *w, const source *src, const qwen3_config *config, float *at, qwen3_error *err)
{
    int64_t longest = config->hidden_size > config->head_dim ? config->hidden_size : config->head_dim;
    void *scratch = malloc((size_t)longest * sizeof(float));
    if (!scratch)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for a vector of %lld values", (long long)longest);
    qwen3_status status = load_norm(src, config, TENSOR_FINAL_NORM, 0, scratch, &at, &w->final_norm, err);
    for (int64_t i = 0; i < config->num_layers && !status; i++) {
        layer_weights *l = &w->layers[i];
        const struct {
            tensor_role role;
            const float **out;
        } norms[] = {{TENSOR_INPUT_NORM, &l->input_norm},
                     {TENSOR_POST_NORM, &l->post_norm},
                     {TENSOR_Q_NORM, &l->q_norm},
                     {TENSOR_K_NORM, &l->k_norm}};
        for (size_t j = 0; j < sizeof norms / sizeof *norms && !status; j++)
            status = load_norm(src, config, norms[j].role, i, scratch, &at, norms[j].out, err);
    }
    free(scratch);
    return status;
}

/* ---- Loading ----------------------------------------------------------------------------------- */

/* One shared copy where the node can hold it, otherwise one each. */
static qwen3_status allocate_slice(weights *w, comm *share, qwen3_error *err)
{
    if (comm_size(share) > 1) {
        qwen3_error ignored = {0};
        if (comm_shared_alloc(share, w->slice_bytes, &w->segment, &w->slice, &ignored) == QWEN3_OK) {
            w->shared = true;
            return QWEN3_OK;
        }
        w->segment = NULL;
    }
    return memory_alloc(&w->slice, w->slice_bytes, "packed weights", err);
}

/* The matrices: mapped or packed. Collective over share. */
static qwen3_status load_matrices(weights *w, const source *src, const qwen3_config *config, comm *share,
                                  const pack_list *head, const pack_list *layers, int threads, qwen3_error *err)
{
    if (w->mapped) {
        map_all(src, config, head);
        map_all(src, config, layers);
        return QWEN3_OK;
    }
    qwen3_status status = pack_all(src, config, w->gemm, head, w->own, 0, 1, threads, err);
    int part = w->shared ? comm_rank(share) : 0, parts = w->shared ? comm_size(share) : 1;
    return status ? status : pack_all(src, config, w->gemm, layers, w->slice, part, parts, threads, err);
}

qwen3_status weights_load(weights *w, const source *src, const qwen3_config *config, const gemm_kernel *gemm,
                          const weight_shard *shard, comm *share, int threads, qwen3_error *err)
{
    *w = (weights){.gemm = gemm, .mapped = weights_mapped(src, config, gemm, shard)};
    weights_bytes(config, gemm, shard, &w->slice_bytes, &w->own_bytes);
    w->layers = calloc((size_t)config->num_layers, sizeof *w->layers);
    pack_job head_job;
    pack_list layers = {.jobs = calloc((size_t)config->num_layers * JOBS_PER_LAYER, sizeof(pack_job))};
    pack_list head = {.jobs = &head_job};
    qwen3_status status = QWEN3_OK;
    if (!w->layers || !layers.jobs)
        status = fail(err, QWEN3_ERR_MEMORY, "no memory for the table of %lld layers", (long long)config->num_layers);
    /* The allocation is collective over share: no early return before it. */
    qwen3_status allocated = w->mapped ? QWEN3_OK : allocate_slice(w, share, err);
    if (!status)
        status = allocated;
    if (!status) {
        list_head(&head, config, gemm, shard, &w->head);
        list_layers(&layers, config, gemm, shard, w->layers);
        w->allocated = w->own_bytes - (w->mapped ? head.bytes : 0);
        status = memory_alloc(&w->own, w->allocated, "packed output head", err);
    }
    if (!status)
        status = load_norms(w, src, config, (float *)((char *)w->own + w->allocated) - norm_count(config), err);
    if (!status)
        status = load_matrices(w, src, config, share, &head, &layers, threads, err);
    if (w->shared)
        comm_shared_sync(share, w->segment);
    free(layers.jobs);
    return status;
}

void weights_free(weights *w)
{
    if (w->shared)
        comm_shared_free(w->segment);
    else if (!w->mapped)
        memory_free(w->slice, w->slice_bytes);
    memory_free(w->own, w->allocated);
    free(w->layers);
    *w = (weights){0};
}
