#!/usr/bin/env bash
# Measures this project on one GPU of 80 GB in at most ten minutes, without downloads; benchmarks/README.md says what.
#
#   benchmarks/gpu.sh [--output FOLDER] [--shapes llama-3.1-8b,gemma-3-4b,qwen3-8b] [--device cuda|cpu] [--minutes 10]
#
# Each part has a limit and is written when it ends: results.jsonl (figures), packed.log, tests.log, and parts.txt, which
# has the exit status of each part (124: cut off) and its seconds. `--shapes tiny --device cpu` tries the script out, with
# no limit but that of the whole.
set -u
cd "$(dirname "$0")/.."
output=gpu-results shapes=llama-3.1-8b,gemma-3-4b,qwen3-8b device=cuda minutes=10
while [ $# -gt 0 ]; do
    case "$1" in
        --output | --shapes | --device | --minutes) printf -v "${1#--}" %s "${2:?"$1 needs a value"}"; shift 2 ;;
        *) echo "error: $1: allowed are --output, --shapes, --device, --minutes" >&2; exit 2 ;;
    esac
done
python=${PYTHON:-python}
export PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
[ "$device" = cuda ] || export CUDA_VISIBLE_DEVICES=
if [ "$device" = cuda ] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "error: device=cuda: torch finds no GPU" >&2
    exit 2
fi
mkdir -p "$output" || exit 2
output=$(cd "$output" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 143' TERM INT
failed=0

# part SECONDS NAME COMMAND...: runs the command for at most that long, and no longer than the time that is left
part() {
    local limit=$1 name=$2 left=$((minutes * 60 - SECONDS - 5)) began=$SECONDS status
    shift 2
    if [ "$left" -lt 5 ]; then
        echo "$name: no time left" | tee -a "$output/parts.txt"
        failed=1
        return 1
    fi
    [ "$device" = cuda ] && [ "$limit" -lt "$left" ] || limit=$left
    timeout -k 5 "$limit" "$@" >"$output/$name.log" 2>&1
    status=$?
    echo "$name: status $status, $((SECONDS - began)) s" | tee -a "$output/parts.txt"
    [ $status -eq 0 ] || { failed=1; return 1; }
}

packing=() few=()
if [ "$shapes" = tiny ]; then
    packing=(--adapters 1,2 --items 1 --turns 1 --blocks 1 --width 64)
    few=(--pairs 1 --items 8)
fi
measure() { # measure SECONDS PART SHAPE
    part "$1" "$2-$3" "$python" -m benchmarks.gpu "$2" "$output" --shape "$3" --model "$scratch/$3" "${few[@]}"
}

part 60 tests "$python" -m pytest -q -p no:cacheprovider -m gpu tests/models/test_gpu.py
first=1
for shape in ${shapes//,/ }; do
    measure 80 model "$shape" || continue
    measure 100 training-bf16 "$shape"
    measure 100 training-nf4 "$shape"
    measure 60 scoring "$shape"
    if [ $first -eq 1 ]; then
        part 120 packed "$python" -m benchmarks.packed "${packing[@]}"
        measure 90 run "$shape"
        first=0
    fi
    rm -rf "${scratch:?}/$shape"
done
exit $failed
