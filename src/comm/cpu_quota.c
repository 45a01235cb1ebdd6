/* cpu_quota.c - see cpu_quota.h. */
#include "comm/cpu_quota.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH_BYTES = PATH_MAX, LINE_BYTES = 2 * PATH_MAX };

/* A hierarchy of cgroups as this process sees it. */
typedef struct hierarchy {
    int version;            /* 1: that of the controller "cpu", 2: the unified one */
    char group[PATH_BYTES]; /* of this process, in the hierarchy; "" if it is in none */
    char mount[PATH_BYTES]; /* directory of the mounted part; "" if none holds the group */
    size_t skip;            /* leading bytes of group that are above the mounted part */
} hierarchy;

/* Whether a comma-separated list has the word. */
static bool list_has(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (; list; list = strchr(list, ','), list += list != NULL)
        if (strncmp(list, word, n) == 0 && (list[n] == ',' || list[n] == '\0'))
            return true;
    return false;
}

static FILE *open_below(const char *root, const char *path)
{
    char name[PATH_BYTES];
    return snprintf(name, sizeof name, "%s%s", root, path) < (int)sizeof name ? fopen(name, "r") : NULL;
}

/* cgroups(7), /proc/pid/cgroup: "hierarchy:controllers:path", the unified hierarchy being number 0 without any. */
static void find_group(const char *root, hierarchy *h)
{
    char line[LINE_BYTES];
    FILE *file = open_below(root, "/proc/self/cgroup");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *controllers++ = *path++ = '\0';
        if (h->version == 2 ? strcmp(line, "0") == 0 && !*controllers : list_has(controllers, "cpu"))
            snprintf(h->group, sizeof h->group, "%.*s", PATH_BYTES - 1, path);
    }
    if (file)
        fclose(file);
}

/* Decodes "\040" for a space and the like, in place. */
static void decode_octal(char *text)
{
    char *out = text;
    for (; *text; text++) {
        unsigned value;
        if (*text == '\\' && sscanf(text + 1, "%3o", &value) == 1) {
            *out++ = (char)value;
            text += 3;
        } else {
            *out++ = *text;
        }
    }
    *out = '\0';
}

/* Bytes of `group` that name the directory `top` or one above it; -1 if the group is not inside it. */
static int bytes_above(const char *group, const char *top)
{
    size_t n = strcmp(top, "/") == 0 ? 0 : strlen(top);
    return strncmp(group, top, n) == 0 && (group[n] == '/' || group[n] == '\0') ? (int)n : -1;
}

/* proc(5), /proc/pid/mountinfo: "id parent device top mount-point options [field...] - type source super-options",
 * `top` being the directory of the file system that is mounted. */
static void find_mount(const char *root, hierarchy *h)
{
    char line[LINE_BYTES], top[PATH_BYTES], mount[PATH_BYTES], type[16], options[512];
    FILE *file = open_below(root, "/proc/self/mountinfo");
    while (file && !h->mount[0] && fgets(line, sizeof line, file)) {
        const char *end = strstr(line, " - ");
        if (!end || sscanf(line, "%*s %*s %*s %4095s %4095s", top, mount) != 2 ||
            sscanf(end, " - %15s %*s %511s", type, options) != 2)
            continue;
        if (h->version == 2 ? strcmp(type, "cgroup2") != 0 : strcmp(type, "cgroup") != 0 || !list_has(options, "cpu"))
            continue;
        decode_octal(top);
        decode_octal(mount);
        int above = bytes_above(h->group, top);
        if (above < 0)
            continue;
        h->skip = (size_t)above;
        snprintf(h->mount, sizeof h->mount, "%s", mount);
    }
    if (file)
        fclose(file);
}

/* Reads n positive numbers; false where there is no such file, or a word or -1, which mean no limit. */
static bool read_numbers(const char *directory, const char *name, int n, double *numbers)
{
    char path[PATH_BYTES + 32], text[64] = "", *at = text;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    bool got = fgets(text, sizeof text, file) != NULL;
    fclose(file);
    for (int i = 0; i < n && got; i++) {
        char *end;
        numbers[i] = strtod(at, &end);
        got = end != at && numbers[i] > 0;
        at = end;
    }
    return got;
}

static void add_quota(const char *directory, int version, cpu_quotas *quotas)
{
    double time[2]; /* microseconds of CPU time in a period of so many microseconds */
    struct stat status;
    bool limited = version == 2 ? read_numbers(directory, "cpu.max", 2, time)
                                : read_numbers(directory, "cpu.cfs_quota_us", 1, time) &&
                                      read_numbers(directory, "cpu.cfs_period_us", 1, time + 1);
    if (limited && quotas->n < CPU_QUOTAS_MAX && stat(directory, &status) == 0)
        quotas->groups[quotas->n++] = (cpu_quota){status.st_dev, status.st_ino, time[0] / time[1]};
}

/* From the group itself up to the root of what is mounted: each of them limits. */
static void read_hierarchy(const char *root, int version, cpu_quotas *quotas)
{
    hierarchy h = {.version = version};
    char directory[PATH_BYTES];
    find_group(root, &h);
    if (h.group[0])
        find_mount(root, &h);
    if (!h.mount[0])
        return;
    const char *below = strcmp(h.group + h.skip, "/") == 0 ? "" : h.group + h.skip;
    size_t top = strlen(root) + strlen(h.mount);
    int length = snprintf(directory, sizeof directory, "%s%s%s", root, h.mount, below);
    if (length >= (int)sizeof directory)
        return;
    for (char *end = directory + length; end; end = strrchr(directory + top, '/')) {
        *end = '\0';
        add_quota(directory, version, quotas);
    }
}

void cpu_quotas_read(const char *root, cpu_quotas *quotas)
{
    *quotas = (cpu_quotas){0};
    read_hierarchy(root, 1, quotas);
    read_hierarchy(root, 2, quotas);
}

static bool same_group(const cpu_quota *a, const cpu_quota *b)
{
    return a->device == b->device && a->inode == b->inode;
}

double cpu_quota_share(const cpu_quotas *quotas, size_t n, size_t self)
{
    double share = 0;
    const cpu_quotas *own = &quotas[self];
    for (int g = 0; g < own->n; g++) {
        int members = 0;
        for (size_t i = 0; i < n; i++)
            for (int k = 0; k < quotas[i].n; k++)
                members += same_group(&own->groups[g], &quotas[i].groups[k]);
        double part = own->groups[g].cpus / members;
        share = g == 0 || part < share ? part : share;
    }
    return share;
}
