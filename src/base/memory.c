/* memory.c - large buffers from the kernel, on huge pages if it grants them; smaller ones from the C library. How much
 * memory there is: the smaller of what the machine has and what the control groups of this process allow. */
#include "base/memory.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1; older C libraries do not name it, older kernels refuse it */
#endif
#define COLLAPSE_ATTEMPTS 20

/* The value of "KEY NUMBER" (or "KEY: NUMBER") in a kernel table, 0 if it is not there. */
static uint64_t table_value(const char *path, const char *key)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    char line[256];
    uint64_t value = 0;
    size_t length = strlen(key);
    while (fgets(line, sizeof line, file)) {
        if (strncmp(line, key, length) == 0 && (line[length] == ' ' || line[length] == ':')) {
            value = strtoull(line + length + 1, NULL, 10);
            break;
        }
    }
    fclose(file);
    return value;
}

/* A file that holds one number; "max" and a missing file are UINT64_MAX. */
static uint64_t file_value(const char *path)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return UINT64_MAX;
    char line[32], *end = line;
    uint64_t value = fgets(line, sizeof line, file) ? strtoull(line, &end, 10) : 0;
    fclose(file);
    return end > line ? value : UINT64_MAX;
}

/* The names of the same files and values in the two versions of Linux control groups. */
typedef struct cgroup_version {
    const char *mount, *limit, *usage, *active_file, *inactive_file;
} cgroup_version;

static const cgroup_version cgroup_versions[] = {
    {"/sys/fs/cgroup", "memory.max", "memory.current", "active_file", "inactive_file"},
    {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_active_file",
     "total_inactive_file"},
};

/* Lowers *total and *available to what a control group and its ancestors allow. Their usage includes page cache, which
 * is freed under pressure. */
static void cgroup_lower(const cgroup_version *version, const char *group, uint64_t *total, uint64_t *available)
{
    char dir[PATH_MAX], path[PATH_MAX + 32];
    int length = snprintf(dir, sizeof dir, "%s%s", version->mount, strcmp(group, "/") == 0 ? "" : group);
    if (length < 0 || (size_t)length >= sizeof dir)
        return;
    while (strlen(dir) >= strlen(version->mount)) {
        snprintf(path, sizeof path, "%s/%s", dir, version->limit);
        uint64_t limit = file_value(path);
        if (limit != UINT64_MAX) {
            snprintf(path, sizeof path, "%s/%s", dir, version->usage);
            uint64_t used = file_value(path);
            snprintf(path, sizeof path, "%s/memory.stat", dir);
            uint64_t cache = table_value(path, version->active_file) + table_value(path, version->inactive_file);
            used = used == UINT64_MAX || used < cache ? 0 : used - cache;
            uint64_t left = limit > used ? limit - used : 0;
            *total = limit < *total ? limit : *total;
            *available = left < *available ? left : *available;
        }
        *strrchr(dir, '/') = '\0';
    }
}

/* Lines of /proc/self/cgroup: "0::GROUP" in version 2, "N:CONTROLLERS:GROUP" in version 1. */
static void cgroup_limits(uint64_t *total, uint64_t *available)
{
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (!file)
        return;
    char line[PATH_MAX + 128];
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        controllers++;
        if (*controllers == '\0')
            cgroup_lower(&cgroup_versions[0], group, total, available);
        else if (strcmp(controllers, "memory") == 0)
            cgroup_lower(&cgroup_versions[1], group, total, available);
    }
    fclose(file);
}

static void memory_limits(size_t *total, size_t *available)
{
    uint64_t all = table_value("/proc/meminfo", "MemTotal") * 1024;
    uint64_t now = table_value("/proc/meminfo", "MemAvailable") * 1024;
    struct sysinfo system;
    if (all == 0 && sysinfo(&system) == 0) { /* without /proc; page cache, which would be freed, is not counted */
        all = (uint64_t)system.totalram * system.mem_unit;
        now = ((uint64_t)system.freeram + system.bufferram) * system.mem_unit;
    }
    cgroup_limits(&all, &now);
    *total = (size_t)all;
    *available = (size_t)now;
}

size_t memory_total(void)
{
    size_t total, available;
    memory_limits(&total, &available);
    return total;
}

size_t memory_available(void)
{
    size_t total, available;
    memory_limits(&total, &available);
    return available;
}

void *memory_map(size_t bytes, int fd)
{
    const size_t whole = round_up(bytes, HUGE_PAGE), padded = whole + HUGE_PAGE;
    unsigned char *base = mmap(NULL, padded, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    const size_t head = round_up((uintptr_t)base, HUGE_PAGE) - (uintptr_t)base;
    if (head > 0)
        munmap(base, head);
    if (HUGE_PAGE - head > 0)
        munmap(base + head + whole, HUGE_PAGE - head);
    const int kind = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    if (mmap(base + head, whole, PROT_READ | PROT_WRITE, kind | MAP_FIXED, fd, 0) == MAP_FAILED) {
        memory_unmap(base + head, bytes);
        return NULL;
    }
    madvise(base + head, whole, MADV_HUGEPAGE); /* advice only: ordinary pages will do */
    return base + head;
}

void memory_unmap(void *p, size_t bytes)
{
    if (p)
        munmap(p, round_up(bytes, HUGE_PAGE));
}

void memory_collapse(const void *p, size_t bytes)
{
    const volatile unsigned char *begin = (const unsigned char *)round_up((uintptr_t)p, HUGE_PAGE);
    const unsigned char *last = (const unsigned char *)p + bytes;
    if (begin >= last)
        return;
    for (const volatile unsigned char *page = begin; page < last; page += HUGE_PAGE)
        (void)*page; /* a page must be there before it can grow */
    /* Passes over pages that are on their way to the kernel's lists, as all are that somebody has just touched, and
     * over those that are huge already. */
    const size_t whole = round_up((uintptr_t)last - (uintptr_t)begin, HUGE_PAGE);
    for (int i = 0; i < COLLAPSE_ATTEMPTS; i++)
        if (madvise((void *)(uintptr_t)begin, whole, MADV_COLLAPSE) == 0 || errno != EAGAIN)
            return;
}

qwen3_status memory_alloc(void **out, size_t bytes, const char *what, qwen3_error *err)
{
    *out = NULL;
    if (bytes == 0)
        return QWEN3_OK;
    if (bytes < HUGE_PAGE) {
        *out = aligned_alloc(CACHE_LINE, round_up(bytes, CACHE_LINE));
        if (!*out)
            return fail(err, QWEN3_ERR_MEMORY, "%s: cannot allocate %zu bytes", what, bytes);
        memset(*out, 0, bytes);
        return QWEN3_OK;
    }
    size_t available = memory_available();
    if (bytes > available)
        return fail(err, QWEN3_ERR_MEMORY, "%s: needs %.1f MiB of memory, only %.1f MiB are available of %.1f MiB",
                    what, (double)bytes / 1048576, (double)available / 1048576, (double)memory_total() / 1048576);
    *out = memory_map(bytes, -1);
    if (!*out)
        return fail(err, QWEN3_ERR_MEMORY, "%s: the system refuses %.1f MiB of memory", what, (double)bytes / 1048576);
    return QWEN3_OK;
}

void memory_free(void *p, size_t bytes)
{
    if (bytes < HUGE_PAGE)
        free(p);
    else
        memory_unmap(p, bytes);
}
