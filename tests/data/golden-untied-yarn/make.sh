#!/bin/sh
# make.sh TOOLS DIRECTORY: how logits.f32 [4, 131] was made. Writes a checkpoint and logits.f32 into DIRECTORY.
# An output head of its own, one KV head, YaRN, F32, three shards, theta in rope_parameters.
set -eu
${PYTHON:-python3} "$1/make_checkpoint.py" "$2" --hidden 40 --inter 67 --layers 2 --heads 3 --kv-heads 1 --head-dim 64 \
    --vocab 131 --untied --dtype f32 --shards 3 --theta 5e6 --yarn 4:512 --rope-parameters --seed 12
${PYTHON:-python3} "$1/reference.py" --model "$2" --tokens 130,7,7,64 --all --output "$2/logits.f32"
