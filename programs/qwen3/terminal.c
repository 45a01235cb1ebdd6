/* terminal.c - see terminal.h. */
#include "terminal.h"

#include <fcntl.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include "common/signals.h"
#include "launcher.h"

/* The terminal whose modes are changed, and its modes before; fd -1 = there is none. */
static struct {
    int fd;
    bool forwarded;
    struct termios modes;
} found = {.fd = -1};

/* If the process is now in the background, the terminal has the modes of another process. */
static void restore(int when)
{
    if (found.fd >= 0 && (found.forwarded || tcgetpgrp(found.fd) == getpgrp()))
        tcsetattr(found.fd, when, &found.modes);
    found.fd = -1;
}

/* A launcher that ends a job terminates its ranks. */
static void restore_now(void)
{
    restore(TCSANOW);
}

/* To be gone back from by restore, or when a signal ends the process. */
static void change(int fd, bool forwarded, const struct termios *from, const struct termios *to)
{
    found.modes = *from;
    found.forwarded = forwarded;
    found.fd = fd;
    signals_undo(restore_now);
    tcsetattr(fd, TCSANOW, to);
}

void terminal_keep_output(void)
{
    struct termios modes;
    const int fd = STDOUT_FILENO;
    if (found.fd >= 0 || tcgetpgrp(fd) != getpgrp() || tcgetattr(fd, &modes) != 0)
        return;
    struct termios keeping = modes;
    keeping.c_lflag |= NOFLSH;
    change(fd, false, &modes, &keeping);
}

void terminal_keep_output_end(void)
{
    if (!found.forwarded)
        restore(TCSADRAIN);
}

static bool open_forwarded(terminal *t, pid_t launcher)
{
    int fd = launcher_open_terminal(launcher);
    if (fd < 0)
        return false;
    /* A rank is in the background of its launcher's terminal and changes its modes nevertheless. */
    signal(SIGTTOU, SIG_IGN);
    int copy = dup(fd);
    *t = (terminal){.modes = fdopen(fd, "r"), .out = fdopen(copy, "w"), .keys = STDIN_FILENO, .forwarded = true};
    struct termios modes;
    if (t->modes && t->out && tcgetattr(fd, &modes) == 0) {
        struct termios uninterrupted = modes;
        uninterrupted.c_cc[VINTR] = _POSIX_VDISABLE;
        change(fd, true, &modes, &uninterrupted);
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
    if (t->forwarded && found.forwarded)
        restore(TCSADRAIN);
    if (t->forwarded && t->modes)
        fclose(t->modes);
    if (t->forwarded && t->out)
        fclose(t->out);
    *t = (terminal){0};
}
