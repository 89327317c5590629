#!/usr/bin/env bash
# Installs a lock file (embedded or dev) and this checkout into .venv. Called by make; safe to repeat.
set -euo pipefail
cd "$(dirname "$0")/.."
set_name=$1
uv=.cache/uv/bin/uv

[ -x .venv/bin/python ] || "$uv" venv --quiet --python .cache/uv/bin/python .venv
packages=$(grep -c '==' "requirements/$set_name.lock")
echo "· environment: $packages packages ($set_name), by hash"
quiet=$([ -t 2 ] || echo --quiet)
VIRTUAL_ENV=$PWD/.venv "$uv" pip install $quiet --require-hashes -r "requirements/$set_name.lock" || {
    printf '\nThe packages could not be installed.\n  why:  no package index was reached, the disk is full, or a hash did not match.\n' >&2
    printf '  next: check the network and `df -h .`, then run make again: it goes on from here.\n' >&2
    exit 1
}
VIRTUAL_ENV=$PWD/.venv "$uv" pip install --quiet --no-deps -e .
touch ".venv/$set_name.stamp"
[ "$set_name" = embedded ] || touch .venv/embedded.stamp
