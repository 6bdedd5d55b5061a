"""What is committed belongs to everybody: no path of one machine, no private host, no key, nothing large."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Written in two parts, so that this file does not hold them.
PLACES = ("/" + "work/", "/" + "root/", "/" + "opt/pypi", "/" + "tmp/v/")
MACHINE = re.compile(r"(?<![\w.-])(" + "|".join(map(re.escape, PLACES)) + ")")
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE " + rb"KEY-----\s+[A-Za-z0-9+/=]{40}")


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    files = [ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    return [file for file in files if file.is_file()]


def test_there_are_tracked_files():
    assert len(tracked()) > 100


def test_no_file_names_a_place_of_one_machine():
    found = {}
    for file in tracked():
        text = file.read_bytes().decode("utf-8", "replace")
        if match := MACHINE.search(text) or re.search(re.escape(str(ROOT)) + r"\b", text):
            found[str(file.relative_to(ROOT))] = match[0].strip()
    assert found == {}


def test_no_file_holds_a_private_key():
    assert [str(f.relative_to(ROOT)) for f in tracked() if PRIVATE_KEY.search(f.read_bytes())] == []


def test_no_file_is_large():
    assert {str(f.relative_to(ROOT)): f.stat().st_size for f in tracked() if f.stat().st_size > 1_000_000} == {}


def test_no_link_leads_out_of_the_tree():
    assert [str(f.relative_to(ROOT)) for f in tracked() if f.is_symlink() and ROOT not in f.resolve().parents] == []


def test_locks_name_no_host_but_the_public_ones():
    constraints = (ROOT / "constraints.txt").read_text()
    assert not re.search(r"://| @ |^-", constraints, re.MULTILINE)
    for place in ("tests/stock/js", "tests/browser"):
        lock = json.loads((ROOT / place / "package-lock.json").read_text())
        for package in lock["packages"].values():
            assert package.get("resolved", "https://registry.npmjs.org/").startswith("https://registry.npmjs.org/")
        assert all("integrity" in package for path, package in lock["packages"].items() if path)


def test_every_constraint_is_exact():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9.-]+==[0-9][A-Za-z0-9.+!]*(; .*)?", line)] == []


@pytest.mark.parametrize("script", [".ci/run", "tests/core.sh"])
def test_scripts_can_be_run(script):
    assert os.access(ROOT / script, os.X_OK)
    assert "set -euo pipefail" in (ROOT / script).read_text()
