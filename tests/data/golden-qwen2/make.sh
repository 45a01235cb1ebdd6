#!/bin/sh
# make.sh TOOLS DIRECTORY: how logits.f32 [5, 89] was made. Writes a checkpoint and logits.f32 into DIRECTORY.
# Qwen2: biases of q, k and v, no norms of q and k, GQA 3:1, heads of hidden / heads values, tied, F32.
set -eu
${PYTHON:-python3} "$1/make_checkpoint.py" "$2" --model-type qwen2 --hidden 192 --inter 101 --layers 2 --heads 6 \
    --kv-heads 2 --head-dim 32 --vocab 89 --tied --dtype f32 --seed 13
${PYTHON:-python3} "$1/reference.py" --model "$2" --tokens 88,3,3,0,41 --all --output "$2/logits.f32"
