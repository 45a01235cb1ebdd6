/* checkpoint.c - finds and opens the files of a model directory and indexes their tensors by name. */
#include "io/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/json_file.h"

#define SINGLE_FILE "model.safetensors"
#define INDEX_FILE "model.safetensors.index.json"

typedef struct checkpoint_index {
    size_t n;
    const stored_tensor *tensors[]; /* sorted by name */
} checkpoint_index;

static char *join(const char *dir, const char *name)
{
    char *path;
    return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

static qwen3_status fail_memory(const char *dir, qwen3_error *err)
{
    return fail(err, QWEN3_ERR_MEMORY, "%s: no memory for the checkpoint's index", dir);
}

const char *checkpoint_path_of(const checkpoint *c, const stored_tensor *tensor)
{
    for (size_t i = 0; i < c->n_files; i++)
        if (tensor >= c->files[i].tensors && tensor < c->files[i].tensors + c->files[i].n_tensors)
            return c->files[i].path;
    return c->dir;
}

/* ---- Tensors by name --------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    const stored_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static qwen3_status build_index(checkpoint *c, qwen3_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n_files; i++)
        n += c->files[i].n_tensors;
    checkpoint_index *index = malloc(sizeof *index + n * sizeof(const stored_tensor *));
    if (!index)
        return fail_memory(c->dir, err);
    c->index = index;
    index->n = 0;
    for (size_t i = 0; i < c->n_files; i++)
        for (size_t t = 0; t < c->files[i].n_tensors; t++)
            index->tensors[index->n++] = &c->files[i].tensors[t];
    qsort(index->tensors, n, sizeof(const stored_tensor *), by_name);
    for (size_t i = 1; i < n; i++)
        if (by_name(&index->tensors[i - 1], &index->tensors[i]) == 0)
            return fail(err, QWEN3_ERR_FORMAT, "%s: tensor %.200s: is in %s too",
                        checkpoint_path_of(c, index->tensors[i]), index->tensors[i]->name,
                        checkpoint_path_of(c, index->tensors[i - 1]));
    return QWEN3_OK;
}

const stored_tensor *checkpoint_find(const checkpoint *c, const char *name)
{
    stored_tensor key = {.name = (char *)name};
    const stored_tensor *wanted = &key;
    const stored_tensor **found =
        bsearch(&wanted, c->index->tensors, c->index->n, sizeof(const stored_tensor *), by_name);
    return found ? *found : NULL;
}

/* ---- Shards ------------------------------------------------------------------------------------ */

/* A file name that stays within the directory. */
static bool is_safe_name(const char *name)
{
    for (const char *c = name; *c; c++)
        if (*c == '/' || *c == '\\' || (unsigned char)*c < 0x20 || *c == 0x7f)
            return false;
    return *name && strcmp(name, ".") != 0 && !strstr(name, "..");
}

static int by_string(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

/* The file names of weight_map, sorted, each once. *names is the caller's; the strings are the map's. */
static qwen3_status collect_files(const char *path, const json_t *map, const char ***names, size_t *n, qwen3_error *err)
{
    *n = 0;
    *names = malloc((json_object_size(map) + 1) * sizeof **names);
    if (!*names)
        return fail_memory(path, err);
    const char *tensor;
    json_t *value;
    json_object_foreach((json_t *)map, tensor, value)
    {
        if (!json_is_string(value))
            return fail(err, QWEN3_ERR_FORMAT, "%s: weight_map: %.200s: expected a file name", path, tensor);
        const char *name = json_string_value(value);
        if (!is_safe_name(name))
            return fail(err, QWEN3_ERR_FORMAT,
                        "%s: weight_map: %.200s: got file name \"%.200s\", expected one in the same directory", path,
                        tensor, name);
        (*names)[(*n)++] = name;
    }
    qsort(*names, *n, sizeof **names, by_string);
    size_t kept = 0;
    for (size_t i = 0; i < *n; i++)
        if (kept == 0 || strcmp((*names)[kept - 1], (*names)[i]) != 0)
            (*names)[kept++] = (*names)[i];
    *n = kept;
    return QWEN3_OK;
}

static qwen3_status open_files(checkpoint *c, const char *const *names, size_t n, qwen3_error *err)
{
    c->files = calloc(n + 1, sizeof *c->files);
    if (!c->files)
        return fail_memory(c->dir, err);
    qwen3_status status = QWEN3_OK;
    for (size_t i = 0; i < n && !status; i++) {
        char *path = join(c->dir, names[i]);
        status = path ? safetensors_open(path, &c->files[i], err) : fail_memory(c->dir, err);
        c->n_files += !status;
        free(path);
    }
    return status ? status : build_index(c, err);
}

/* weight_map and the files name the same tensors in the same places. Some tied models list an output head that no file
 * holds: who needs it finds that it is missing. */
static qwen3_status check_weight_map(const checkpoint *c, const char *path, const json_t *map, qwen3_error *err)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)map, name, value)
    {
        const stored_tensor *t = checkpoint_find(c, name);
        if (!t && strcmp(name, "lm_head.weight") == 0)
            continue;
        if (!t)
            return fail(err, QWEN3_ERR_FORMAT, "%s: weight_map: tensor %.200s is not in %s", path, name,
                        json_string_value(value));
        const char *file = checkpoint_path_of(c, t) + strlen(c->dir) + 1;
        if (strcmp(file, json_string_value(value)) != 0)
            return fail(err, QWEN3_ERR_FORMAT, "%s: weight_map: tensor %.200s: is in %s, not in %s", path, name, file,
                        json_string_value(value));
    }
    for (size_t i = 0; i < c->index->n; i++)
        if (!json_object_get(map, c->index->tensors[i]->name))
            return fail(err, QWEN3_ERR_FORMAT, "%s: weight_map lacks tensor %.200s of %s", path,
                        c->index->tensors[i]->name, checkpoint_path_of(c, c->index->tensors[i]));
    return QWEN3_OK;
}

static qwen3_status open_sharded(checkpoint *c, const char *path, qwen3_error *err)
{
    json_t *root;
    const char **names = NULL;
    size_t n = 0;
    qwen3_status status = json_file_load(path, &root, err);
    if (status)
        return status;
    const json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0)
        status = fail(err, QWEN3_ERR_FORMAT, "%s: weight_map is missing, empty or not an object", path);
    if (!status)
        status = collect_files(path, map, &names, &n, err);
    if (!status)
        status = open_files(c, names, n, err);
    if (!status)
        status = check_weight_map(c, path, map, err);
    free(names);
    json_decref(root);
    return status;
}

static qwen3_status open_packed(checkpoint *c, qwen3_error *err)
{
    c->packed = true;
    return open_files(c, (const char *const[]){PACKED_FILE}, 1, err);
}

/* ---- The directory ----------------------------------------------------------------------------- */

qwen3_status checkpoint_open(const char *dir, checkpoint *c, qwen3_error *err)
{
    *c = (checkpoint){.dir = strdup(dir)};
    char *single = join(dir, SINGLE_FILE), *index = join(dir, INDEX_FILE), *packed = join(dir, PACKED_FILE);
    qwen3_status status;
    if (!c->dir || !single || !index || !packed)
        status = fail_memory(dir, err);
    else if (file_exists(single))
        status = open_files(c, (const char *const[]){SINGLE_FILE}, 1, err);
    else if (file_exists(index))
        status = open_sharded(c, index, err);
    else if (file_exists(packed))
        status = open_packed(c, err);
    else
        status = fail(err, QWEN3_ERR_IO, "%s: has neither %s nor %s nor %s", dir, SINGLE_FILE, INDEX_FILE, PACKED_FILE);
    free(single);
    free(index);
    free(packed);
    if (status)
        checkpoint_close(c);
    return status;
}

void checkpoint_close(checkpoint *c)
{
    for (size_t i = 0; i < c->n_files; i++)
        safetensors_close(&c->files[i]);
    free(c->files);
    free(c->index);
    free(c->dir);
    *c = (checkpoint){0};
}
