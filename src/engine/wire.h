/* wire.h - how sums travel between nodes: as floats, or rounded to fewer bits. */
#ifndef QWEN3_ENGINE_WIRE_H
#define QWEN3_ENGINE_WIRE_H

#include "base/status.h"
#include "comm/comm.h"
#include "kernels/kernels.h"

/* The codec of a type: BF16, or Q8, blocks of 32 values with a scale. Floats (F32, AUTO): *codec is all zeros. */
qwen3_status wire_codec(qwen3_dtype type, const kernels *k, comm_codec *codec, qwen3_error *err);

#endif
