/* test_tool_calls.c - calls of tools in texts, which come whole and in pieces of every length. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "qwen3/serve/tool_calls.h"

static const char tools_text[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"properties\": {"
    "\"text\": {\"type\": \"string\"}, \"count\": {\"type\": \"integer\"}, \"ratio\": {\"type\": \"number\"}, "
    "\"list\": {\"type\": \"array\"}}}}}]";

typedef struct example {
    const char *text, *content; /* of an answer; what is left without calls */
    const char *calls;          /* "NAME ARGUMENTS;" of each */
} example;

static const example examples[] = {
    {"no call", "no call", ""},
    {"<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1.50}}</tool_call>", "", "f {\"a\": 1.50};"},
    {"First.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n", "First.", "f {};"},
    {"<tool_call>{\"arguments\": {\"s\": \"}]\\\"{\"}, \"name\": \"f\"}</tool_call>", "", "f {\"s\": \"}]\\\"{\"};"},
    {"<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"x\\\": 1}\"}</tool_call>", "", "f {\"x\": 1};"},
    {"<tool_call>{\"name\": \"f\"}</tool_call>\n<tool_call>{\"name\": \"g\"}</tool_call>", "", "f {};g {};"},
    {"<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": [1, {\"b\": 2}]}}", "", "f {\"a\": [1, {\"b\": 2}]};"},
    {"<tool_call>{\"name\": }</tool_call>", "<tool_call>{\"name\": }</tool_call>", ""},
    {"<tool_call>{\"name\": \"f\"", "<tool_call>{\"name\": \"f\"", ""},
    {"<tool_call>words</tool_call>", "<tool_call>words</tool_call>", ""},
    {"a < b, <tool_cal", "a < b, <tool_cal", ""},
    {"<tool_call>\n<function=f>\n<parameter=text>\n12\n</parameter>\n<parameter=count>\n12\n</parameter>\n"
     "</function>\n</tool_call>",
     "", "f {\"text\": \"12\", \"count\": 12};"},
    {"<tool_call>\n<function=f>\n<parameter=text>\na\n\"b\"\n</parameter>\n<parameter=list>\n[1, 2.50]\n</parameter>\n"
     "</function>\n</tool_call>",
     "", "f {\"text\": \"a\\n\\\"b\\\"\", \"list\": [1, 2.50]};"},
    {"<tool_call><function=f><parameter=ratio>much</parameter><parameter=other>true</parameter></function></tool_call>",
     "", "f {\"ratio\": \"much\", \"other\": true};"},
    {"<tool_call><function=g></function></tool_call>", "", "g {};"},
    {"<tool_call><function=></function></tool_call>", "<tool_call><function=></function></tool_call>", ""},
};

static void append(text_buffer *text, const char *piece)
{
    assert_int_equal(text_append(text, piece, strlen(piece), NULL), QWEN3_OK);
}

static void check(const example *e, const json_t *tools, size_t piece)
{
    tool_calls calls = {.tools = tools};
    text_buffer content = {0}, found = {0};
    const size_t n = strlen(e->text);
    for (size_t at = 0; at < n; at += piece)
        assert_int_equal(tool_calls_take(&calls, e->text + at, n - at < piece ? n - at : piece, false, &content, NULL),
                         QWEN3_OK);
    assert_int_equal(tool_calls_take(&calls, "", 0, true, &content, NULL), QWEN3_OK);
    append(&found, "");
    append(&content, "");
    for (size_t i = 0; i < calls.n; i++) {
        append(&found, calls.calls[i].name);
        append(&found, " ");
        append(&found, calls.calls[i].arguments);
        append(&found, ";");
    }
    assert_string_equal(found.data, e->calls);
    assert_string_equal(content.data, e->content);
    text_free(&found);
    text_free(&content);
    tool_calls_free(&calls);
}

static void test_examples(void **state)
{
    (void)state;
    json_t *tools = json_loads(tools_text, 0, NULL);
    assert_non_null(tools);
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
        for (size_t piece = 1; piece <= strlen(examples[i].text); piece++)
            check(&examples[i], tools, piece);
    json_decref(tools);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_examples)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
