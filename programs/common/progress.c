/* progress.c - see progress.h. */
#include "common/progress.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/statistics.h"

enum { BAR = 24 };          /* columns */
#define FIRST_SECONDS 1.0   /* before the first line */
#define BETWEEN_SECONDS 0.2 /* two lines */

progress progress_begin(const char *what, const char *unit, double total)
{
    const char *type = getenv("TERM");
    const bool erases = type && *type && strcmp(type, "dumb") != 0 && isatty(STDERR_FILENO);
    const double now = seconds_now();
    return (progress){.out = erases ? stderr : NULL, .what = what, .unit = unit, .total = total, .begin = now};
}

void progress_update(progress *p, double done)
{
    const double now = seconds_now(), seconds = now - p->begin;
    if (!p->out || seconds < FIRST_SECONDS || now - p->shown < BETWEEN_SECONDS)
        return;
    char bar[BAR + 1] = "";
    const double part = p->total > 0 && done < p->total ? done / p->total : 1;
    const double rate = done / seconds;
    memset(bar, '-', BAR);
    memset(bar, '#', (size_t)(part * BAR));
    fprintf(p->out, "\r%s [%s] %.0f %%: %.0f of %.0f %s, %.1f %s/s", p->what, bar, 100 * part, done, p->total, p->unit,
            rate, p->unit);
    if (rate > 0 && done < p->total)
        fprintf(p->out, ", %.0f s left", (p->total - done) / rate);
    fputs("\033[K", p->out);
    fflush(p->out);
    p->shown = now;
    p->visible = true;
}

void progress_end(progress *p)
{
    if (!p->visible)
        return;
    fputs("\r\033[K", p->out);
    fflush(p->out);
    p->visible = false;
}
