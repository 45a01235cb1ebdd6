/* launcher.h - finds, through /proc, the MPI launcher that started this process, and its standard files. A rank's own
 * standard files are pipes or pseudo-terminals of the launcher, which do not tell what is at the launcher's end. */
#ifndef LAUNCHER_H
#define LAUNCHER_H

#include <stdbool.h>
#include <sys/types.h>

/* The nearest ancestor with the name of a launcher; 0 if there is none, as on the other nodes of a job. */
pid_t launcher_find(void);
/* Whether its file descriptor `fd` is a terminal. */
bool launcher_has_terminal(pid_t launcher, int fd);
/* Opens its terminal, but not as the controlling terminal of this process. -1 if its input and output are not both a
 * terminal, or it is in the background there. */
int launcher_open_terminal(pid_t launcher);

#endif
