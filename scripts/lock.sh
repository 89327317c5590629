#!/usr/bin/env bash
# Resolves pyproject.toml into the lock files: versions and hashes, no registry addresses. Run by `make lock`.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.cache/uv/bin/uv}
options=(--quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate)
"$uv" pip compile "${options[@]}" --extra embedded pyproject.toml --output-file requirements/embedded.lock
"$uv" pip compile "${options[@]}" --extra dev --constraints requirements/embedded.lock pyproject.toml --output-file requirements/dev.lock
echo 'mcp-server-time==2026.10.19' | "$uv" pip compile "${options[@]}" - --output-file requirements/mcp-server-time.lock
printf '%s\n' langchain langchain-openai langgraph langgraph-checkpoint-sqlite httptools uvloop |
    "$uv" pip compile "${options[@]}" - --output-file requirements/bench-langgraph.lock
echo 'uv==0.13.9' | "$uv" pip compile "${options[@]}" - --output-file requirements/uv.lock
echo 'atheris==3.0.0' | "$uv" pip compile "${options[@]}" - --output-file requirements/fuzz.lock
