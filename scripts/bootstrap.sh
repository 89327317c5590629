#!/usr/bin/env bash
# Finds a Python that is new enough and puts uv, by hash, into .cache/uv. Called by make; safe to repeat.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf '\n%s\n  why:  %s\n  next: %s\n' "$1" "$2" "$3" >&2; exit 1; }

python=${PYTHON:-}
if [ -z "$python" ]; then
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
fi
[ -n "$python" ] || fail "No Python 3.11 or newer was found." \
    "python3 here is $(python3 --version 2>&1 || echo missing)." \
    "Install one (Debian: apt-get install python3.11 python3.11-venv), or say which: make up PYTHON=/path/to/python3.11"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$python is too old." \
    "It is $("$python" --version 2>&1); FAOS needs 3.11 or newer." "make up PYTHON=/path/to/python3.11"
[ "$(uname -s)" = Linux ] || fail "FAOS runs on Linux." "This is $(uname -s)." "Use a Linux machine or a virtual one."
free_mib=$(df -Pm . | awk 'NR==2 {print $4}')
[ "$free_mib" -ge 3000 ] || fail "There is too little room on this disk." \
    "$free_mib MiB are free; the environment and the model take about 2,500." "Free some: df -h ."

echo "· environment: $("$python" --version)"
[ -x .cache/uv/bin/python ] || "$python" -m venv .cache/uv || fail "Python cannot make an environment." \
    "Its venv module is missing or broken." "Debian: apt-get install python3-venv"
.cache/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.lock ||
    fail "uv could not be installed." "No package index was reached, or the hash did not match." \
        "Check the network (behind a proxy: export HTTPS_PROXY=…), then run make again: it goes on from here."
touch .cache/uv/bin/uv  # make compares its time with the lock file's, and a checkout may be newer than its cache
