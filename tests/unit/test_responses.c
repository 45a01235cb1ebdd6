/* test_responses.c - the order of events of /v1/responses, where reasoning, text and calls follow each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "qwen3/serve/responses.h"

/* What each event adds to the record: its type without "response.", and its text. */
static void record(response *r, text_buffer *found)
{
    size_t i;
    json_t *event, *events = response_events(r);
    assert_non_null(events);
    json_array_foreach(events, i, event)
    {
        const char *type = json_string_value(json_object_get(event, "type"));
        const char *text = json_string_value(json_object_get(event, "delta"));
        text = text ? text : json_string_value(json_object_get(event, "text"));
        type += strncmp(type, "response.", 9) == 0 ? 9 : 0;
        assert_int_equal(text_append(found, type, strlen(type), NULL), QWEN3_OK);
        if (text) {
            assert_int_equal(text_append(found, "=", 1, NULL), QWEN3_OK);
            assert_int_equal(text_append(found, text, strlen(text), NULL), QWEN3_OK);
        }
        assert_int_equal(text_append(found, " ", 1, NULL), QWEN3_OK);
    }
    json_decref(events);
}

static void add(text_buffer *text, const char *piece)
{
    assert_int_equal(text_append(text, piece, strlen(piece), NULL), QWEN3_OK);
}

static void test_order(void **state)
{
    (void)state;
    json_t *body = json_object();
    const reply_head head = {.id = "resp_0", .model = "m"};
    const generation_request request = {.chat = true, .stream = true, .response = body};
    tool_call call = {"f", "{}"};
    choice c = {.request = &request, .calls = {.calls = &call}};
    response r;
    text_buffer found = {0};
    assert_int_equal(response_open(&r, &head, &request, NULL), QWEN3_OK);
    add(&c.reasoning, "Hm");
    response_take(&r, &c);
    add(&c.reasoning, "m \n");
    response_take(&r, &c);
    c.reasoning.n = trimmed_length(&c.reasoning); /* as a choice does at a mark */
    add(&c.content, "a");
    response_take(&r, &c);
    add(&c.content, "b ");
    response_take(&r, &c);
    c.content.n = trimmed_length(&c.content);
    c.calls.n = 1;
    response_take(&r, &c);
    add(&c.content, "c");
    c.finish = "tool_calls";
    response_take(&r, &c);
    json_t *whole = response_end(&r, &c, &(reply_usage){.prompt = 1});
    record(&r, &found);
    assert_string_equal(
        found.data, "output_item.added content_part.added reasoning_text.delta=Hm reasoning_text.delta=m "
                    "reasoning_text.done=Hmm content_part.done output_item.done "
                    "output_item.added content_part.added output_text.delta=a output_text.delta=b "
                    "output_text.done=ab content_part.done output_item.done "
                    "output_item.added function_call_arguments.delta={} function_call_arguments.done output_item.done "
                    "output_item.added content_part.added output_text.delta=c output_text.done=c content_part.done "
                    "output_item.done completed ");
    assert_int_equal(json_array_size(json_object_get(whole, "output")), 4);
    json_decref(whole);
    text_free(&c.reasoning);
    text_free(&c.content);
    text_free(&found);
    response_close(&r);
    json_decref(body);
}

/* A reply that does not stream has the same items, and keeps no events. */
static void test_whole(void **state)
{
    (void)state;
    json_t *body = json_object();
    const reply_head head = {.id = "resp_0", .model = "m"};
    const generation_request request = {.chat = true, .response = body};
    choice c = {.request = &request, .finish = "length"};
    response r;
    assert_int_equal(response_open(&r, &head, &request, NULL), QWEN3_OK);
    add(&c.content, "half ");
    response_take(&r, &c);
    json_t *whole = response_end(&r, &c, &(reply_usage){0}), *events = response_events(&r);
    assert_int_equal(json_array_size(events), 0);
    assert_string_equal(json_string_value(json_object_get(whole, "status")), "incomplete");
    const json_t *item = json_array_get(json_object_get(whole, "output"), 0);
    assert_string_equal(json_string_value(json_object_get(item, "status")), "incomplete");
    const json_t *part = json_array_get(json_object_get(item, "content"), 0);
    assert_string_equal(json_string_value(json_object_get(part, "text")), "half ");
    json_decref(events);
    json_decref(whole);
    text_free(&c.content);
    response_close(&r);
    json_decref(body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_order), cmocka_unit_test(test_whole)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
