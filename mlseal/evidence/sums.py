"""``SHA256SUMS``: a publisher's list of digests, read strictly and compared with files one by one.

Both formats that sha256sum writes are read, ``DIGEST  NAME`` (also ``DIGEST *NAME``, its mark for binary) and the BSD
one, ``SHA256 (NAME) = DIGEST``, with its escapes for odd names (a line that begins with a backslash), with LF or with
CRLF throughout. Anything else is refused: a line that is passed over could be the one that matters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mlseal.errors import DigestMismatch, MalformedEvidence
from mlseal.evidence.digest import Measured

MAX_BYTES = 32 * 1024 * 1024
_GNU = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)", re.DOTALL)
_BSD = re.compile(r"(\\?)SHA256 \((.+)\) = ([0-9a-fA-F]{64})", re.DOTALL)
_ESCAPES = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}


def parse(data: bytes) -> dict[str, str]:
    """Name → lower-case hex digest of every line.

    Names are relative POSIX paths; ``./`` before one is dropped. Raises `MalformedEvidence` for a line of another form,
    a name that leaves its directory or stands there twice, mixed line ends, what is not UTF-8, and an empty list.
    """
    if len(data) > MAX_BYTES:
        raise MalformedEvidence("SHA256SUMS is too large", got=f"{len(data)} bytes", expected=f"at most {MAX_BYTES}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedEvidence("SHA256SUMS is not UTF-8", got=str(error)[:120]) from error
    lines = _lines(text)
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, digest = _entry(line, number)
        if name in found:
            raise MalformedEvidence(f"SHA256SUMS line {number} names a file twice", got=repr(name)[:120])
        found[name] = digest
    if not found:
        raise MalformedEvidence("SHA256SUMS lists no file", expected="one line per file")
    return found


def require_equal(listed: Mapping[str, str], measured: Measured) -> int:
    """The number of files compared: of a directory exactly those listed, of a file the one listed under its name.

    Raises `DigestMismatch` naming the files that differ, are not listed, or are listed and not there.
    """
    if measured.manifest is None:
        expected = listed.get(measured.path.name)
        if expected != measured.sha256:
            raise DigestMismatch(
                f"{measured.path.name} is not as SHA256SUMS lists it",
                got=measured.sha256,
                expected=expected or "a line with exactly this name",
                remedy="fetch the file again from its publisher",
            )
        return 1
    present = {file.path: file.sha256 for file in measured.manifest.files}
    wrong = {
        "changed": [name for name, digest in listed.items() if present.get(name, digest) != digest],
        "not listed": [name for name in present if name not in listed],
        "not there": [name for name in listed if name not in present],
    }
    if any(wrong.values()):
        words = [f"{what}: {', '.join(map(repr, sorted(names)[:3]))}" for what, names in wrong.items() if names]
        raise DigestMismatch(
            "the files are not those that SHA256SUMS lists",
            got="; ".join(words)[:400],
            expected="exactly the files listed, no more and no fewer",
            remedy="fetch them again; keep SHA256SUMS and its signature beside the directory, not in it",
        )
    return len(present)


def _lines(text: str) -> list[str]:
    """The lines without their ends, which must all be of one kind."""
    lines = text.removesuffix("\n").split("\n") if text else []
    ended = [line.endswith("\r") for line in lines]
    if any(ended) and not all(ended):
        raise MalformedEvidence("SHA256SUMS mixes line ends", expected="LF throughout, or CRLF throughout")
    return [line.removesuffix("\r") for line in lines]


def _entry(line: str, number: int) -> tuple[str, str]:
    if gnu := _GNU.fullmatch(line):
        escaped, digest, name = gnu.groups()
    elif bsd := _BSD.fullmatch(line):
        escaped, name, digest = bsd.groups()
    else:
        raise MalformedEvidence(
            f"SHA256SUMS line {number} is not a digest and a name",
            got=repr(line)[:120],
            expected="what sha256sum or 'sha256sum --tag' writes",
        )
    if escaped:
        name = _unescaped(name, number)
    return _contained(name.removeprefix("./"), number), digest.lower()


def _unescaped(name: str, number: int) -> str:
    if re.search(r"\\(?![\\nr])", re.sub(r"\\[\\nr]", "", name)):
        raise MalformedEvidence(f"SHA256SUMS line {number} has an unknown escape", got=repr(name)[:120])
    return re.sub(r"\\[\\nr]", lambda found: _ESCAPES[found[0]], name)


def _contained(name: str, number: int) -> str:
    parts = name.split("/")
    if "\0" in name or any(part in {"", ".", ".."} for part in parts):
        raise MalformedEvidence(
            f"SHA256SUMS line {number} names a path outside its directory, or not in its plain form",
            got=repr(name)[:120],
            expected="a relative path without empty parts, '.' and '..'",
        )
    return name
