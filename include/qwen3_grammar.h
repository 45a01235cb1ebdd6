/* qwen3_grammar.h - text that follows a JSON schema: which tokens may come next. Nothing here is collective.
 *
 *     qwen3_grammar_open       compiles a schema, once
 *     qwen3_vocabulary_open    sorts the tokens of a tokenizer, once
 *     qwen3_matcher_open       for each answer: where it is in the grammar
 *
 * The functions of a matcher are what a qwen3_token_filter (qwen3_scheduler.h) needs.
 *
 * What is accepted are texts whose value meets the schema, but not all of them: properties come in the order of the
 * schema; white space is what usual writers of JSON make; strings of `enum`, `const`, `pattern` and `format` and names
 * of properties have one spelling; integers have up to 18 digits, numbers between bounds up to 15, and 6 of them after
 * the point. Other properties than those in `properties` are written only where `additionalProperties` is there and not
 * false, or where there is no `properties`. A text that would take too much work is not accepted either.
 *
 * Keywords: type (also several), nullable, enum, const, properties, required, additionalProperties, maxProperties,
 * items, prefixItems, minItems, maxItems, minLength, maxLength, pattern, format (date, time, date-time, uuid, ipv4,
 * ipv6, hostname, email, uri), minimum, maximum, exclusiveMinimum, exclusiveMaximum, anyOf, oneOf (of alternatives that
 * exclude each other), allOf (of keywords that can be merged), $ref inside the schema, also recursive, $defs,
 * definitions, $id. Annotations (title, description, default, examples, ...) mean nothing. Any other keyword is refused
 * with QWEN3_ERR_UNSUPPORTED and its JSON pointer.
 *
 * `pattern` is a regular expression with literals, ., classes, \d \w \s, groups, |, *, +, ?, {m,n}, and ^ and $ at the
 * ends of the pattern. Elsewhere anchors are refused, as are look-around, references to groups, \b and \p. */
#ifndef QWEN3_GRAMMAR_H
#define QWEN3_GRAMMAR_H

#include "qwen3.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A compiled schema. Immutable: any number of threads and matchers may use it. */
typedef struct qwen3_grammar qwen3_grammar;

/* schema: JSON text [length], an object, true or false. QWEN3_ERR_UNSUPPORTED: a keyword that is not supported;
 * QWEN3_ERR_FORMAT: no JSON, or a keyword with a wrong value; QWEN3_ERR_ARGUMENT: no value can meet it;
 * QWEN3_ERR_CAPACITY: it is too large. Messages begin with the JSON pointer of the place, "#/properties/a". On failure
 * *grammar is NULL. */
QWEN3_API qwen3_status qwen3_grammar_open(const char *schema, size_t length, qwen3_grammar **grammar, qwen3_error *err);
/* After its matchers. NULL is allowed. */
QWEN3_API void qwen3_grammar_close(qwen3_grammar *grammar);

/* The ordinary tokens of a tokenizer, sorted by their bytes; added tokens are never a part of a value. Immutable. */
typedef struct qwen3_vocabulary qwen3_vocabulary;

/* The tokenizer must live longer. On failure *vocabulary is NULL. */
QWEN3_API qwen3_status qwen3_vocabulary_open(const qwen3_tokenizer *tokenizer, qwen3_vocabulary **vocabulary,
                                             qwen3_error *err);
/* After the matchers on it. NULL is allowed. */
QWEN3_API void qwen3_vocabulary_close(qwen3_vocabulary *vocabulary);

/* A text that grows: one thread at a time. */
typedef struct qwen3_matcher qwen3_matcher;

/* On failure *matcher is NULL. */
QWEN3_API qwen3_status qwen3_matcher_open(const qwen3_grammar *grammar, const qwen3_vocabulary *vocabulary,
                                          qwen3_matcher **matcher, qwen3_error *err);
/* NULL is allowed. */
QWEN3_API void qwen3_matcher_close(qwen3_matcher *matcher);
/* To an empty text. */
QWEN3_API void qwen3_matcher_reset(qwen3_matcher *matcher);
/* Whether the token may be next. */
QWEN3_API bool qwen3_matcher_allows(qwen3_matcher *matcher, int32_t token);
/* Sets bit t % 64 of mask[t / 64] for every token t below n_tokens that may be next; other bits stay. Returns whether
 * there is one. Out of memory: none. */
QWEN3_API bool qwen3_matcher_mask(qwen3_matcher *matcher, uint64_t *mask, int32_t n_tokens);
/* Appends a token. False: it may not be next, and nothing is changed. */
QWEN3_API bool qwen3_matcher_accept(qwen3_matcher *matcher, int32_t token);
/* The same with bytes [n]. */
QWEN3_API bool qwen3_matcher_accept_bytes(qwen3_matcher *matcher, const char *bytes, size_t n);
/* Whether the text is a whole value. More white space or digits may be able to follow. */
QWEN3_API bool qwen3_matcher_complete(const qwen3_matcher *matcher);

#ifdef __cplusplus
}
#endif
#endif
