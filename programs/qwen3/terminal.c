/* terminal.c - see terminal.h. */
#include "terminal.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "launcher.h"

static bool open_streams(terminal *t, int fd)
{
    int copy = dup(fd);
    t->in = fdopen(fd, "r");
    t->out = copy >= 0 ? fdopen(copy, "w") : NULL;
    if (t->in && t->out)
        return true;
    terminal_close(t);
    return false;
}

/* The launcher must own the terminal at this moment: one that was put in the background has not got it to give. */
static bool take(int fd, pid_t launcher, pid_t *owner)
{
    *owner = tcgetpgrp(fd);
    if (*owner < 0 || *owner != getpgid(launcher) || getsid(launcher) != getsid(0))
        return false;
    if (getpgrp() == *owner && setpgid(0, 0) != 0)
        return false;
    /* From the background tcsetpgrp is a reason for SIGTTOU. Ctrl-Z would stop this rank and no other. */
    signal(SIGTTOU, SIG_IGN);
    signal(SIGTSTP, SIG_IGN);
    if (tcsetpgrp(fd, getpgrp()) != 0)
        return false;
    /* Open MPI's mpirun looks at SIGCONT whether it is in the background, and reads no more if so. */
    kill(launcher, SIGCONT);
    return true;
}

bool terminal_open(terminal *t)
{
    *t = (terminal){0};
    pid_t launcher = launcher_find();
    if (!launcher) {
        t->in = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) ? stdin : NULL;
        t->out = t->in ? stdout : NULL;
        return t->in != NULL;
    }
    if (!launcher_has_terminal(launcher, STDIN_FILENO) || !launcher_has_terminal(launcher, STDOUT_FILENO))
        return false;
    int fd = open("/dev/tty", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    pid_t owner;
    if (!take(fd, launcher, &owner)) {
        close(fd);
        return false;
    }
    t->owner = owner;
    return open_streams(t, fd);
}

void terminal_close(terminal *t)
{
    if (t->owner && t->in)
        tcsetpgrp(fileno(t->in), t->owner);
    if (t->in && t->in != stdin)
        fclose(t->in);
    if (t->out && t->out != stdout)
        fclose(t->out);
    *t = (terminal){0};
}
