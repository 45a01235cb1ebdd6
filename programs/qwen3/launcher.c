/* launcher.c - see launcher.h. */
#include "launcher.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Longer chains of processes between launcher and rank do not occur. */
enum { MAX_ANCESTORS = 8 };

/* Name and parent of a process. */
static bool read_process(pid_t pid, char name[32], pid_t *parent)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    size_t n = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[n] = '\0';
    /* pid (name) state parent; a name may hold parentheses */
    char *open = strchr(line, '('), *close = strrchr(line, ')');
    int number;
    if (!open || !close || sscanf(close + 1, " %*c %d", &number) != 1)
        return false;
    *close = '\0';
    snprintf(name, 32, "%.31s", open + 1);
    *parent = number;
    return true;
}

static bool is_launcher(const char *name)
{
    static const char *const launchers[] = {"mpirun", "mpiexec", "orterun", "prterun", "srun"};
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++)
        if (strncmp(name, launchers[i], strlen(launchers[i])) == 0)
            return true;
    return false;
}

pid_t launcher_find(void)
{
    pid_t pid = getppid(), parent;
    char name[32];
    for (int i = 0; i < MAX_ANCESTORS && pid > 1 && read_process(pid, name, &parent); i++, pid = parent)
        if (is_launcher(name))
            return pid;
    return 0;
}

bool launcher_has_terminal(pid_t launcher, int fd)
{
    char path[64];
    struct stat status;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)launcher, fd);
    if (stat(path, &status) != 0 || !S_ISCHR(status.st_mode))
        return false;
    /* Documentation/admin-guide/devices.txt: 4 and 5 are terminals, 136 to 143 pseudo-terminals. */
    unsigned kind = major(status.st_rdev);
    return kind == 4 || kind == 5 || (kind >= 136 && kind <= 143);
}
