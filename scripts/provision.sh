#!/usr/bin/env bash
# Real parts for the tests. `user`: what needs no root. `all`: Debian packages too (root), and what Go builds.
# Idempotent; one clear line for each part that cannot be had. What is here is found by tests/parts.py.
set -uo pipefail
cd "$(dirname "$0")/.."
which=${1:-user}
uv=.cache/uv/bin/uv
without() { echo "· tests will do without $1: $2"; }

mcp_server_time() {
    [ -x .cache/tools/mcp-server-time/bin/mcp-server-time ] && return
    "$uv" venv --quiet --python .venv/bin/python .cache/tools/mcp-server-time &&
        "$uv" pip install --quiet --python .cache/tools/mcp-server-time/bin/python \
            --require-hashes -r requirements/mcp-server-time.lock ||
        without mcp-server-time "the package index did not answer"
}

# Its lock names versions and hashes, no registry; nothing of it runs while it is installed.
mcp_server_everything() {
    local folder=.cache/tools/mcp-server-everything
    [ -f $folder/node_modules/@modelcontextprotocol/server-everything/dist/index.js ] && return
    type -P npm >/dev/null || { without mcp-server-everything "there is no npm here"; return; }
    mkdir -p $folder && cp requirements/mcp-server-everything/package*.json $folder &&
        (cd $folder && npm ci --ignore-scripts --no-audit --no-fund --silent >/dev/null 2>&1) ||
        without mcp-server-everything "npm could not install it"
}

models() {
    .venv/bin/python -m faos_cli model fetch --quiet || without "the local model" "it could not be fetched (see above)"
}

debian_packages() {
    local wanted=() package
    for package in bubblewrap faketime iproute2 postgresql softhsm2 util-linux; do
        dpkg -s "$package" >/dev/null 2>&1 || wanted+=("$package")
    done
    [ ${#wanted[@]} -eq 0 ] && return
    if [ "$(id -u)" != 0 ]; then
        without "${wanted[*]}" "install them as root: apt-get install ${wanted[*]}"
        return
    fi
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${wanted[@]}" >/dev/null ||
        without "${wanted[*]}" "apt-get failed"
}

grpcurl() {
    type -P grpcurl >/dev/null || [ -x .cache/bin/grpcurl ] && return
    type -P go >/dev/null || { without grpcurl "there is no Go here to build it"; return; }
    GOBIN=$PWD/.cache/bin GOFLAGS=-modcacherw go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4 2>/dev/null ||
        without grpcurl "the Go build failed"
}

# The module leaves third-party headers out: two are Debian's, one is in a Python source distribution.
ollama() {
    type -P ollama >/dev/null || [ -x .cache/bin/ollama ] && return
    type -P go >/dev/null || { without ollama "there is no Go here to build it"; return; }
    local headers=$PWD/.cache/build/ollama
    miniaudio_header "$headers" || { without ollama "a header that its build needs could not be had"; return; }
    CGO_CPPFLAGS="-I$headers" CGO_CXXFLAGS="-O3 -I$headers" GOBIN=$PWD/.cache/bin GOFLAGS=-modcacherw \
        nice go install github.com/ollama/ollama@v0.17.4 2>/dev/null || without ollama "the Go build failed"
}

miniaudio_header() {
    [ -f "$1/miniaudio/miniaudio.h" ] && return
    mkdir -p "$1/miniaudio" &&
        .venv/bin/python -m pip download -q --no-deps --no-binary :all: -d "$1" miniaudio==1.71 &&
        tar xzf "$1/miniaudio-1.71.tar.gz" -C "$1/miniaudio" --strip-components=2 miniaudio-1.71/miniaudio/miniaudio.h
}

mcp_server_time
mcp_server_everything
models
if [ "$which" = all ]; then
    debian_packages
    grpcurl
    ollama
fi
exit 0
