/* fuzz_chat.c - libFuzzer target: conversations. Parts of the input: the conversation, and the tools unless they are
 * empty; both are JSON. Every template must render what it accepts as well-formed UTF-8, covered by alternating
 * segments, and no control token may come out of what users, tools and the model said. */
#include "fuzz/fuzz.h"
#include "io/chat_template.h"
#include "io/utf8.h"
#include "support/tiny_tokenizer.h"

static qwen3_tokenizer *tokenizer(void)
{
    static qwen3_tokenizer *tiny;
    if (tiny)
        return tiny;
    json_t *json = tiny_tokenizer();
    char *text = json_dumps(json, JSON_COMPACT);
    fuzz_file file = open_memory_file(text, strlen(text));
    demand(qwen3_tokenizer_open(file.path, &tiny, NULL) == QWEN3_OK);
    close(file.descriptor);
    free(text);
    json_decref(json);
    return tiny;
}

static void check_text(const qwen3_chat_prompt *p)
{
    text_buffer valid = {0};
    demand(utf8_append_valid(&valid, (const unsigned char *)p->text, p->length, NULL, NULL) == QWEN3_OK);
    demand(valid.n == p->length && memcmp(valid.data, p->text, p->length) == 0);
    text_buffer_free(&valid);
}

/* Segments, and the ranges among them that are content: plain[n_segments]. Returns their number. */
static size_t check_segments(const qwen3_chat_prompt *p, qwen3_text_range *plain)
{
    size_t at = 0, n = 0;
    for (size_t i = 0; i < p->n_segments; i++) {
        const qwen3_chat_segment *s = &p->segments[i];
        demand(s->begin == at && s->end > at && (i == 0 || s->is_content != s[-1].is_content));
        if (s->is_content)
            plain[n++] = (qwen3_text_range){s->begin, s->end};
        at = s->end;
    }
    demand(at == p->length && p->length > 0 && p->text[at] == '\0');
    return n;
}

/* The templates write none of the tiny tokenizer's control tokens: one in the prompt came from content. */
static void check(const qwen3_chat_prompt *p)
{
    qwen3_text_range *plain = malloc(p->n_segments * sizeof *plain);
    demand(plain != NULL);
    qwen3_encode_args args = {.text = p->text, .length = p->length, .plain = plain};
    args.n_plain = check_segments(p, plain);
    check_text(p);
    int32_t *ids;
    size_t n;
    demand(qwen3_tokenizer_encode(tokenizer(), &args, &ids, &n, NULL) == QWEN3_OK);
    for (size_t i = 0; i < n; i++)
        demand(qwen3_tokenizer_kind(tokenizer(), ids[i]) != QWEN3_TOKEN_SPECIAL);
    free(ids);
    free(plain);
}

static void render(qwen3_chat_template chat, const qwen3_render_args *args)
{
    qwen3_chat_prompt prompt;
    qwen3_error err = {0};
    if (succeeded(qwen3_chat_template_render(&chat, args, &prompt, &err), &err)) {
        check(&prompt);
        qwen3_chat_prompt_free(&prompt);
    } else {
        demand(!prompt.text && !prompt.segments);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_part rest = {data, size};
    const fuzz_part conversation = next_part(&rest);
    const bool tools = rest.size > 0;
    const qwen3_chat_options options = {.enable_thinking = size % 2, .add_generation_prompt = size / 2 % 2};
    const qwen3_render_args args = {.conversation = (const char *)conversation.data,
                                    .conversation_bytes = conversation.size,
                                    .tools = tools ? (const char *)rest.data : NULL,
                                    .tools_bytes = rest.size,
                                    .options = &options};
    render((qwen3_chat_template){QWEN3_THINKING_OPTIONAL, CHAT_NULL_WITH_TOOL_CALLS}, &args);
    render((qwen3_chat_template){QWEN3_THINKING_ALWAYS, CHAT_NULL_ALLOWED}, &args);
    render((qwen3_chat_template){QWEN3_THINKING_NEVER, CHAT_NULL_ALLOWED}, &args);
    return 0;
}
