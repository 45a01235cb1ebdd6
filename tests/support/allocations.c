#include "support/allocations.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { MOST_BLOCKS = 1 << 16, PAGE = 4096 };

extern const char __executable_start; /* of the linker */

typedef struct block {
    void *data;
    size_t bytes;
    uintptr_t caller;
} block;

static struct {
    atomic_flag lock;
    uint64_t left; /* allocations until one fails, that one included; 0: none will */
    bool failed;
    uintptr_t caller; /* of the one that failed */
    block live[MOST_BLOCKS];
    size_t blocks, mapped;
} state = {.lock = ATOMIC_FLAG_INIT};

static void lock(void)
{
    while (atomic_flag_test_and_set_explicit(&state.lock, memory_order_acquire))
        ;
}

static void unlock(void)
{
    atomic_flag_clear_explicit(&state.lock, memory_order_release);
}

void allocations_fail(uint64_t n)
{
    lock();
    state.left = n;
    state.failed = false;
    unlock();
}

bool allocations_failed(uintptr_t *caller)
{
    *caller = state.caller;
    return state.failed;
}

allocations allocations_live(void)
{
    return (allocations){state.blocks, state.mapped};
}

void allocations_print(size_t known)
{
    for (size_t i = known; i < state.blocks; i++)
        fprintf(stderr, "  %zu bytes allocated at %#jx\n", state.live[i].bytes, (uintmax_t)state.live[i].caller);
}

/* Whether this allocation is the one that fails. */
static bool fails(uintptr_t caller)
{
    lock();
    bool now = state.left > 0 && --state.left == 0;
    if (now) {
        state.failed = true;
        state.caller = caller;
    }
    unlock();
    if (now)
        errno = ENOMEM;
    return now;
}

static void *add(void *data, size_t bytes, uintptr_t caller)
{
    if (!data)
        return NULL;
    lock();
    if (state.blocks == MOST_BLOCKS)
        abort();
    state.live[state.blocks++] = (block){data, bytes, caller};
    unlock();
    return data;
}

/* Blocks that came from elsewhere are not known here. Keeps the order. */
static void take_out(const void *data)
{
    lock();
    for (size_t i = data ? state.blocks : 0; i-- > 0;)
        if (state.live[i].data == data) {
            state.blocks--;
            memmove(&state.live[i], &state.live[i + 1], (state.blocks - i) * sizeof *state.live);
            break;
        }
    unlock();
}

/* ---- Replacements ------------------------------------------------------------------------------- */

#define CALLER ((uintptr_t)__builtin_return_address(0) - (uintptr_t)&__executable_start)

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
char *__real_strdup(const char *text);
void __real_free(void *p);
void *__real_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset);
int __real_munmap(void *at, size_t bytes);

void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
char *__wrap_strdup(const char *text);
int __wrap_asprintf(char **out, const char *format, ...);
int __wrap___asprintf_chk(char **out, int flag, const char *format, ...);
void __wrap_free(void *p);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset);
int __wrap_munmap(void *at, size_t bytes);

void *__wrap_malloc(size_t bytes)
{
    return fails(CALLER) ? NULL : add(__real_malloc(bytes), bytes, CALLER);
}

void *__wrap_calloc(size_t n, size_t bytes)
{
    return fails(CALLER) ? NULL : add(__real_calloc(n, bytes), n * bytes, CALLER);
}

void *__wrap_realloc(void *old, size_t bytes)
{
    if (fails(CALLER))
        return NULL;
    take_out(old);
    return add(__real_realloc(old, bytes), bytes, CALLER);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    return fails(CALLER) ? NULL : add(__real_aligned_alloc(alignment, bytes), bytes, CALLER);
}

char *__wrap_strdup(const char *text)
{
    return fails(CALLER) ? NULL : add(__real_strdup(text), strlen(text) + 1, CALLER);
}

static int print(char **out, const char *format, va_list args, uintptr_t caller)
{
    if (fails(caller))
        return -1; /* and *out is undefined */
    int length = vasprintf(out, format, args);
    if (length >= 0)
        add(*out, (size_t)length + 1, caller);
    return length;
}

int __wrap_asprintf(char **out, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = print(out, format, args, CALLER);
    va_end(args);
    return length;
}

/* The same where compilers fortify. */
int __wrap___asprintf_chk(char **out, int flag, const char *format, ...)
{
    (void)flag;
    va_list args;
    va_start(args, format);
    int length = print(out, format, args, CALLER);
    va_end(args);
    return length;
}

void __wrap_free(void *p)
{
    take_out(p);
    __real_free(p);
}

static size_t whole_pages(size_t bytes)
{
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

/* A private mapping of a file takes no memory and does not fail here. */
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset)
{
    if (flags & (MAP_ANONYMOUS | MAP_SHARED) && fails(CALLER))
        return MAP_FAILED;
    void *p = __real_mmap(at, bytes, protection, flags, file, offset);
    lock();
    state.mapped += p == MAP_FAILED || flags & MAP_FIXED ? 0 : whole_pages(bytes); /* fixed: in place of another */
    unlock();
    return p;
}

int __wrap_munmap(void *at, size_t bytes)
{
    lock();
    state.mapped -= whole_pages(bytes);
    unlock();
    return __real_munmap(at, bytes);
}

void *allocations_malloc(size_t bytes)
{
    return __wrap_malloc(bytes);
}

void allocations_free(void *p)
{
    __wrap_free(p);
}
