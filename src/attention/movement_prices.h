/* movement_prices.h - what the choice between movements goes by. */
#ifndef QWEN3_ATTENTION_MOVEMENT_PRICES_H
#define QWEN3_ATTENTION_MOVEMENT_PRICES_H

/* What messages cost beside their bytes, as bytes. */
typedef struct movement_prices {
    double message; /* a collective */
    double hop;     /* of a ring */
} movement_prices;

#endif
