#!/usr/bin/env bash
# Runs the unit tests of the core under each other supported Python of this machine (the whole suite runs under the one
# of .venv), in a venv that holds the core's own dependencies, pytest and the peers that tests compare with: no array
# library, no MLOps tool. What passes here needs no extra.
#
# A supported version that the machine lacks is named on standard output; one that is there and fails, fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv="${VENV:-.venv}"
parts=(tests/unit/test_errors.py tests/unit/cli tests/unit/tlog tests/unit/evidence tests/unit/policy tests/unit/services)
inputs="$(cat pyproject.toml constraints.txt | cksum | tr -d ' ')"

# The program of Python $1, if one is here and works: on PATH, or under pyenv, whose shims may name what is not chosen.
interpreter() {
    local candidate
    for candidate in "python$1" "$HOME/.pyenv/versions/$1".*/bin/python; do
        if "$candidate" -c 'import ensurepip, sqlite3, ssl, venv' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

main="$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)"
ran=0
for version in 3.11 3.12 3.13; do
    [[ "$version" == "$main" ]] && continue
    python="$(interpreter "$version")"
    if [[ -z "$python" ]]; then
        echo "core under Python $version: NOT RUN, this machine has no working python$version"
        continue
    fi
    place="$venv/core-$version"
    if [[ ! -e "$place/.ready-$inputs" ]]; then
        rm -rf "$place"
        "$python" -m venv "$place"
        "$place/bin/python" -m pip --disable-pip-version-check install --quiet --quiet --constraint constraints.txt \
            hatchling editables pytest pytest-randomly pytest-xdist hypothesis asn1crypto model-signing pyopenssl
        "$place/bin/python" -m pip --disable-pip-version-check install --quiet --quiet --constraint constraints.txt \
            --no-build-isolation --editable .
        touch "$place/.ready-$inputs"
    fi
    echo "core under Python $version, no extras"
    existing=()
    for part in "${parts[@]}"; do [[ -e "$part" ]] && existing+=("$part"); done
    # Taking checks out one by one proves the tests, not the Python version: the whole suite does that once.
    "$place/bin/python" -m pytest -q -n "${WORKERS:-2}" --dist loadscope --ignore-glob='*/test_*mutants.py' "${existing[@]}"
    ran=$((ran + 1))
done
echo "core: run under $ran more Python versions${main:+ than $main}"
