/* grammar_number.c - numbers between bounds.
 *
 * A number with s digits after the point is an integer divided by 10^s, so each s is a range of integers. A range of
 * integers of one length is split by its first digit: below and above there may be any digits. */
#include <math.h>

#include "io/grammar.h"

enum {
    INTEGER_DIGITS = 18, /* below 2^63 */
    NUMBER_DIGITS = 15,  /* exact in float64 */
    POINT_DIGITS = 6,    /* after the point, where there are bounds */
};

static int64_t power(int digits)
{
    int64_t value = 1;
    while (digits-- > 0)
        value *= 10;
    return value;
}

/* The last `digits` digits of integers from low to high; a point is in front of the last `point` ones. */
static int32_t build_digits(grammar_builder *b, int64_t low, int64_t high, int digits, int point, int32_t next)
{
    if (low > high)
        return NODE_DEAD;
    if (digits == 0)
        return next;
    const int64_t unit = power(digits - 1);
    const int first = (int)(low / unit), last = (int)(high / unit);
    int from = first, to = last;
    int32_t all = NODE_DEAD;
    if (first == last) {
        const int32_t rest = build_digits(b, low % unit, high % unit, digits - 1, point, next);
        all = build_range(b, (unsigned char)('0' + first), (unsigned char)('0' + first), rest);
        from = to + 1;
    } else {
        if (low % unit != 0) {
            const int32_t rest = build_digits(b, low % unit, unit - 1, digits - 1, point, next);
            all = build_range(b, (unsigned char)('0' + from), (unsigned char)('0' + from), rest);
            from++;
        }
        if (high % unit != unit - 1) {
            const int32_t rest = build_digits(b, 0, high % unit, digits - 1, point, next);
            all = build_split(b, build_range(b, (unsigned char)('0' + to), (unsigned char)('0' + to), rest), all);
            to--;
        }
    }
    if (from <= to) {
        const int32_t rest = build_digits(b, 0, unit - 1, digits - 1, point, next);
        all = build_split(b, build_range(b, (unsigned char)('0' + from), (unsigned char)('0' + to), rest), all);
    }
    return digits == point && point > 0 ? build_text(b, ".", 1, all) : all;
}

/* 0 <= low; without zeros in front, but for the one before a point. */
static int32_t build_magnitudes(grammar_builder *b, int64_t low, int64_t high, int point, int32_t next)
{
    int32_t all = NODE_DEAD;
    for (int digits = point + 1; digits == point + 1 || power(digits - 1) <= high; digits++) {
        const int64_t least = digits == point + 1 ? 0 : power(digits - 1), most = power(digits) - 1;
        all = build_split(b, build_digits(b, low > least ? low : least, high < most ? high : most, digits, point, next),
                          all);
    }
    return all;
}

static int32_t build_integers(grammar_builder *b, int64_t low, int64_t high, int point, int32_t next)
{
    int32_t negative = NODE_DEAD, positive = NODE_DEAD;
    if (low < 0)
        negative = build_text(b, "-", 1, build_magnitudes(b, high < 0 ? -high : 1, -low, point, next));
    if (high >= 0)
        positive = build_magnitudes(b, low > 0 ? low : 0, high, point, next);
    return build_split(b, positive, negative);
}

static bool inside(double value, const number_bounds *n)
{
    return (n->above ? value > n->low : value >= n->low) && (n->below ? value < n->high : value <= n->high);
}

/* The integers whose quotients by 10^point are inside the bounds, as a reader of float64 sees them: candidates near
 * the bounds are divided and compared. most: the largest magnitude. */
static int32_t build_bounded(grammar_builder *b, const number_bounds *n, int64_t most, int point, int32_t next)
{
    const double scale = (double)power(point), limit = (double)most;
    int64_t low = (int64_t)fmax(-limit, fmin(limit, floor(n->low * scale) - 1));
    int64_t high = (int64_t)fmin(limit, fmax(-limit, ceil(n->high * scale) + 1));
    for (int i = 0; i < 4 && low <= high && !inside((double)low / scale, n); i++)
        low++;
    for (int i = 0; i < 4 && low <= high && !inside((double)high / scale, n); i++)
        high--;
    if (low > high || !inside((double)low / scale, n) || !inside((double)high / scale, n))
        return NODE_DEAD;
    return build_integers(b, low, high, point, next);
}

int32_t build_integer(grammar_builder *b, const number_bounds *bounds, int32_t next)
{
    const int64_t most = power(INTEGER_DIGITS) - 1;
    if (isinf(bounds->low) && isinf(bounds->high))
        return build_integers(b, -most, most, 0, next);
    return build_bounded(b, bounds, power(NUMBER_DIGITS) - 1, 0, next);
}

/* [eE][+-]?[0-9]{1,2}, or nothing. */
static int32_t build_exponent(grammar_builder *b, int32_t next)
{
    const int32_t digits = build_range(b, '0', '9', build_split(b, next, build_range(b, '0', '9', next)));
    const int32_t sign = build_split(b, build_text(b, "+", 1, digits), build_text(b, "-", 1, digits));
    const int32_t rest = build_split(b, digits, sign);
    return build_split(b, next, build_split(b, build_text(b, "e", 1, rest), build_text(b, "E", 1, rest)));
}

static int32_t build_any_number(grammar_builder *b, int32_t next)
{
    const int32_t end = build_exponent(b, next), rule = build_rule(b);
    build_rule_body(b, rule, build_range(b, '0', '9', NODE_RETURN));
    const int32_t point = build_text(b, ".", 1, build_repeat(b, rule, 1, NUMBER_DIGITS, end));
    const int32_t whole = build_split(b, end, point);
    const int32_t digits = build_range(b, '1', '9', build_repeat(b, rule, 0, NUMBER_DIGITS - 1, whole));
    const int32_t magnitude = build_split(b, digits, build_text(b, "0", 1, whole));
    return build_split(b, magnitude, build_text(b, "-", 1, magnitude));
}

int32_t build_number(grammar_builder *b, const number_bounds *bounds, int32_t next)
{
    int32_t all = NODE_DEAD;
    if (isinf(bounds->low) && isinf(bounds->high))
        return build_any_number(b, next);
    for (int point = 0; point <= POINT_DIGITS; point++)
        all = build_split(b, build_bounded(b, bounds, power(NUMBER_DIGITS) - 1, point, next), all);
    return all;
}
