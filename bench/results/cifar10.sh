#!/bin/sh
# The trainings on CIFAR-10 of README.md: cifar10.sh DIR OUT [RECIPE ...]
# DIR holds CIFAR-10's files, the originals or JPEG copies. OUT gets RECIPE.txt, RECIPE.csv,
# RECIPE.safetensors and the checkpoint RECIPE.ckpt, from which a second call goes on. They take
# hours to weeks; Ctrl-C ends one after its step, and loses nothing.
set -eu
if [ $# -lt 2 ]; then
    echo "usage: $0 DIR OUT [RECIPE ...]" >&2
    exit 2
fi
data=$1 out=$2
shift 2
mkdir -p "$out"
if [ $# -eq 0 ]; then
    set -- speedrun-quick speedrun speedrun-quick-exact speedrun-exact bnn-theano-40 bnn-theano \
        binaryconnect xnor xnor-convnet bwn dorefa bnn-torch
fi

for run; do
    case $run in
        speedrun) command="speedrun" ;;
        speedrun-quick) command="speedrun --quick" ;;
        speedrun-exact) command="speedrun --width 64 --epochs 80 --gradients float32" ;;
        speedrun-quick-exact) command="speedrun --quick --epochs 16 --gradients float32" ;;
        bnn-theano-40)
            command="bnn-theano --epochs 40 --gradients int6 --flip --shift 2 --recalibrate 2000"
            ;;
        bnn-theano | bnn-torch | binaryconnect | bwn | xnor | xnor-convnet | dorefa | float)
            command=$run # as published, whatever time that takes
            ;;
        *)
            echo "no options are known for recipe $run" >&2
            exit 2
            ;;
    esac
    command="bitops train $command --data $data --seed 0"
    echo "$command"
    # shellcheck disable=SC2086  # options are several words
    $command --log "$out/$run.csv" --checkpoint "$out/$run.ckpt" --resume \
        --save "$out/$run.safetensors" >> "$out/$run.txt"
    tail -n 6 "$out/$run.txt"
done
