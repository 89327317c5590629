#!/usr/bin/env bash
# Finds a Python that is new enough and puts uv, by hash, into .cache/uv. Called by make; safe to repeat.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf '\n%s\n  why:  %s\n  next: %s\n' "$1" "$2" "$3" >&2; exit 1; }

# The distribution's own first: it gets its security updates with the machine, and it is built with profile-guided
# optimisation, which version managers leave out as a rule (an agent's run: a tenth less CPU, docs/dev/benchmarks.md).
first_with() { # code that must run in it
    for candidate in /usr/bin/python3 python3 python3.12 python3.11 python3.13; do
        if "$candidate" -c "import sys; sys.version_info >= (3, 11) or sys.exit(1); $1" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}
python=${PYTHON:-$(first_with "import ensurepip, sqlite3, ssl, venv")}
python=${python:-$(first_with "")}  # what it lacks is said below
[ -n "$python" ] || fail "No Python 3.11 or newer was found." \
    "python3 here is $(python3 --version 2>&1 || echo missing)." \
    "Install one (Debian: apt-get install python3.11 python3.11-venv), or say which: make up PYTHON=/path/to/python3.11"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$python is too old." \
    "It is $("$python" --version 2>&1); FAOS needs 3.11 or newer." "make up PYTHON=/path/to/python3.11"
[ "$(uname -s)" = Linux ] || fail "FAOS runs on Linux." "This is $(uname -s)." "Use a Linux machine or a virtual one."
free_mib=$(df -Pm . | awk 'NR==2 {print $4}')
[ "$free_mib" -ge 3000 ] || fail "There is too little room on this disk." \
    "$free_mib MiB are free; the environment and the model take about 2,500." "Free some: df -h ."

echo "· environment: $("$python" --version) ($(command -v "$python"))"
[ -x .cache/uv/bin/python ] || "$python" -m venv .cache/uv || fail "Python cannot make an environment." \
    "Its venv module is missing or broken." "Debian: apt-get install python3-venv"
.cache/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.lock ||
    fail "uv could not be installed." "No package index was reached, or the hash did not match." \
        "Check the network (behind a proxy: export HTTPS_PROXY=…), then run make again: it goes on from here."
touch .cache/uv/bin/uv  # make compares its time with the lock file's, and a checkout may be newer than its cache
