#!/bin/sh
# make.sh TOOLS DIRECTORY: how logits.f32 [5, 97] was made. Writes a checkpoint and logits.f32 into DIRECTORY.
# Tied embeddings with an output head stored all the same, GQA 3:1, BF16, one file.
set -eu
${PYTHON:-python3} "$1/make_checkpoint.py" "$2" --hidden 48 --inter 101 --layers 3 --heads 6 --kv-heads 2 \
    --head-dim 32 --vocab 97 --tied --lm-head --dtype bf16 --seed 11
${PYTHON:-python3} "$1/reference.py" --model "$2" --tokens 3,96,0,41,17 --all --output "$2/logits.f32"
