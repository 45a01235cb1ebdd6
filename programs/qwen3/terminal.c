/* terminal.c - see terminal.h. */
#include "terminal.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "launcher.h"

/* For the handler: a launcher that ends a job terminates its ranks. */
static const terminal *to_restore;
static int to_restore_fd;

static void restore(int number)
{
    if (to_restore)
        tcsetattr(to_restore_fd, TCSANOW, &to_restore->found);
    signal(number, SIG_DFL);
    raise(number);
}

static void keep_from_interrupting(terminal *t)
{
    struct termios modes = t->found;
    modes.c_cc[VINTR] = _POSIX_VDISABLE;
    tcsetattr(fileno(t->modes), TCSANOW, &modes);
    to_restore_fd = fileno(t->modes);
    to_restore = t;
    signal(SIGTERM, restore);
}

static bool open_forwarded(terminal *t, pid_t launcher)
{
    int fd = launcher_open_terminal(launcher);
    if (fd < 0)
        return false;
    /* A rank is in the background of its launcher's terminal, and means it. */
    signal(SIGTTOU, SIG_IGN);
    int copy = dup(fd);
    *t = (terminal){.modes = fdopen(fd, "r"), .out = fdopen(copy, "w"), .keys = STDIN_FILENO, .forwarded = true};
    if (t->modes && t->out && tcgetattr(fd, &t->found) == 0) {
        keep_from_interrupting(t);
        return true;
    }
    terminal_close(t);
    return false;
}

bool terminal_open(terminal *t)
{
    *t = (terminal){0};
    pid_t launcher = launcher_find();
    if (launcher)
        return open_forwarded(t, launcher);
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        return false;
    *t = (terminal){.modes = stdin, .out = stdout, .keys = STDIN_FILENO};
    return true;
}

void terminal_close(terminal *t)
{
    if (to_restore == t) {
        tcsetattr(fileno(t->modes), TCSADRAIN, &t->found);
        to_restore = NULL;
    }
    if (t->forwarded && t->modes)
        fclose(t->modes);
    if (t->forwarded && t->out)
        fclose(t->out);
    *t = (terminal){0};
}
