"""A publisher's SHA256SUMS: every form that sha256sum writes is read, and nothing else."""

import hashlib
import subprocess

import pytest

from mlseal.errors import DigestMismatch, MalformedEvidence
from mlseal.evidence import sums
from mlseal.evidence.digest import measure

A, B = hashlib.sha256(b"a").hexdigest(), hashlib.sha256(b"b").hexdigest()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{A}  a\n{B}  sub/b\n", {"a": A, "sub/b": B}),
        (f"{A} *a\n", {"a": A}),
        (f"SHA256 (a) = {A}\nSHA256 (b (1)) = {B}\n", {"a": A, "b (1)": B}),
        (f"{A}  a\r\n{B}  b\r\n", {"a": A, "b": B}),
        (f"{A.upper()}  ./a", {"a": A}),
        (f"\\{A}  odd\\nname\\\\x\n", {"odd\nname\\x": A}),
        (f"{A}   leading blank\n", {" leading blank": A}),
    ],
    ids=["gnu", "binary mark", "bsd", "crlf", "upper case", "escapes", "blank"],
)
def test_every_form_is_read(text, expected):
    assert sums.parse(text.encode()) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        f"{A} a\n",
        f"{A}  a\n\n{B}  b\n",
        f"# comment\n{A}  a\n",
        f"{A[:-1]}  a\n",
        f"MD5 (a) = {A}\n",
        f"{A}  a\n{A}  a\n",
        f"{A}  a\n{B}  ./a\n",
        f"{A}  /etc/passwd\n",
        f"{A}  ../a\n",
        f"{A}  x/../a\n",
        f"{A}  x//a\n",
        f"{A}  a/\n",
        f"{A}  a\0b\n",
        f"{A}  a\r\n{B}  b\n",
        f"\\{A}  a\\tb\n",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(MalformedEvidence):
        sums.parse(text.encode())


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(MalformedEvidence, match="UTF-8"):
        sums.parse(f"{A}  ".encode() + b"\xff\n")


@pytest.fixture
def directory(tmp_path):
    root = tmp_path / "data"
    (root / "sub").mkdir(parents=True)
    (root / "a").write_bytes(b"a")
    (root / "sub" / "odd\nname").write_bytes(b"b")
    return root


@pytest.mark.parametrize("form", [["-b"], ["--tag"], ["-t"]])
def test_what_sha256sum_writes_agrees_with_what_we_hash(directory, form):
    done = subprocess.run(["sha256sum", *form, "a", "sub/odd\nname"], cwd=directory, capture_output=True, check=True)
    assert sums.require_equal(sums.parse(done.stdout), measure(directory)) == 2


@pytest.mark.parametrize(
    ("listed", "word"),
    [
        ({"a": A, "sub/odd\nname": A}, "changed"),
        ({"a": A}, "not listed"),
        ({"a": A, "sub/odd\nname": B, "c": A}, "not there"),
        ({"A": A, "sub/odd\nname": B}, "not there"),
    ],
)
def test_a_file_too_many_too_few_or_changed_is_refused(directory, listed, word):
    with pytest.raises(DigestMismatch, match=word):
        sums.require_equal(listed, measure(directory))


def test_a_single_file_is_the_line_of_its_own_name(directory):
    one = measure(directory / "a")
    assert sums.require_equal({"a": A, "other": B}, one) == 1
    for listed in ({"b": A}, {"a": B}, {"x/a": A}):
        with pytest.raises(DigestMismatch):
            sums.require_equal(listed, one)
