/* spin.h - waiting for another thread or process without yielding the CPU. */
#ifndef QWEN3_BASE_SPIN_H
#define QWEN3_BASE_SPIN_H

/* A hint to the core: this is a loop that waits. */
static inline void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
