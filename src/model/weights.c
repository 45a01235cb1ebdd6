/* weights.c - converting and packing weights.
 *
 * Every matrix is a stack of parts of tensors (q, k and v make one matrix). Memory lies near the thread that first
 * writes to it, so each thread packs the panels that it will read when a step has few rows, and only then helps with
 * what others have left. Ranks that share a copy divide it in the same way.
 */
#include "model/weights.h"

#include <stdlib.h>

#include "base/memory.h"
#include "base/team.h"

range weights_touched(int64_t n, int64_t grain, int64_t nr, int part, int parts, int thread, int threads)
{
    range rows = partition(n, grain, parts, part);
    size_t begin, end;
    team_part(&(team){.tid = thread, .size = threads}, (size_t)range_size(rows), (size_t)nr, &begin, &end);
    return (range){(rows.begin + (int64_t)begin + nr - 1) / nr, (rows.begin + (int64_t)end + nr - 1) / nr};
}

void matrix_product(const matrix_part *w, const gemm_input *x, const gemm_output *y)
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
        gemm(p->gemm, &part, x, &(gemm_output){y->y + (first - w->n0), y->stride, y->accumulate});
    }
}

const void *matrix_at(const matrix *w, size_t n, size_t k)
{
    const matrix_piece *p = w->pieces;
    while (n >= p->rows)
        n -= p++->rows;
    return gemm_at(p->gemm, p->data, p->whole_k, p->n0 + n, p->k0 + k);
}

/* ---- What is packed where ---------------------------------------------------------------------- */

/* Parts of a matrix that follow each other and have one kernel, to be packed. */
typedef struct pack_job {
    const matrix_declaration *from;
    int first, end; /* parts */
    const gemm_kernel *gemm;
    size_t row; /* the first one, of the matrix */
    size_t n, k;
    size_t first_panel; /* over all jobs of the storage */
    size_t offset;      /* bytes into the storage */
    matrix_piece *out;
} pack_job;

typedef struct pack_list {
    pack_job *jobs;
    size_t n_jobs;
    size_t bytes, panels;
} pack_list;

static size_t declared_rows(const matrix_declaration *m)
{
    return parts_rows(m->parts, m->n_parts);
}

static size_t declared_cols(const matrix_declaration *m)
{
    return (size_t)range_size(m->parts[0].cols);
}

/* The part after those that have the kernel of part `first`. */
static int piece_end(const matrix_declaration *m, int first)
{
    int end = first + 1;
    while (end < m->n_parts && m->gemm[end] == m->gemm[first])
        end++;
    return end;
}

static size_t piece_bytes(const matrix_declaration *m, int first, int end)
{
    const size_t rows = parts_rows(m->parts + first, end - first);
    return round_up(gemm_packed_bytes(m->gemm[first], rows, declared_cols(m)), CACHE_LINE);
}

static size_t matrix_bytes(const matrix_declaration *m)
{
    size_t bytes = 0;
    for (int first = 0, end; first < m->n_parts; first = end)
        bytes += piece_bytes(m, first, end = piece_end(m, first));
    return bytes;
}

static void list_add(pack_list *list, const matrix_declaration *from, matrix *out)
{
    *out = (matrix){.n = declared_rows(from), .k = declared_cols(from)};
    size_t row = 0;
    for (int first = 0, end; first < from->n_parts; first = end) {
        end = piece_end(from, first);
        const gemm_kernel *g = from->gemm[first];
        const pack_job job = {.from = from,
                              .first = first,
                              .end = end,
                              .gemm = g,
                              .row = row,
                              .n = parts_rows(from->parts + first, end - first),
                              .k = out->k,
                              .first_panel = list->panels,
                              .offset = list->bytes,
                              .out = &out->pieces[out->n_pieces++]};
        row += job.n;
        list->panels += (job.n + (size_t)g->nr - 1) / (size_t)g->nr;
        list->bytes += piece_bytes(from, first, end);
        list->jobs[list->n_jobs++] = job;
    }
}

/* The matrices of one of the two kinds of storage. list->jobs has room for all. */
static void list_matrices(pack_list *list, const declaration *d, bool own, matrix *matrices)
{
    for (size_t i = 0; i < d->n_matrices; i++)
        if (d->matrices[i].own == own)
            list_add(list, &d->matrices[i], &matrices[i]);
}

static size_t vector_values(const declaration *d)
{
    size_t n = 0;
    for (size_t i = 0; i < d->n_vectors; i++)
        for (int j = 0; j < d->vectors[i].n_parts; j++)
            n += tensor_part_values(&d->vectors[i].parts[j]);
    return n;
}

void weights_bytes(const declaration *d, size_t *slice_bytes, size_t *own_bytes)
{
    *slice_bytes = 0;
    *own_bytes = vector_values(d) * sizeof(float);
    for (size_t i = 0; i < d->n_matrices; i++)
        *(d->matrices[i].own ? own_bytes : slice_bytes) += matrix_bytes(&d->matrices[i]);
}

/* ---- Packing ----------------------------------------------------------------------------------- */

typedef struct packer {
    const source *src;
    const pack_list *list;
    unsigned char *base; /* of the storage */
    int part, parts;     /* this rank, of those that share the copy */
    float *scratch;      /* [threads][2][nr * max k] */
    size_t scratch_floats;
    atomic_size_t *taken; /* [threads][jobs] panels of a thread's part that are taken */
    atomic_size_t bad;    /* lowest panel with a value that is not finite, + 1; 0 = none */
    work *work;
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

/* Of rows [row, row + rows) of a job's matrix the first ones, as far as they lie in one tensor. */
static tensor_part part_at(const pack_job *job, size_t row, size_t rows)
{
    int64_t from = (int64_t)row;
    const tensor_part *p = job->from->parts + job->first;
    for (; from >= range_size(p->rows); p++)
        from -= range_size(p->rows);
    tensor_part part = {p->tensor, {p->rows.begin + from, p->rows.begin + from + (int64_t)rows}, p->cols};
    if (part.rows.end > p->rows.end)
        part.rows.end = p->rows.end;
    return part;
}

/* Rows that straddle tensors are brought together as f32 rows of length k. */
static void gather_rows(const packer *p, const pack_job *job, size_t row, size_t rows, float *out, float *scratch)
{
    for (size_t n; rows > 0; row += n, rows -= n) {
        const tensor_part part = part_at(job, row, rows);
        const tensor_view v = source_part(p->src, &part, scratch);
        n = (size_t)range_size(part.rows);
        for (size_t r = 0; r < n; r++)
            for (size_t i = 0; i < job->k; i++)
                *out++ = view_value(&v, r * v.stride + i);
    }
}

static size_t panel_bytes(const pack_job *job)
{
    return gemm_packed_bytes(job->gemm, (size_t)job->gemm->nr, job->k);
}

/* The rows of a panel as they are in a packed model, or in the stored type of a file. Returns false where a value of
 * the latter is not finite. */
static bool copy_panel(const packer *p, const pack_job *job, size_t row, size_t rows, void *dst, void *scratch)
{
    bool finite = true;
    memset(dst, 0, panel_bytes(job));
    for (size_t at = 0, n; at < rows; at += n) {
        const tensor_part part = part_at(job, row + at, rows - at);
        n = (size_t)range_size(part.rows);
        if (source_format(p->src)) {
            const packed_part from = {source_packed(p->src, part.tensor), (size_t)part.rows.begin, n,
                                      (size_t)part.cols.begin, job->k};
            gemm_repack_rows(job->gemm, &from, dst, at);
        } else {
            const stored_part from = source_stored_part(p->src, &part, job->gemm->storage, scratch);
            finite &= stored_pack_rows(job->gemm, &from, dst, at);
        }
    }
    return finite;
}

/* Of the panels of a job those that a thread of this rank touches first. */
static range panels_of(const packer *p, const pack_job *job, int thread, int threads)
{
    const int64_t nr = job->gemm->nr, first = (int64_t)job->row / nr, end = first + ((int64_t)job->n + nr - 1) / nr;
    range part =
        weights_touched((int64_t)declared_rows(job->from), job->from->grain, nr, p->part, p->parts, thread, threads);
    part.begin = part.begin < first ? first : part.begin > end ? end : part.begin;
    part.end = part.end < part.begin ? part.begin : part.end > end ? end : part.end;
    return (range){part.begin - first, part.end - first};
}

static bool pack_panel(const packer *p, const pack_job *job, size_t panel, float *scratch)
{
    size_t nr = (size_t)job->gemm->nr, row = panel * nr;
    size_t rows = job->n - row < nr ? job->n - row : nr;
    void *dst = p->base + job->offset + panel * panel_bytes(job);
    if (source_format(p->src) || job->gemm->storage >= DTYPE_COUNT)
        return copy_panel(p, job, row, rows, dst, scratch);
    const tensor_part part = part_at(job, row, rows);
    tensor_view v = {scratch, QWEN3_DTYPE_F32, job->k};
    if ((size_t)range_size(part.rows) == rows)
        v = source_part(p->src, &part, scratch);
    else
        gather_rows(p, job, row, rows, scratch, scratch + nr * job->k);
    return gemm_pack_panel(job->gemm, &(matrix_rows){v.data, v.type, v.stride, rows, job->k}, dst);
}

/* Packs what nobody has taken yet of the part of thread `owner`. */
static void pack_part(packer *p, const team *t, int owner)
{
    float *scratch = p->scratch + (size_t)t->tid * p->scratch_floats;
    for (size_t j = 0; j < p->list->n_jobs; j++) {
        const pack_job *job = &p->list->jobs[j];
        atomic_size_t *taken = &p->taken[(size_t)owner * p->list->n_jobs + j];
        const range part = panels_of(p, job, owner, t->size);
        if (panel_bytes(job) == 0)
            continue; /* no columns for this rank */
        if (p->parts > 1 && owner == t->tid)
            memory_collapse(p->base + job->offset + (size_t)part.begin * panel_bytes(job),
                            (size_t)range_size(part) * panel_bytes(job));
        for (size_t i; (i = (size_t)part.begin + atomic_fetch_add(taken, 1)) < (size_t)part.end;) {
            const bool packed = pack_panel(p, job, i, scratch);
            work_done(p->work, panel_bytes(job));
            if (t->tid == 0)
                work_tell(p->work);
            if (packed)
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
static qwen3_status fail_not_finite(const packer *p, qwen3_error *err)
{
    size_t panel = atomic_load(&p->bad) - 1;
    const pack_job *job = job_of_panel(p->list, panel);
    const tensor_part part = part_at(job, (panel - job->first_panel) * (size_t)job->gemm->nr, 1);
    const tensor *stored = source_tensor(p->src, source_tensor(p->src, part.tensor)->same_as);
    return fail(err, QWEN3_ERR_FORMAT,
                "tensor %s: NaN or infinite value near row %lld of %lld; expected finite weights", stored->name,
                (long long)part.rows.begin, (long long)stored->rows);
}

/* The jobs of p->list on all threads. */
static qwen3_status pack_all(packer *p, int threads, qwen3_error *err)
{
    const pack_list *list = p->list;
    size_t values = 0;
    for (const pack_job *job = list->jobs; job < list->jobs + list->n_jobs; job++)
        values = (size_t)job->gemm->nr * job->k > values ? (size_t)job->gemm->nr * job->k : values;
    p->scratch_floats = round_up(2 * values, CACHE_LINE / sizeof(float));
    size_t scratch_bytes = p->scratch_floats * sizeof(float) * (size_t)threads;
    void *scratch;
    qwen3_status status = memory_alloc(&scratch, scratch_bytes, "scratch for packing weights", err);
    p->taken = calloc((size_t)threads * list->n_jobs + 1, sizeof *p->taken);
    if (!status && !p->taken)
        status = fail(err, QWEN3_ERR_MEMORY, "no memory for a table of %d threads", threads);
    if (!status) {
        p->scratch = scratch;
        team_run(threads, pack_body, p);
        if (atomic_load(&p->bad))
            status = fail_not_finite(p, err);
    }
    free(p->taken);
    memory_free(scratch, scratch_bytes);
    if (status)
        return status;
    for (const pack_job *job = list->jobs; job < list->jobs + list->n_jobs; job++)
        *job->out = (matrix_piece){job->gemm, p->base + job->offset, job->n, 0, 0, job->n, job->k};
    return QWEN3_OK;
}

qwen3_status weights_pack_matrix(const source *src, const gemm_kernel *gemm, size_t number, void *dst, packers by,
                                 qwen3_error *err)
{
    const range rows = {0, source_tensor(src, number)->rows}, cols = {0, source_tensor(src, number)->cols};
    const matrix_declaration whole = {.parts = {{number, rows, cols}}, .gemm = {gemm}, .n_parts = 1, .grain = gemm->nr};
    pack_job job;
    pack_list list = {.jobs = &job};
    matrix ignored;
    list_add(&list, &whole, &ignored);
    packer p = {.src = src, .list = &list, .base = dst, .parts = 1, .work = by.work};
    return pack_all(&p, by.threads, err);
}

/* ---- In place ---------------------------------------------------------------------------------- */

/* Whether the parts of a matrix begin and end at panels; the last one may end with its tensor. */
static bool at_panels(const source *src, const matrix_declaration *m, int64_t nr)
{
    for (int i = 0; i < m->n_parts; i++) {
        const range rows = m->parts[i].rows;
        const bool ends = i == m->n_parts - 1 && rows.end == source_tensor(src, m->parts[i].tensor)->rows;
        if (range_size(rows) > 0 && (rows.begin % nr != 0 || (rows.end % nr != 0 && !ends)))
            return false;
    }
    return true;
}

bool weights_mapped(const source *src, const declaration *d)
{
    const packed_format *f = source_format(src);
    bool mapped = f && f->nr == d->format.nr;
    for (size_t i = 0; mapped && i < d->n_matrices; i++)
        mapped = at_panels(src, &d->matrices[i], f->nr);
    return mapped;
}

static void map_all(const source *src, const declaration *d, matrix *matrices)
{
    for (size_t i = 0; i < d->n_matrices; i++) {
        const matrix_declaration *m = &d->matrices[i];
        matrices[i] = (matrix){.n = declared_rows(m), .k = declared_cols(m), .n_pieces = m->n_parts};
        for (int j = 0; j < m->n_parts; j++) {
            const tensor_part *p = &m->parts[j];
            const tensor *whole = source_tensor(src, p->tensor);
            matrices[i].pieces[j] = (matrix_piece){.gemm = m->gemm[j],
                                                   .data = source_packed(src, p->tensor).data,
                                                   .rows = (size_t)range_size(p->rows),
                                                   .n0 = (size_t)p->rows.begin,
                                                   .k0 = (size_t)p->cols.begin,
                                                   .whole_n = (size_t)whole->rows,
                                                   .whole_k = (size_t)whole->cols};
        }
    }
}

/* ---- Vectors ----------------------------------------------------------------------------------- */

static qwen3_status load_part(const source *src, const tensor_part *part, void *scratch, float *out, qwen3_error *err)
{
    const tensor_view v = source_part(src, part, scratch);
    const size_t cols = (size_t)range_size(part->cols);
    for (size_t i = 0; i < tensor_part_values(part); i++) {
        out[i] = view_value(&v, i / cols * v.stride + i % cols);
        if (!isfinite(out[i]))
            return fail(err, QWEN3_ERR_FORMAT, "tensor %s: NaN or infinite value at %lld; expected finite weights",
                        source_tensor(src, part->tensor)->name, (long long)part->rows.begin + (long long)(i / cols));
    }
    return QWEN3_OK;
}

/* All vectors, one after the other, to `at`. */
static qwen3_status load_vectors(weights *w, const source *src, const declaration *d, float *at, qwen3_error *err)
{
    const size_t values = vector_values(d);
    float *scratch = malloc(values * sizeof *scratch + 1);
    if (!scratch)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for vectors of %zu values", values);
    qwen3_status status = QWEN3_OK;
    for (size_t i = 0; i < d->n_vectors; i++) {
        const vector_declaration *vector = &d->vectors[i];
        w->vectors[i] = vector->n_parts ? at : NULL;
        for (int j = 0; j < vector->n_parts && !status; j++) {
            status = load_part(src, &vector->parts[j], scratch, at, err);
            at += tensor_part_values(&vector->parts[j]);
        }
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

/* Bytes of what this rank packs of a list. */
static uint64_t packed_bytes(const packer *p, int threads)
{
    uint64_t bytes = 0;
    for (const pack_job *job = p->list->jobs; job < p->list->jobs + p->list->n_jobs; job++)
        for (int i = 0; i < threads; i++)
            bytes += (uint64_t)range_size(panels_of(p, job, i, threads)) * panel_bytes(job);
    return bytes;
}

static qwen3_status pack_both(weights *w, const source *src, const declaration *d, comm *share, packers by,
                              qwen3_error *err)
{
    pack_list own = {.jobs = calloc(d->n_matrices * MATRIX_PIECES, sizeof(pack_job))};
    pack_list slice = {.jobs = calloc(d->n_matrices * MATRIX_PIECES, sizeof(pack_job))};
    qwen3_status status = QWEN3_OK;
    if (own.jobs && slice.jobs) {
        list_matrices(&own, d, true, w->matrices);
        list_matrices(&slice, d, false, w->matrices);
        packer alone = {.src = src, .list = &own, .base = w->own, .parts = 1, .work = by.work};
        packer together = alone;
        together.list = &slice;
        together.base = w->slice;
        together.part = w->shared ? comm_rank(share) : 0;
        together.parts = w->shared ? comm_size(share) : 1;
        work_begin(by.work, QWEN3_STAGE_LOAD, packed_bytes(&alone, by.threads) + packed_bytes(&together, by.threads));
        status = pack_all(&alone, by.threads, err);
        if (!status)
            status = pack_all(&together, by.threads, err);
        if (!status)
            work_end(by.work);
    } else {
        status = fail(err, QWEN3_ERR_MEMORY, "no memory for a list of %zu matrices", d->n_matrices);
    }
    free(own.jobs);
    free(slice.jobs);
    return status;
}

/* Tables of matrices, vectors and blocks, still empty. */
static qwen3_status make_tables(weights *w, const declaration *d, qwen3_error *err)
{
    const size_t blocks = (size_t)d->config->num_layers * LAYER_BLOCKS;
    w->n_matrices = d->n_matrices;
    w->matrices = calloc(d->n_matrices, sizeof *w->matrices);
    w->vectors = calloc(d->n_vectors, sizeof *w->vectors);
    w->blocks = calloc(blocks, sizeof *w->blocks);
    if (!w->matrices || !w->vectors || !w->blocks)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for the table of %zu matrices", d->n_matrices);
    for (size_t i = 0; i < blocks; i++)
        w->blocks[i] = (block_weights){w->matrices + d->blocks[i].matrix, w->vectors + d->blocks[i].vector};
    return QWEN3_OK;
}

/* A packed model holds blocks, which are not expanded again. */
static qwen3_status check_packed(const source *src, const declaration *d, qwen3_error *err)
{
    const weight_type *types = source_types(src);
    for (size_t i = 0; source_format(src) && types && i < d->n_matrices; i++) {
        const matrix_declaration *m = &d->matrices[i];
        for (int j = 0; j < m->n_parts; j++)
            if (m->gemm[j]->storage != types[m->parts[j].tensor])
                return fail(
                    err, QWEN3_ERR_UNSUPPORTED,
                    "tensor %s: these ranks would split blocks of %s; expected the file that it was packed from, or "
                    "other ranks",
                    source_tensor(src, m->parts[j].tensor)->name, weight_type_name(types[m->parts[j].tensor]));
    }
    return QWEN3_OK;
}

qwen3_status weights_load(weights *w, const source *src, const declaration *d, comm *share, packers by,
                          qwen3_error *err)
{
    *w = (weights){.mapped = weights_mapped(src, d)};
    weights_bytes(d, &w->slice_bytes, &w->own_bytes);
    const size_t vector_bytes = vector_values(d) * sizeof(float);
    w->allocated = w->mapped ? vector_bytes : w->own_bytes;
    qwen3_status status = check_packed(src, d, err);
    if (!status)
        status = make_tables(w, d, err);
    /* The allocation is collective over share: no early return before it. */
    qwen3_status allocated = w->mapped ? QWEN3_OK : allocate_slice(w, share, err);
    if (!status)
        status = allocated;
    if (!status)
        status = memory_alloc(&w->own, w->allocated, "packed output head", err);
    if (!status)
        status = load_vectors(w, src, d, (float *)((char *)w->own + w->allocated - vector_bytes), err);
    if (!status && w->mapped)
        map_all(src, d, w->matrices);
    else if (!status)
        status = pack_both(w, src, d, share, by, err);
    if (w->shared)
        comm_shared_sync(share, w->segment);
    return status;
}

void weights_free(weights *w)
{
    if (w->shared)
        comm_shared_free(w->segment);
    else if (!w->mapped)
        memory_free(w->slice, w->slice_bytes);
    memory_free(w->own, w->allocated);
    free(w->matrices);
    free(w->vectors);
    free(w->blocks);
    *w = (weights){0};
}
