#!/bin/sh
# make.sh TOOLS DIRECTORY: how logits.f32 [4, 113] was made. Writes a checkpoint and logits.f32 into DIRECTORY.
# Llama: no biases, no norms of q and k, an output head of its own, heads larger than hidden / heads, BF16, two shards.
set -eu
${PYTHON:-python3} "$1/make_checkpoint.py" "$2" --model-type llama --hidden 72 --inter 95 --layers 3 --heads 4 \
    --kv-heads 4 --head-dim 32 --vocab 113 --untied --dtype bf16 --shards 2 --theta 5e5 --seed 14
${PYTHON:-python3} "$1/reference.py" --model "$2" --tokens 5,112,5,60 --all --output "$2/logits.f32"
