#!/usr/bin/env bash
# Creates .venv with the locked requirements and this project (editable). Needs Python >= 3.11 and nothing else: uv is
# taken from PATH, or brought into .tools. Run by make (see the Makefile); safe to run again at any time.
#   dev/setup.sh       bring .venv up to date
#   dev/setup.sh uv    only print the path of the uv to use, bringing it when missing
# PYTHON chooses the interpreter; UV_* and PIP_* settings of the machine are honoured.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON" >/dev/null || die "PYTHON=$PYTHON: no such command"
        is_recent "$PYTHON" || die "PYTHON=$PYTHON is $("$PYTHON" --version 2>&1); Forebay needs Python 3.11 or newer"
        command -v "$PYTHON"
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null && is_recent "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    die "Forebay needs Python 3.11 or newer; python3 here is $(python3 --version 2>&1 || true). Install one, or name it: make PYTHON=/path/to/python3.12"
}

# uv trusts its own list of certificate authorities unless told otherwise; a machine behind a company proxy needs its own.
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}"
export UV_PYTHON_DOWNLOADS="${UV_PYTHON_DOWNLOADS:-never}"
# A home that cannot be written to is no reason to fail.
if [ -z "${UV_CACHE_DIR:-}" ] && [ -z "${XDG_CACHE_HOME:-}" ] && { [ -z "${HOME:-}" ] || [ ! -w "$HOME" ]; }; then
    export UV_CACHE_DIR="$PWD/.cache/uv"
fi

# Older uv know neither hashes in universal locks nor UV_SYSTEM_CERTS well enough to be relied on.
uv_is_recent() { "$1" --version | "$python" -c 'import re, sys; v = re.search(r"(\d+)\.(\d+)", sys.stdin.read()); sys.exit(not v or tuple(map(int, v.groups())) < (0, 11))'; }

find_uv() {
    if command -v uv >/dev/null && uv_is_recent uv; then
        command -v uv
        return
    fi
    if [ ! -x .tools/bin/uv ] || [ requirements/uv.txt -nt .tools/bin/uv ]; then
        say "bringing uv into .tools"
        "$python" -c 'import ensurepip, venv' 2>/dev/null \
            || die "$python cannot make virtual environments: install its venv package (on Debian and Ubuntu: apt install python3-venv)"
        rm -rf .tools
        # (no set -e inside $(...), so each step says what to do when it fails)
        "$python" -m venv .tools >&2 || die "could not make the virtual environment .tools"
        .tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
            -r requirements/uv.txt >&2 || die "could not install uv; install it yourself, or check the network"
        touch .tools/bin/uv
    fi
    printf '%s\n' "$PWD/.tools/bin/uv"
}

python=$(find_python)
uv=$(find_uv)
if [ "${1:-}" = uv ]; then
    printf '%s\n' "$uv"
    exit
fi

# Without PYTHON an environment that works is kept, whichever version made it.
version_of() { "$1" -c 'import sys; print(sys.implementation.name, *sys.version_info[:2])' 2>/dev/null || true; }
if [ ! -x .venv/bin/python ] || ! is_recent .venv/bin/python \
    || { [ -n "${PYTHON:-}" ] && [ "$(version_of .venv/bin/python)" != "$(version_of "$python")" ]; }; then
    say "creating .venv with $("$python" --version)"
    rm -rf .venv
    "$uv" venv --quiet --python "$python" .venv
fi
rm -f .venv/.installed*
say "installing requirements/dev.txt"
"$uv" pip install --quiet --python .venv/bin/python --require-hashes -r requirements/dev.txt
say "installing forebay (editable)"
"$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
touch .venv/.installed ${PYTHON:+".venv/.installed-${PYTHON##*/}"}
say "ready: .venv ($(.venv/bin/python --version))"
