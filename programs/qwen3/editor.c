/* editor.c - see editor.h. */
#include "editor.h"

#include <errno.h>
#include <histedit.h>
#include <langinfo.h>
#include <limits.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "interrupt.h"

enum { HISTORY_LINES = 1000, POLL_MS = 200 };

/* With bracketed paste switched on, terminals put pasted text between these. */
#define PASTE_ON "\033[?2004h"
#define PASTE_OFF "\033[?2004l"
#define PASTE_BEGIN "\033[200~"
#define PASTE_END L"\033[201~"

struct editor {
    EditLine *line;
    History *history;
    const terminal *terminal;
    text_buffer ahead; /* keys that were pressed between lines */
    const char *prompt;
    bool interrupted;
};

static volatile sig_atomic_t resized;

static void take_resize(int signal)
{
    (void)signal;
    resized = 1;
}

static editor *editor_of(EditLine *line)
{
    void *e = NULL;
    el_get(line, EL_CLIENTDATA, &e);
    return e;
}

static char *get_prompt(EditLine *line)
{
    return (char *)editor_of(line)->prompt;
}

/* The next key: returns 1; 0 at the end of input; -1 with EAGAIN if none comes within the time. */
static int next_byte(editor *e, int timeout_ms, unsigned char *byte)
{
    struct pollfd keys = {.fd = e->terminal->keys, .events = POLLIN};
    if (e->ahead.n > 0) {
        *byte = (unsigned char)e->ahead.data[0];
        text_drop(&e->ahead, 1);
        return 1;
    }
    int ready = poll(&keys, 1, timeout_ms);
    if (ready > 0)
        return (int)read(keys.fd, byte, 1);
    if (ready == 0)
        errno = EAGAIN;
    return -1;
}

/* One byte, or none at the end of input and at Ctrl-C. Each wait is short: a signal may come just before it begins. */
static int read_byte(editor *e, unsigned char *byte)
{
    for (;;) {
        e->interrupted = interrupt_taken();
        if (e->interrupted)
            return -1;
        if (resized) {
            resized = 0;
            el_resize(e->line);
        }
        int got = next_byte(e, POLL_MS, byte);
        if (got > 0 && *byte == KEY_INTERRUPT) {
            e->interrupted = true;
            return -1;
        }
        if (got >= 0 || (errno != EINTR && errno != EAGAIN))
            return got;
    }
}

/* Called by libedit for the next character. Bytes that are no character become U+FFFD. */
static int read_character(EditLine *line, wchar_t *character)
{
    editor *e = editor_of(line);
    mbstate_t state = {0};
    for (;;) {
        unsigned char byte;
        int got = read_byte(e, &byte);
        if (got <= 0)
            return got;
        size_t length = mbrtowc(character, (const char *)&byte, 1, &state);
        if (length == (size_t)-2)
            continue;
        if (length == (size_t)-1)
            *character = 0xFFFD;
        return 1;
    }
}

/* Pasted text is inserted as it is: newlines do not end the line, and control keys have no effect. */
static unsigned char paste(EditLine *line, int key)
{
    static const wchar_t end[] = PASTE_END;
    editor *e = editor_of(line);
    qwen3_error err = {0};
    text_buffer text = {0};
    wchar_t character;
    size_t matched = 0;
    (void)key;
    while (end[matched] && read_character(e->line, &character) == 1) {
        char bytes[MB_LEN_MAX];
        mbstate_t state = {0};
        matched = character == end[matched] ? matched + 1 : character == end[0];
        if (character == L'\r')
            character = L'\n';
        size_t n = wcrtomb(bytes, character, &state);
        if (matched == 0 && n != (size_t)-1 && (character == L'\n' || character == L'\t' || character >= L' '))
            text_append(&text, bytes, n, &err);
    }
    bool inserted = text.n > 0 && el_insertstr(line, text.data) == 0;
    text_free(&text);
    return inserted || text.n == 0 ? CC_REFRESH : CC_ERROR;
}

/* libedit sets terminal modes for editing, for quoted keys, and between lines, where it would restore the modes that it
 * found. In none of them may keys interrupt, and between lines keys must also come at once. */
static void set_modes_forwarded(EditLine *line)
{
    el_set(line, EL_SETTY, "-d", "intr=", NULL);
    el_set(line, EL_SETTY, "-q", "intr=", NULL);
    el_set(line, EL_SETTY, "-x", "intr=", "-icanon", "-echo", NULL);
}

/* The editor works with characters of the locale. */
static void choose_locale(void)
{
    if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        setlocale(LC_CTYPE, "C.UTF-8");
}

static bool open_history(editor *e)
{
    HistEvent event;
    if (!(e->history = history_init()))
        return false;
    history(e->history, &event, H_SETSIZE, HISTORY_LINES);
    history(e->history, &event, H_SETUNIQUE, 1);
    return el_set(e->line, EL_HIST, history, e->history) == 0;
}

editor *editor_open(const terminal *t)
{
    const char *kind = getenv("TERM");
    if (!kind || !*kind || strcmp(kind, "dumb") == 0)
        return NULL;
    choose_locale();
    editor *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    e->terminal = t;
    e->line = el_init("qwen3", t->modes, t->out, stderr);
    if (!e->line || !open_history(e)) {
        editor_close(e);
        return NULL;
    }
    el_set(e->line, EL_CLIENTDATA, e);
    el_set(e->line, EL_PROMPT, get_prompt);
    el_set(e->line, EL_EDITOR, "emacs");
    el_set(e->line, EL_GETCFN, read_character);
    el_set(e->line, EL_ADDFN, "qwen3-paste", "Insert pasted text", paste);
    el_set(e->line, EL_BIND, PASTE_BEGIN, "qwen3-paste", NULL);
    if (t->forwarded)
        set_modes_forwarded(e->line);
    el_source(e->line, NULL);
    struct sigaction action = {.sa_handler = take_resize, .sa_flags = SA_RESTART};
    sigaction(SIGWINCH, &action, NULL);
    return e;
}

void editor_close(editor *e)
{
    if (!e)
        return;
    if (e->history)
        history_end(e->history);
    if (e->line)
        el_end(e->line);
    text_free(&e->ahead);
    free(e);
}

line_end editor_line(editor *e, const char *prompt, text_buffer *line, qwen3_error *err)
{
    int n = 0;
    FILE *out = e->terminal->out;
    e->prompt = prompt;
    e->interrupted = false;
    el_resize(e->line);               /* ranks behind a launcher get no SIGWINCH */
    el_set(e->line, EL_PREP_TERM, 1); /* before there is a prompt to type at */
    fputs(PASTE_ON, out);
    fflush(out);
    const char *text = el_gets(e->line, &n);
    fputs(PASTE_OFF, out);
    if (!text || n <= 0) {
        el_reset(e->line);
        fputc('\n', out);
        fflush(out);
        return e->interrupted ? LINE_INTERRUPTED : LINE_END;
    }
    fflush(out);
    return text_append(line, text, (size_t)n - (text[n - 1] == '\n'), err) == QWEN3_OK ? LINE_COMPLETE : LINE_END;
}

bool editor_interrupted(editor *e)
{
    qwen3_error err = {0};
    unsigned char byte;
    text_buffer keys = {0};
    bool interrupted = false;
    while (e->terminal->forwarded && !interrupted && next_byte(e, 0, &byte) > 0)
        interrupted = byte == KEY_INTERRUPT || text_append(&keys, (const char *)&byte, 1, &err) != QWEN3_OK;
    if (interrupted)
        text_free(&keys);
    text_free(&e->ahead);
    e->ahead = keys;
    return interrupted;
}

void editor_remember(editor *e, const char *text)
{
    HistEvent event;
    history(e->history, &event, H_ENTER, text);
}
