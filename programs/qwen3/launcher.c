/* launcher.c - see launcher.h. */
#include "launcher.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* There are no longer chains of processes between launcher and rank. */
enum { MAX_ANCESTORS = 8 };

typedef struct process {
    char name[32];
    int parent, group, foreground; /* the foreground process group of its terminal */
} process;

static bool read_process(pid_t pid, process *p)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    size_t n = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[n] = '\0';
    /* proc(5): pid (name) state parent group session terminal foreground; a name may hold parentheses */
    char *open = strchr(line, '('), *close = strrchr(line, ')');
    if (!open || !close || sscanf(close + 1, " %*c %d %d %*d %*d %d", &p->parent, &p->group, &p->foreground) != 3)
        return false;
    *close = '\0';
    snprintf(p->name, sizeof p->name, "%.31s", open + 1);
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
    pid_t pid = getppid();
    process p;
    for (int i = 0; i < MAX_ANCESTORS && pid > 1 && read_process(pid, &p); i++, pid = p.parent)
        if (is_launcher(p.name))
            return pid;
    return 0;
}

static void descriptor_path(pid_t launcher, int fd, char path[64])
{
    snprintf(path, 64, "/proc/%d/fd/%d", (int)launcher, fd);
}

bool launcher_has_terminal(pid_t launcher, int fd)
{
    char path[64];
    struct stat status;
    descriptor_path(launcher, fd, path);
    if (stat(path, &status) != 0 || !S_ISCHR(status.st_mode))
        return false;
    /* Documentation/admin-guide/devices.txt: 4 and 5 are terminals, 136 to 143 pseudo-terminals. */
    unsigned kind = major(status.st_rdev);
    return kind == 4 || kind == 5 || (kind >= 136 && kind <= 143);
}

int launcher_open_terminal(pid_t launcher)
{
    char path[64];
    process p;
    if (!launcher_has_terminal(launcher, STDIN_FILENO) || !launcher_has_terminal(launcher, STDOUT_FILENO) ||
        !read_process(launcher, &p) || p.group != p.foreground)
        return -1;
    descriptor_path(launcher, STDIN_FILENO, path);
    return open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
}
