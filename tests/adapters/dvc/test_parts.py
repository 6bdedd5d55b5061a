"""The parts that need no DVC process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlseal_dvc import gitstate, layout, objects, prepush, progress
from mlseal_dvc.places import DirectoryPlace

from mlseal.errors import Error, Misuse, Refusal, Unreadable
from mlseal.evidence.digest import FileEntry, measure
from mlseal.evidence.identity import Identity

OID = "0123456789abcdef" * 2


def tree(*rows: object) -> bytes:
    return json.dumps(list(rows)).encode()


@pytest.mark.parametrize(
    "rows",
    [
        [{"md5": OID, "relpath": "../x"}],
        [{"md5": OID, "relpath": "/etc/x"}],
        [{"md5": OID, "relpath": "a//b"}],
        [{"md5": OID, "relpath": ""}],
        [{"md5": OID, "relpath": "a\0b"}],
        [{"md5": "../../x", "relpath": "a"}],
        [{"md5": OID.upper(), "relpath": "a"}],
        [{"md5": OID, "relpath": "a"}, {"md5": OID, "relpath": "a"}],
        [{"relpath": "a"}],
        ["a"],
    ],
)
def test_directory_objects_that_dvc_never_writes(rows: list[object]) -> None:
    with pytest.raises(Refusal):
        objects.read_tree(tree(*rows), "x")


@pytest.mark.parametrize("data", [b"", b"{}", b"[", b'[{"md5":1,"md5":2}]', b"\xff"])
def test_directory_objects_that_are_no_lists(data: bytes) -> None:
    with pytest.raises(Error):
        objects.read_tree(data, "x")


def test_content_has_the_digests_of_measure(tmp_path: Path) -> None:
    root = tmp_path / "d"
    (root / "a").mkdir(parents=True)
    files = {"a/x": b"1", "a-b": b"22", "é\n": b"", "z": b"3"}
    for name, data in files.items():
        (root / name).write_bytes(data)
    rows = [{"md5": f"{i:032x}", "relpath": name} for i, name in enumerate(files)]
    digest = {name: FileEntry(name, len(data), objects.sha256(data)) for name, data in files.items()}
    content = objects.content_of_directory("d", f"{OID}.dir", tree(*rows), lambda path, _: digest[path])
    assert content.subjects == measure(root).subjects
    assert content.manifest == measure(root).manifest
    assert content.objects[f"{OID}.dir"] == objects.sha256(tree(*rows))


@pytest.mark.parametrize("name", ["attestations/x", "registered_model_meta"])
def test_names_that_manifests_leave_out_are_not_signed(name: str) -> None:
    with pytest.raises(Refusal, match="leaves out"):
        objects.content_of_directory("d", f"{OID}.dir", tree({"md5": OID, "relpath": name}), lambda *_: pytest.fail())


def test_one_md5_for_two_contents_in_a_directory() -> None:
    rows = tree({"md5": OID, "relpath": "a"}, {"md5": OID, "relpath": "b"})
    with pytest.raises(Refusal, match="share an MD5"):
        objects.content_of_directory(
            "d", f"{OID}.dir", rows, lambda path, _: FileEntry(path, 1, objects.sha256(path.encode()))
        )


@pytest.mark.parametrize("name", ["a\udcff", "a\ud800/b"])
def test_names_that_are_no_text_are_not_signed(name: str) -> None:
    """DVC writes none (`test_broken_encodings`); somebody else's directory object may."""
    with pytest.raises(Error, match=r"not UTF-8|surrogate|UTF-8"):
        objects.content_of_directory(
            "d", f"{OID}.dir", tree({"md5": OID, "relpath": name}), lambda path, _: FileEntry(path, 1, "0" * 64)
        )


@pytest.mark.parametrize(("after", "drawn"), [(0.0, True), (60.0, False)])
def test_a_bar_for_hashing_that_takes_long(
    after: float, drawn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DVC_IGNORE_ISATTY", "true")
    monkeypatch.setattr(progress, "AFTER_SECONDS", after)
    (tmp_path / "x").write_bytes(b"x" * 4096)
    with progress.shown("Hashing"), progress.shown("inner"):
        for _ in range(2):
            objects.hash_file(str(tmp_path / "x"))
        assert (progress._bar._drawn is not None and progress._bar._drawn.n == 8192) is drawn
    said = capfd.readouterr().err
    assert ("Hashing" in said) is drawn
    assert "inner" not in said
    objects.hash_file(str(tmp_path / "x"))  # outside nothing is counted
    assert capfd.readouterr().err == ""


def test_nothing_at_all_is_not_signed() -> None:
    with pytest.raises(Unreadable):
        objects.content_of_directory("d", f"{OID}.dir", tree(), lambda *_: pytest.fail())


def test_quarantine_overwrites_nothing(tmp_path: Path) -> None:
    kept = []
    for text in ("one", "two"):
        (tmp_path / "object").write_text(text)
        kept.append(objects.quarantine(str(tmp_path / "object"), tmp_path / "q", OID))
    assert [path.read_text() for path in kept if path] == ["one", "two"]
    assert objects.quarantine(str(tmp_path / "object"), tmp_path / "q", OID) is None
    assert (tmp_path / "q").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("hash_name", "oid"), [("md5", "../../../x"), ("sha1", OID), ("md5", OID + ".dirx"), ("md5", "")]
)
def test_slots_are_for_object_ids_only(hash_name: str, oid: str) -> None:
    with pytest.raises(Refusal):
        layout.slot(hash_name, oid, "x")


def test_two_signers_and_two_paths_never_share_a_name() -> None:
    names = {
        layout.bundle(layout.slot("md5", OID, path), Identity(issuer, san))
        for path in ("a", "b")
        for issuer, san in (("i", "s"), ("i", "t"), ("i\ns", ""))
    }
    assert len(names) == 6


@pytest.mark.parametrize("origin", ["../x", "a/b", "", "A", ".a", "a..b"])
def test_log_origins_cannot_leave_the_tree(origin: str) -> None:
    with pytest.raises(Refusal):
        layout.log(origin, "checkpoint")


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://user:secret@host/x.git", "https://host/x.git"),
        ("https://host/x?token=1#f", "https://host/x"),
        ("git@github.com:o/r.git", "github.com:o/r.git"),
        ("s3://bucket/key", "s3://bucket/key"),
        ("/srv/a@b", "/srv/a@b"),
    ],
)
def test_urls_lose_their_secrets(url: str, clean: str) -> None:
    assert gitstate.without_credentials(url) == clean


def test_input_of_the_hook() -> None:
    zero = "0" * 40
    lines = f"refs/heads/a {'1' * 40} refs/heads/a {zero}\n(delete) {zero} refs/heads/b {'2' * 40}\n"
    assert list(prepush.pushed(lines)) == [("1" * 40, zero)]
    with pytest.raises(Misuse):
        list(prepush.pushed("nonsense\n"))


def test_a_place_is_whole_or_absent(tmp_path: Path) -> None:
    place = DirectoryPlace(tmp_path / "p")
    assert place.read("a/b") is None
    assert place.names("a") == []
    place.write("a/b", b"x")
    assert place.read("a/b") == b"x"
    assert place.names("a") == ["a/b"]
    (tmp_path / "file").write_text("")
    with pytest.raises(Unreadable):
        DirectoryPlace(tmp_path / "file").write("a/b", b"x")


@pytest.mark.parametrize("command", ["push", "pull"])
def test_outside_of_a_repository_there_is_one_sentence(home: Any, tmp_path: Path, command: str) -> None:
    done = home.run("dvc", command, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"mlseal: {tmp_path} is not inside a DVC repository; remedy: ")
