#!/bin/sh
# make.sh TOOLS DIRECTORY: how logits.f32 [4, 113] was made. Writes a checkpoint and logits.f32 into DIRECTORY.
# Qwen3-MoE: 10 experts of which 3 are chosen, their weights normalised, a dense layer, an intermediate size that no
# panel divides, BF16.
set -eu
${PYTHON:-python3} "$1/make_checkpoint.py" "$2" --model-type qwen3_moe --hidden 64 --inter 95 --layers 3 --heads 4 \
    --kv-heads 2 --head-dim 32 --vocab 113 --untied --experts 10 --chosen 3 --moe-inter 40 --dense-layers 1 \
    --dtype bf16 --seed 15
${PYTHON:-python3} "$1/reference.py" --model "$2" --tokens 5,112,5,60 --all --output "$2/logits.f32"
