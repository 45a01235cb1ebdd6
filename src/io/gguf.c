/* gguf.c - opens the parts of a model and indexes their tensors by name. */
#include "io/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"

/* ---- Tensors by name ---------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    const gguf_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static qwen3_status index_tensors(gguf *g, qwen3_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < g->n_files; i++)
        n += g->files[i].n_tensors;
    g->tensors = calloc(n + 1, sizeof *g->tensors);
    if (!g->tensors)
        return fail(err, QWEN3_ERR_MEMORY, "%s: no memory for the index of tensors", g->files[0].path);
    for (size_t i = 0; i < g->n_files; i++)
        for (size_t t = 0; t < g->files[i].n_tensors; t++)
            g->tensors[g->n_tensors++] = &g->files[i].tensors[t];
    qsort(g->tensors, n, sizeof *g->tensors, by_name);
    for (size_t i = 1; i < n; i++)
        if (by_name(&g->tensors[i - 1], &g->tensors[i]) == 0)
            return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %s: is there twice%s%s", g->tensors[i]->path,
                        g->tensors[i]->name, g->tensors[i]->path == g->tensors[i - 1]->path ? "" : ", also in ",
                        g->tensors[i]->path == g->tensors[i - 1]->path ? "" : g->tensors[i - 1]->path);
    return QWEN3_OK;
}

const gguf_tensor *gguf_find_tensor(const gguf *g, const char *name)
{
    gguf_tensor key = {0};
    const gguf_tensor *wanted = &key;
    if (strlen(name) >= sizeof key.name)
        return NULL;
    memcpy(key.name, name, strlen(name));
    const gguf_tensor **found = bsearch(&wanted, g->tensors, g->n_tensors, sizeof *g->tensors, by_name);
    return found ? *found : NULL;
}

/* ---- Parts of a split model --------------------------------------------------------------------- */

/* Part `no`, from 0, of `count`. */
typedef struct split {
    int64_t no, count;
} split;

enum { MOST_PARTS = 99999, SUFFIX_BYTES = sizeof "-00001-of-00002.gguf" - 1, SUFFIX_ROOM = 40 };

/* count = 1 where it is not split. */
static qwen3_status read_split(const gguf_file *file, split *s, qwen3_error *err)
{
    const gguf_section keys = {file, "split.", err};
    *s = (split){0, 1};
    if (!gguf_find(&keys, "count"))
        return QWEN3_OK;
    qwen3_status status = gguf_read_integer(&keys, "count", &s->count);
    if (!status)
        status = gguf_read_integer(&keys, "no", &s->no);
    if (!status && (s->count < 1 || s->count > MOST_PARTS || s->no < 0 || s->no >= s->count))
        status = fail(err, QWEN3_ERR_FORMAT,
                      "%s: split.no %" PRId64 ", split.count %" PRId64 ": expected a count of 1 to %d and a smaller "
                      "number",
                      file->path, s->no, s->count, MOST_PARTS);
    return status;
}

/* The path of part `no`, from that of part s: "-0000N-of-0000M.gguf" at its end. */
static qwen3_status part_path(const char *path, const split *s, int64_t no, char **out, qwen3_error *err)
{
    char suffix[SUFFIX_ROOM];
    const size_t bytes = strlen(path);
    snprintf(suffix, sizeof suffix, "-%05d-of-%05d.gguf", (int)s->no + 1, (int)s->count);
    if (bytes < SUFFIX_BYTES || strcmp(path + bytes - SUFFIX_BYTES, suffix) != 0)
        return fail(err, QWEN3_ERR_FORMAT, "%s: is part %d of %d of a split model: expected a name that ends in \"%s\"",
                    path, (int)s->no + 1, (int)s->count, suffix);
    snprintf(suffix, sizeof suffix, "-%05d-of-%05d.gguf", (int)no + 1, (int)s->count);
    if (asprintf(out, "%.*s%s", (int)(bytes - SUFFIX_BYTES), path, suffix) < 0) {
        *out = NULL;
        return fail(err, QWEN3_ERR_MEMORY, "%s: out of memory", path);
    }
    return QWEN3_OK;
}

/* Part `no` of the model whose first part is open. */
static qwen3_status open_part(gguf *g, const split *first, int64_t no, qwen3_error *err)
{
    char *path = NULL;
    split s;
    gguf_file *file = &g->files[g->n_files];
    qwen3_status status = part_path(g->files[0].path, first, no, &path, err);
    if (!status && !file_exists(path))
        status = fail(err, QWEN3_ERR_IO, "%s: part %d of %d is missing: no file %s", g->files[0].path, (int)no + 1,
                      (int)first->count, path);
    if (!status && !(status = gguf_file_open(path, file, err))) {
        g->n_files++;
        status = read_split(file, &s, err);
        if (!status && (s.no != no || s.count != first->count))
            status = fail(err, QWEN3_ERR_FORMAT, "%s: says that it is part %d of %d, expected %d of %d", path,
                          (int)s.no + 1, (int)s.count, (int)no + 1, (int)first->count);
    }
    free(path);
    return status;
}

static qwen3_status check_total(const gguf *g, qwen3_error *err)
{
    const gguf_section keys = {&g->files[0], "split.", err};
    int64_t total;
    const qwen3_status status = gguf_read_integer(&keys, "tensors.count", &total);
    if (!status && (uint64_t)total != g->n_tensors)
        return fail(err, QWEN3_ERR_FORMAT, "%s: key split.tensors.count: got %" PRId64 ", but the %zu parts have %zu",
                    g->files[0].path, total, g->n_files, g->n_tensors);
    return status;
}

/* The parts behind the first. */
static qwen3_status open_others(gguf *g, const split *first, qwen3_error *err)
{
    char *path = NULL;
    qwen3_status status = part_path(g->files[0].path, first, 0, &path, err);
    if (!status && first->no != 0)
        status = fail(err, QWEN3_ERR_ARGUMENT, "%s: is part %d of %d, expected the first one, %s", g->files[0].path,
                      (int)first->no + 1, (int)first->count, path);
    free(path);
    gguf_file *files = status ? NULL : realloc(g->files, (size_t)first->count * sizeof *files);
    if (files)
        g->files = files;
    else if (!status)
        status = fail(err, QWEN3_ERR_MEMORY, "%s: no memory for %d parts", g->files[0].path, (int)first->count);
    for (int64_t no = 1; no < first->count && !status; no++)
        status = open_part(g, first, no, err);
    return status;
}

static qwen3_status open_all(const char *path, gguf *g, qwen3_error *err)
{
    split first;
    qwen3_status status = gguf_file_open(path, &g->files[0], err);
    if (status)
        return status;
    g->n_files = 1;
    if ((status = read_split(&g->files[0], &first, err)) ||
        (first.count > 1 && (status = open_others(g, &first, err))) || (status = index_tensors(g, err)))
        return status;
    return first.count > 1 ? check_total(g, err) : QWEN3_OK;
}

qwen3_status gguf_open(const char *path, gguf *g, qwen3_error *err)
{
    *g = (gguf){.files = calloc(1, sizeof *g->files)};
    const qwen3_status status =
        g->files ? open_all(path, g, err) : fail(err, QWEN3_ERR_MEMORY, "%s: out of memory", path);
    if (status)
        gguf_close(g);
    return status;
}

void gguf_close(gguf *g)
{
    for (size_t i = 0; i < g->n_files; i++)
        gguf_file_close(&g->files[i]);
    free(g->files);
    free(g->tensors);
    *g = (gguf){0};
}
