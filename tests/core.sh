#!/usr/bin/env bash
# Runs the unit tests of the core under each other supported Python of this machine (the whole suite runs under the one
# of .venv), in a venv that holds the core's own dependencies, pytest and the peers that tests compare with: no array
# library, no MLOps tool. What passes here needs no extra.
#
#   tests/core.sh setup    makes the venvs
#   tests/core.sh run      runs the tests in them
#
# A supported version that the machine lacks is named on standard output; one that is there and fails, fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv="${VENV:-.venv}"
parts=(tests/unit/cli tests/unit/tlog tests/unit/evidence tests/unit/policy tests/unit/services)
inputs="$(cat pyproject.toml constraints.txt | cksum | tr -d ' ')"
unset PYTHONDONTWRITEBYTECODE # installed without byte code: what is imported is compiled then and kept
# What proves the tests or the files that ship, and not the Python version, runs once, in the whole suite: checks taken
# out one by one, policies weakened one by one.
once=(--ignore-glob='*/test_*mutants.py' --ignore=tests/unit/policy/test_shipped.py)

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

# A venv for the program $1 in the directory $2, unless it is there with these inputs.
prepare() {
    local install=(-m pip --disable-pip-version-check install --quiet --quiet --no-compile --constraint constraints.txt)
    [[ -e "$2/.ready-$inputs" ]] && return
    echo "setting up $2 (once)"
    rm -f "$2"/.ready-* # first: what is stopped half-way must not look ready
    rm -rf "$2"
    "$1" -m venv "$2"
    "$2/bin/python" "${install[@]}" \
        hatchling editables pytest pytest-randomly pytest-xdist hypothesis asn1crypto model-signing pyopenssl \
        pydot openlineage-python
    "$2/bin/python" "${install[@]}" --no-build-isolation --editable .
    touch "$2/.ready-$inputs"
}

main="$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)"
found=()
for version in 3.11 3.12 3.13; do
    [[ "$version" == "$main" ]] && continue
    python="$(interpreter "$version")"
    if [[ -z "$python" ]]; then
        echo "core under Python $version: NOT RUN, this machine has no working python$version"
        continue
    fi
    prepare "$python" "$venv/core-$version"
    found+=("$version")
done
[[ "${1:-run}" == setup ]] && exit

# All versions at once, each with its share of the workers, so that one fills the pauses of another.
share=$((${WORKERS:-2} / (${#found[@]} > 0 ? ${#found[@]} : 1)))
failed=0
declare -A running=()
trap 'kill "${running[@]}" 2>/dev/null || true' EXIT # whoever stops this stops them too
for version in "${found[@]}"; do
    "$venv/core-$version/bin/python" -m pytest -q -n "$((share > 1 ? share : 0))" --dist loadscope -p no:cacheprovider \
        "${once[@]}" "${parts[@]}" >"$venv/core-$version.log" 2>&1 &
    running[$version]=$!
done
for version in "${found[@]}"; do
    echo "core under Python $version, no extras"
    wait "${running[$version]}" || failed=1
    unset "running[$version]"
    cat "$venv/core-$version.log"
done
echo "core: run under ${#found[@]} more Python versions${main:+ than $main}"
exit "$failed"
