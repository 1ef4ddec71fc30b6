#!/usr/bin/env bash
# Compiles the locked requirements, with hashes, for Python 3.11 and newer on every platform. The files name no
# registry and no folder of this machine, so that they work behind any mirror. Arguments go to uv, e.g. --upgrade.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv=$(dev/setup.sh uv)
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}"

lock() {
    local output=$1
    shift
    printf 'lock: %s\n' "$output" >&2
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --output-file "$output" "$@"
    if grep -nE '^[^#]*(://|--(extra-)?index-url|--find-links)' "$output"; then
        printf 'lock: %s records an address\n' "$output" >&2
        exit 1
    fi
}

lock requirements/uv.txt requirements/uv.in "$@"
lock requirements/base.txt pyproject.toml "$@"
lock requirements/dev.txt pyproject.toml requirements/dev.in --constraints requirements/base.txt "$@"
lock requirements/peers.txt requirements/peers.in --constraints requirements/base.txt "$@"
