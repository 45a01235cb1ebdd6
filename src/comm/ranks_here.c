/* ranks_here.c - which ranks of the job are on this host, from /proc, for a program that waits for others in vain.
 *
 * A process belongs to the job if the launcher gave it a rank and it descends from the launcher's process on this host:
 * the nearest ancestor of this process that has no rank itself. */
#include <ctype.h>
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"
#include "comm/launcher.h"
#include "comm/rank_list.h"

#define PROGRAM_MAX 4096 /* bytes of a path */
enum { MAX_ANCESTORS = 32 };

typedef struct process {
    char name[32];
    char state; /* as in proc(5): 'T' is stopped */
    int parent;
} process;

static bool read_process(int pid, process *p)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    line[fread(line, 1, sizeof line - 1, file)] = '\0';
    fclose(file);
    /* pid (name) state parent ...; a name may hold parentheses */
    char *open = strchr(line, '('), *close = strrchr(line, ')');
    if (!open || !close || sscanf(close + 1, " %c %d", &p->state, &p->parent) != 2)
        return false;
    *close = '\0';
    snprintf(p->name, sizeof p->name, "%.31s", open + 1);
    return true;
}

/* The rank that a process was given; -1 if none, or if its environment cannot be read. */
static int rank_of(int pid, const launcher *l)
{
    char path[64], *line = NULL;
    size_t room = 0;
    const size_t length = strlen(l->rank_variable);
    int rank = -1;
    snprintf(path, sizeof path, "/proc/%d/environ", pid);
    FILE *file = fopen(path, "r");
    while (file && rank < 0 && getdelim(&line, &room, '\0', file) > 0)
        if (strncmp(line, l->rank_variable, length) == 0 && line[length] == '=')
            rank = atoi(line + length + 1);
    free(line);
    if (file)
        fclose(file);
    return rank;
}

static void read_program(int pid, char program[PROGRAM_MAX])
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    const ssize_t n = readlink(path, program, PROGRAM_MAX - 1);
    program[n > 0 ? n : 0] = '\0';
}

static int find_agent(const launcher *l)
{
    process p;
    int pid = (int)getppid();
    for (int i = 0; i < MAX_ANCESTORS && rank_of(pid, l) >= 0 && read_process(pid, &p); i++)
        pid = p.parent;
    return pid;
}

static bool descends_from(int pid, int ancestor)
{
    process p;
    for (int i = 0; i < MAX_ANCESTORS && pid > 1 && read_process(pid, &p); i++) {
        pid = p.parent;
        if (pid == ancestor)
            return true;
    }
    return false;
}

/* What is known of a rank. */
typedef struct seen_rank {
    bool started, here; /* it has a process; one that runs this program */
    process process;    /* this one, otherwise the youngest */
} seen_rank;

typedef struct job {
    const launcher *launcher;
    int ranks, ranks_on_node; /* -1: the launcher does not say how many are on the node */
    seen_rank *seen;          /* [ranks] */
} job;

/* Looks at all processes of the host. */
static void look(job *j)
{
    char own[PROGRAM_MAX], program[PROGRAM_MAX];
    const int agent = find_agent(j->launcher);
    read_program((int)getpid(), own);
    DIR *list = opendir("/proc");
    for (struct dirent *entry; list && (entry = readdir(list));) {
        const int pid = isdigit((unsigned char)entry->d_name[0]) ? atoi(entry->d_name) : 0;
        const int rank = pid ? rank_of(pid, j->launcher) : -1;
        process p;
        if (rank < 0 || rank >= j->ranks || !read_process(pid, &p) || !descends_from(pid, agent))
            continue;
        seen_rank *r = &j->seen[rank];
        read_program(pid, program);
        r->started = true;
        if (!r->here)
            r->process = p;
        r->here |= strcmp(program, own) == 0;
    }
    if (list)
        closedir(list);
}

typedef struct text {
    char *at;
    size_t room;
} text;

static void append(text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void append(text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(t->at, t->room, format, args);
    va_end(args);
    const size_t used = n < 0 ? 0 : (size_t)n < t->room ? (size_t)n : t->room - (t->room > 0);
    t->at += used;
    t->room -= used;
}

/* "rank 0 of 3 is on vm; rank 1 runs "sleep" there; rank 2 has ended or was not started" */
static void describe(const job *j, const bool *here, const char *host, text *t)
{
    char list[128];
    int started = 0, present = 0;
    for (int r = 0; r < j->ranks; r++) {
        started += j->seen[r].started;
        present += here[r];
    }
    rank_list(here, j->ranks, list, sizeof list);
    append(t, "rank%s %s of %d %s on %s", present == 1 ? "" : "s", list, j->ranks, present == 1 ? "is" : "are", host);
    for (int r = 0; r < j->ranks; r++) {
        const process *p = &j->seen[r].process;
        if (j->seen[r].started && p->state == 'T')
            append(t, "; rank %d is stopped", r);
        else if (j->seen[r].started && !here[r])
            append(t, "; rank %d runs \"%s\"", r, p->name);
        else if (!j->seen[r].started && j->ranks_on_node == j->ranks)
            append(t, "; rank %d has ended or was not started", r);
    }
    if (started < j->ranks_on_node && j->ranks_on_node < j->ranks)
        append(t, "; %d more %s started there and ended", j->ranks_on_node - started,
               j->ranks_on_node - started == 1 ? "was" : "were");
}

bool qwen3_ranks_here(char *buffer, size_t size)
{
    job j = {.launcher = launcher_find()};
    char host[64] = "this host", none[1];
    text t = {buffer ? buffer : none, buffer ? size : sizeof none};
    gethostname(host, sizeof host - 1);
    if (!j.launcher) {
        append(&t, "no launcher is known to have started this process on %s", host);
        return true;
    }
    const int own = launcher_value(j.launcher->rank_variable);
    j.ranks = launcher_value(j.launcher->size_variable);
    j.ranks_on_node = launcher_value(j.launcher->node_size_variable);
    j.seen = calloc((size_t)j.ranks, sizeof *j.seen);
    bool *here = calloc((size_t)j.ranks, sizeof *here), first = true;
    if (j.seen && here && own >= 0 && own < j.ranks) {
        look(&j);
        j.seen[own].here = true; /* even without /proc */
        for (int r = 0; r < j.ranks; r++)
            here[r] = j.seen[r].here;
        for (int r = 0; r < own; r++)
            first &= !here[r];
        describe(&j, here, host, &t);
    } else {
        append(&t, "rank %d is on %s", own, host);
    }
    free(j.seen);
    free(here);
    return first;
}
