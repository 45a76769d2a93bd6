#!/bin/sh
# The trainings on MNIST of README.md: mnist.sh DIR OUT [RECIPE ...]
# DIR holds MNIST's files; OUT gets RECIPE.txt, RECIPE.csv and RECIPE.safetensors.
set -eu
if [ $# -lt 2 ]; then
    echo "usage: $0 DIR OUT [RECIPE ...]" >&2
    exit 2
fi
data=$1 out=$2
shift 2
mkdir -p "$out"
if [ $# -eq 0 ]; then
    set -- bnn-theano xnor binaryconnect bnn-torch ebp bwn float dorefa ternary bitwise
fi

for recipe; do
    case $recipe in
        bnn-theano)
            options="--width 2048 --epochs 120 --dropout 0.3 --recalibrate 5000 --gradients int6"
            ;;
        bnn-torch) options="--width 2048 --epochs 25" ;;
        binaryconnect) options="--width 2048 --epochs 20" ;;
        bwn) options="--epochs 10" ;;
        xnor) options="--epochs 70" ;;
        dorefa) options="--width 24 --epochs 8 --dropout 0" ;;
        ebp) options="--width 1200 --epochs 25" ;;
        bitwise) options="--width 1024 --epochs 16" ;;
        ternary) options="--width 1022 --epochs 6" ;;
        float) options="--width 2048 --epochs 10" ;;
        *)
            echo "no options are known for recipe $recipe" >&2
            exit 2
            ;;
    esac
    command="bitops train $recipe --data $data $options --seed 0"
    echo "$command"
    # shellcheck disable=SC2086  # options are several words
    $command --log "$out/$recipe.csv" --overwrite --save "$out/$recipe.safetensors" > "$out/$recipe.txt"
    tail -n 6 "$out/$recipe.txt"
done
