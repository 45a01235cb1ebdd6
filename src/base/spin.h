/* spin.h - waiting for another thread or process without giving the CPU away. */
#ifndef QWEN3_BASE_SPIN_H
#define QWEN3_BASE_SPIN_H

/* Tells the core that this is a loop that waits. */
static inline void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
