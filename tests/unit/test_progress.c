/* progress.c: nothing in the first second and nowhere but on a terminal; then a line that is erased at the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/progress.h"

static char *text;
static size_t bytes;

static progress begun(double seconds_ago)
{
    progress p = progress_begin("Prompt", "tokens", 200);
    p.out = open_memstream(&text, &bytes);
    assert_non_null(p.out);
    p.begin -= seconds_ago;
    return p;
}

static void end(progress *p)
{
    progress_end(p);
    fclose(p->out);
}

static void test_first_second(void **state)
{
    (void)state;
    progress p = begun(0.5);
    progress_update(&p, 100);
    end(&p);
    assert_string_equal(text, "");
    free(text);
}

static void test_line(void **state)
{
    (void)state;
    progress p = begun(10);
    progress_update(&p, 50);
    progress_update(&p, 60); /* too soon after it */
    p.shown -= 1;
    p.begin -= 10;
    progress_update(&p, 200);
    end(&p);
    assert_string_equal(text,
                        "\rPrompt [######------------------] 25 %: 50 of 200 tokens, 5.0 tokens/s, 30 s left\033[K"
                        "\rPrompt [########################] 100 %: 200 of 200 tokens, 10.0 tokens/s\033[K"
                        "\r\033[K");
    free(text);
}

static void test_no_terminal(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const int kept = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    progress p = progress_begin("Prompt", "tokens", 200);
    dup2(kept, STDERR_FILENO);
    assert_null(p.out);
    p.begin -= 10;
    progress_update(&p, 100);
    progress_end(&p);
    close(kept);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_second),
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_no_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
