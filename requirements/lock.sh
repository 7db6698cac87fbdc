#!/usr/bin/env bash
# Write requirements/locked: every package of a set with its version and the hashes of its files. UV names the program.
# Versions that are locked stay, unless a set pins another or UPGRADE=--upgrade is given.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p locked

lock() {
    local set=$1
    shift
    echo "locking $set"
    "${UV:-uv}" pip compile "$set.txt" --output-file "locked/$set.txt" --quiet --no-python-downloads \
        --generate-hashes --no-header --no-annotate --no-emit-index-url ${UPGRADE:-} "$@"
}

# For either Python; one version of a package suits both.
on_cpu=(--only-binary :all: --universal --python-version 3.11 --fork-strategy fewest --no-emit-package torch)
lock test "${on_cpu[@]}"
# Parts of what is tested, in the versions that are tested.
for set in serve client front; do
    lock "$set" "${on_cpu[@]}" --constraint locked/test.txt
done
# Installed beside serve.
lock speech "${on_cpu[@]}" --constraint locked/serve.txt
for set in peers audit lock linters; do
    lock "$set" "${on_cpu[@]}"
done
# Unpacked, never installed: nothing that they import comes along.
for set in triton perf_analyzer; do
    lock "$set" "${on_cpu[@]}" --no-deps
done
# NVIDIA's images are Ubuntu 24.04, and PyPI's PyTorch is the one that they need.
on_gpu=(--no-config --python-version 3.12 --python-platform x86_64-manylinux_2_39)
lock build "${on_gpu[@]}" --only-binary :all:
lock gpu_pytorch "${on_gpu[@]}" --only-binary :all: --constraint locked/build.txt
# Some of these come as source alone.
lock gpu_tensorrt_llm "${on_gpu[@]}"
