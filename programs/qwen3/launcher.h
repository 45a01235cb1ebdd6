/* launcher.h - finds the MPI launcher that started this process, through /proc, and what its standard files are: a
 * rank's own are pipes or pseudo-terminals of the launcher's, whatever these carry at its other end. */
#ifndef LAUNCHER_H
#define LAUNCHER_H

#include <stdbool.h>
#include <sys/types.h>

/* The nearest ancestor with the name of a launcher; 0 where there is none, as on the other nodes of a job. */
pid_t launcher_find(void);
/* Whether its file descriptor `fd` is a terminal. */
bool launcher_has_terminal(pid_t launcher, int fd);
/* Opens its terminal, which is not to become that of this process; -1 where input and output are not both at one, or
 * it is in the background there. */
int launcher_open_terminal(pid_t launcher);

#endif
