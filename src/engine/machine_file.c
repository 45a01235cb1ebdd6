/* machine_file.c - a machine as a JSON file: what was measured once need not be measured again, and a machine that is
 * not here can be described. Rates that are missing are not known. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/machine.h"
#include "io/json_section.h"
#include "kernels/kernels.h"

qwen3_machine qwen3_machine_default(void)
{
    qwen3_machine m = {.nodes = 1, .ranks_per_node = 1, .threads = 16, .row_values = 1e10, .barrier = 2e-6};
    static const double bytes[QWEN3_WEIGHT_TYPES] = {4, 2, 1.0625, 0.5625}; /* of a weight */
    const double read = 1e11, peak[QWEN3_WEIGHT_TYPES] = {1e12, 2e12, 2e12, 2e12};
    for (int type = 0; type < QWEN3_WEIGHT_TYPES; type++)
        for (int i = 0; i < QWEN3_MACHINE_ROWS; i++) {
            const double reading = read / bytes[type], computing = peak[type] / 2 / machine_rows[i];
            m.product_values[type][i] = reading < computing ? reading : computing;
        }
    for (int type = 0; type < QWEN3_KV_TYPES; type++) {
        m.attention_flops[type][0] = m.attention_flops[type][1] = peak[type] / 4;
        m.attention_bytes[type] = read;
    }
    m.inside = (qwen3_link){2e-6, 2e-6, 1e10};
    m.across = (qwen3_link){4e-5, 4e-5, 1.1e9};
    return m;
}

/* ---- Reading ----------------------------------------------------------------------------------- */

/* The numbers of an array of exactly n, or of none. */
static void read_numbers(const json_section *s, const char *key, double *out, size_t n)
{
    const json_t *array = json_value_of(s, key);
    if (!array)
        return;
    bool right = json_is_array(array) && json_array_size(array) == n;
    for (size_t i = 0; right && i < n; i++) {
        out[i] = json_number_value(json_array_get(array, i));
        right = out[i] > 0;
    }
    if (!right)
        json_fail_value(s, QWEN3_ERR_CONFIG, key, array, "as many positive numbers as a machine file has there");
}

/* An object of the file; `prefix` is its name in messages. */
static json_section section_of(const json_section *s, const char *name, const char *prefix)
{
    const json_t *object = json_value_of(s, name);
    if (object && !json_is_object(object))
        json_fail_value(s, QWEN3_ERR_CONFIG, name, object, "an object");
    return (json_section){s->path, prefix, json_is_object(object) ? object : NULL, s->err};
}

/* A number that must be there. */
static double read_positive(const json_section *s, const char *key)
{
    double value = 0;
    if (json_read_number(s, key, &value) == QWEN3_OK && value <= 0)
        json_fail_value(s, QWEN3_ERR_CONFIG, key, json_value_of(s, key), "a positive number");
    return value;
}

static void read_link(const json_section *s, qwen3_link *link)
{
    if (s->object)
        *link = (qwen3_link){read_positive(s, "latency"), read_positive(s, "message"),
                             read_positive(s, "bytes_per_second")};
}

static void read_machine(const json_section *root, qwen3_machine *m)
{
    const json_section products = section_of(root, "product_values", "product_values."),
                       flops = section_of(root, "attention_flops", "attention_flops."),
                       bytes = section_of(root, "attention_bytes", "attention_bytes."),
                       inside = section_of(root, "inside", "inside."), across = section_of(root, "across", "across.");
    int64_t counts[3] = {0};
    static const char *const names[] = {"nodes", "ranks_per_node", "threads"};
    for (int i = 0; i < 3; i++)
        if (json_read_integer(root, names[i], &counts[i]) == QWEN3_OK &&
            (counts[i] < 1 || counts[i] > MACHINE_MOST_RANKS))
            json_fail_value(root, QWEN3_ERR_CONFIG, names[i], json_value_of(root, names[i]), "a positive number");
    m->nodes = (int)counts[0];
    m->ranks_per_node = (int)counts[1];
    m->threads = (int)counts[2];
    const json_t *isa = json_value_of(root, "isa");
    if (isa && !(json_is_string(isa) && qwen3_isa_parse(json_string_value(isa), &m->isa)))
        json_fail_value(root, QWEN3_ERR_CONFIG, "isa", isa, "the name of an instruction-set level");
    for (int type = 0; type < QWEN3_WEIGHT_TYPES && products.object; type++)
        read_numbers(&products, qwen3_dtype_name((qwen3_dtype)type), m->product_values[type], QWEN3_MACHINE_ROWS);
    for (int type = 0; type < QWEN3_KV_TYPES; type++) {
        const char *name = qwen3_dtype_name((qwen3_dtype)type);
        if (flops.object)
            read_numbers(&flops, name, m->attention_flops[type], 2);
        if (bytes.object && json_value_of(&bytes, name))
            m->attention_bytes[type] = read_positive(&bytes, name);
    }
    m->row_values = read_positive(root, "row_values");
    m->barrier = read_positive(root, "barrier");
    read_link(&inside, &m->inside);
    read_link(&across, &m->across);
}

qwen3_status qwen3_machine_read(const char *path, qwen3_machine *machine, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    json_t *root = NULL;
    if (missing(path, "path", err) || missing(machine, "machine", err))
        return err->status;
    const qwen3_machine assumed = qwen3_machine_default();
    *machine = (qwen3_machine){.inside = assumed.inside, .across = assumed.across};
    if (json_file_load(path, &root, err))
        return err->status;
    read_machine(&(json_section){path, "", root, err}, machine);
    json_decref(root);
    return err->status;
}

/* ---- Checking ---------------------------------------------------------------------------------- */

/* Of n numbers, how many are rates or times. */
static size_t count_positive(const double *values, size_t n)
{
    size_t positive = 0;
    for (size_t i = 0; i < n; i++)
        positive += isfinite(values[i]) && values[i] > 0;
    return positive;
}

/* All rates of a type are known, or none: then they are 0. */
static bool all_or_none(const double *values, size_t n)
{
    bool none = true;
    for (size_t i = 0; i < n; i++)
        none &= values[i] == 0;
    return none || count_positive(values, n) == n;
}

static bool rates_right(const qwen3_machine *m)
{
    bool right = true;
    for (int type = 0; type < QWEN3_WEIGHT_TYPES; type++)
        right &= all_or_none(m->product_values[type], QWEN3_MACHINE_ROWS);
    for (int type = 0; type < QWEN3_KV_TYPES; type++)
        right &= all_or_none(m->attention_flops[type], 2) && all_or_none(&m->attention_bytes[type], 1);
    return right;
}

qwen3_status machine_check(const qwen3_machine *m, qwen3_error *err)
{
    const double others[] = {
        m->row_values,     m->barrier,        m->inside.latency,          m->inside.message,
        m->across.latency, m->across.message, m->inside.bytes_per_second, m->across.bytes_per_second};
    if (m->nodes < 1 || m->nodes > MACHINE_MOST_RANKS || m->ranks_per_node < 1 ||
        m->ranks_per_node > MACHINE_MOST_RANKS || m->threads < 1 || m->threads > MACHINE_MOST_RANKS)
        return fail(err, QWEN3_ERR_ARGUMENT, "machine: %d nodes, %d ranks_per_node, %d threads; expected 1 to %d each",
                    m->nodes, m->ranks_per_node, m->threads, MACHINE_MOST_RANKS);
    if ((unsigned)m->isa >= ISA_COUNT)
        return fail(err, QWEN3_ERR_ARGUMENT, "machine: isa %d is unknown", (int)m->isa);
    if (!rates_right(m))
        return fail(err, QWEN3_ERR_ARGUMENT, "machine: expected all rates of a type, positive and finite, or none");
    if (count_positive(others, sizeof others / sizeof *others) < sizeof others / sizeof *others)
        return fail(err, QWEN3_ERR_ARGUMENT,
                    "machine: row_values, barrier, inside and across: expected positive, finite numbers");
    return QWEN3_OK;
}

/* ---- Writing ----------------------------------------------------------------------------------- */

/* NULL, as for Jansson's own functions: out of memory. */
static json_t *numbers(const double *values, size_t n)
{
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++)
        if (json_array_append_new(array, json_real(values[i])) != 0) {
            json_decref(array);
            return NULL;
        }
    return array;
}

static json_t *link_object(const qwen3_link *link)
{
    return json_pack("{s:f, s:f, s:f}", "latency", link->latency, "message", link->message, "bytes_per_second",
                     link->bytes_per_second);
}

qwen3_status qwen3_machine_write(const char *path, const qwen3_machine *m, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(path, "path", err) || missing(m, "machine", err) || machine_check(m, err))
        return err->status;
    json_t *products = json_object(), *flops = json_object(), *bytes = json_object();
    int lost = 0;
    for (int type = 0; type < QWEN3_WEIGHT_TYPES; type++)
        if (m->product_values[type][0] > 0)
            lost |= json_object_set_new(products, qwen3_dtype_name((qwen3_dtype)type),
                                        numbers(m->product_values[type], QWEN3_MACHINE_ROWS));
    for (int type = 0; type < QWEN3_KV_TYPES; type++) {
        const char *name = qwen3_dtype_name((qwen3_dtype)type);
        if (m->attention_flops[type][0] > 0)
            lost |= json_object_set_new(flops, name, numbers(m->attention_flops[type], 2));
        if (m->attention_bytes[type] > 0)
            lost |= json_object_set_new(bytes, name, json_real(m->attention_bytes[type]));
    }
    json_t *root =
        json_pack("{s:i, s:i, s:i, s:s, s:o, s:o, s:o, s:f, s:f, s:o, s:o}", "nodes", m->nodes, "ranks_per_node",
                  m->ranks_per_node, "threads", m->threads, "isa", qwen3_isa_name(m->isa), "product_values", products,
                  "attention_flops", flops, "attention_bytes", bytes, "row_values", m->row_values, "barrier",
                  m->barrier, "inside", link_object(&m->inside), "across", link_object(&m->across));
    if (!root || lost) {
        json_decref(root);
        return fail(err, QWEN3_ERR_MEMORY, "%s: no memory for JSON", path);
    }
    errno = 0;
    const int failed = json_dump_file(root, path, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    json_decref(root);
    if (failed)
        return fail(err, QWEN3_ERR_IO, "%s: cannot write: %s", path, errno ? strerror(errno) : "write error");
    return QWEN3_OK;
}
