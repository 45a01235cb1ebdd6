/* launcher.h - what launchers tell the processes that they start, in environment variables. */
#ifndef QWEN3_COMM_LAUNCHER_H
#define QWEN3_COMM_LAUNCHER_H

typedef struct launcher {
    const char *size_variable, *rank_variable; /* of the job */
    const char *node_size_variable;            /* ranks on this node; NULL: the launcher does not say */
} launcher;

/* By the launcher that started this process; NULL where none did. */
const launcher *launcher_find(void);
/* The value of a variable of this process; -1 where it is not set. */
int launcher_value(const char *variable);

#endif
