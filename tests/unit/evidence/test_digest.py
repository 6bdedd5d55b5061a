"""Subjects are what the bytes say, names included, and nothing else."""

import hashlib
import os
import time

import pytest

from mlseal.errors import Misuse, Refusal, Unreadable
from mlseal.evidence import oms
from mlseal.evidence.digest import FileEntry, Manifest, measure
from mlseal.evidence.hashcache import HashCache


@pytest.fixture
def model(tmp_path):
    root = tmp_path / "model"
    (root / "sub").mkdir(parents=True)
    (root / "weights.bin").write_bytes(b"w" * 5000)
    (root / "config.json").write_bytes(b"{}")
    (root / "sub" / "vocab.txt").write_bytes(b"a\nb\n")
    return root


def test_file_is_one_subject_with_the_digest_of_its_bytes(tmp_path):
    file = tmp_path / "data.csv"
    file.write_bytes(b"x,y\n1,2\n")
    measured = measure(file)
    assert [(s.name, s.sha256) for s in measured.subjects] == [("data.csv", hashlib.sha256(b"x,y\n1,2\n").hexdigest())]
    assert measured.sha256 == measured.subjects[0].sha256


def test_directory_is_two_subjects_and_the_second_binds_names(model):
    before = measure(model)
    (model / "config.json").rename(model / "config2.json")
    after = measure(model)
    assert before.subjects[0].sha256 == after.subjects[0].sha256, (
        "the OMS root does not bind names; if it now does, simplify"
    )
    assert before.sha256 != after.sha256


@pytest.mark.parametrize("change", ["add", "remove", "edit", "grow", "git", "hidden"])
def test_every_change_of_content_changes_the_digest(model, change):
    before = measure(model).sha256
    if change == "add":
        (model / "extra.py").write_bytes(b"x")
    elif change == "remove":
        (model / "sub" / "vocab.txt").unlink()
    elif change == "edit":
        (model / "weights.bin").write_bytes(b"w" * 4999 + b"W")
    elif change == "grow":
        (model / "config.json").write_bytes(b"{} ")
    elif change == "git":
        (model / ".git").mkdir()
        (model / ".git" / "hook").write_bytes(b"evil")
    else:
        (model / ".hidden").write_bytes(b"")
    assert measure(model).sha256 != before


def test_only_the_two_names_at_the_root_are_left_out(model):
    before = measure(model).sha256
    (model / "registered_model_meta").write_bytes(b"model_name: a")
    (model / "attestations").mkdir()
    (model / "attestations" / "x.sigstore.json").write_bytes(b"{}")
    assert measure(model).sha256 == before
    (model / "sub" / "registered_model_meta").write_bytes(b"not at the root")
    assert measure(model).sha256 != before


def test_manifest_is_canonical_and_round_trips(model):
    manifest = measure(model).manifest
    assert [f.path for f in manifest.files] == ["config.json", "sub/vocab.txt", "weights.bin"]
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    import rfc8785

    for line in manifest.to_bytes().splitlines():
        import json

        assert rfc8785.dumps(json.loads(line)) == line


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}\n",
        b'{"path":"b","sha256":"00","size":1}\n{"path":"a","sha256":"00","size":1}\n',
        b'{"path":"a","sha256":"00","size":1}\n{"path":"a","sha256":"00","size":1}\n',
        b'{"path": "a","sha256":"00","size":1}\n',
        b"\xff\n",
    ],
)
def test_manifest_that_is_not_canonical_is_refused(data):
    if data == b"":
        assert Manifest(()).to_bytes() == b"\n"  # an empty manifest cannot be read back, nor made by measure
    with pytest.raises(Refusal):
        Manifest.from_bytes(data)


@pytest.mark.parametrize("name", ["naïve é", "line\nbreak", 'quote"d', "tab\tname", "\x7f", "\u2028", "😀", "a b"])
def test_odd_names_are_bound_exactly(tmp_path, name):
    import rfc8785

    root = tmp_path / "d"
    root.mkdir()
    (root / name).write_bytes(b"1")
    manifest = measure(root).manifest
    assert manifest.files[0].path == name
    assert (
        manifest.to_bytes()
        == rfc8785.dumps({"path": name, "sha256": hashlib.sha256(b"1").hexdigest(), "size": 1}) + b"\n"
    )
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


def test_composed_and_decomposed_names_are_two_files(tmp_path):
    root = tmp_path / "d"
    root.mkdir()
    (root / "e\u0301").write_bytes(b"1")
    (root / "\u00e9").write_bytes(b"2")
    assert len(measure(root).manifest.files) == 2


def test_name_that_is_not_utf8_is_refused(tmp_path):
    root = tmp_path / "d"
    root.mkdir()
    with open(os.path.join(os.fsencode(root), b"\xff\xfe"), "wb") as file:
        file.write(b"1")
    with pytest.raises(Unreadable, match="not UTF-8"):
        measure(root)


def test_oms_order_is_by_component(tmp_path):
    root = tmp_path / "d"
    (root / "a").mkdir(parents=True)
    (root / "a-b").mkdir()
    (root / "a" / "x").write_bytes(b"1")
    (root / "a-b" / "x").write_bytes(b"2")
    manifest = measure(root).manifest
    assert [f.path for f in manifest.files] == ["a-b/x", "a/x"]
    assert [f.path for f in manifest.in_oms_order] == ["a/x", "a-b/x"]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda p: None, Unreadable),
        (lambda p: p.mkdir(), Unreadable),
        (lambda p: p.write_bytes(b""), Unreadable),
        (lambda p: (p.mkdir(), (p / "empty").write_bytes(b"")), Unreadable),
        (lambda p: os.mkfifo(p), Misuse),
        (lambda p: (p.mkdir(), (p / "f").write_bytes(b"1"), os.mkfifo(p / "pipe")), Unreadable),
    ],
)
def test_nothing_to_hash_is_not_success(tmp_path, make, error):
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(error):
        measure(path)


def test_links_inside_are_followed_and_links_outside_refused(tmp_path):
    root = tmp_path / "d"
    root.mkdir()
    (root / "a").write_bytes(b"1")
    (root / "b").symlink_to("a")
    assert {f.path: f.sha256 for f in measure(root).manifest.files}["b"] == hashlib.sha256(b"1").hexdigest()
    outside = tmp_path / "cache"
    outside.mkdir()
    (outside / "c").write_bytes(b"2")
    (root / "c").symlink_to(outside / "c")
    with pytest.raises(Refusal, match="leaves the directory"):
        measure(root)
    assert len(measure(root, allow_links_to=[outside]).manifest.files) == 3


def test_link_to_a_directory_above_is_refused(tmp_path):
    root = tmp_path / "d"
    (root / "sub").mkdir(parents=True)
    (root / "a").write_bytes(b"1")
    (root / "sub" / "up").symlink_to("..")
    with pytest.raises(Refusal, match="links back"):
        measure(root)


def test_sibling_with_a_common_prefix_is_outside(tmp_path):
    root, sibling = tmp_path / "d", tmp_path / "d-evil"
    root.mkdir()
    sibling.mkdir()
    (root / "a").write_bytes(b"1")
    (sibling / "x").write_bytes(b"2")
    (root / "x").symlink_to(sibling / "x")
    with pytest.raises(Refusal):
        measure(root)


def test_cache_gives_the_same_digest_and_notices_a_change(tmp_path, model):
    os.utime(model / "weights.bin", (1, 1))
    time.sleep(2.2)  # younger files are not remembered
    with HashCache(tmp_path / "cache") as cache:
        first = measure(model, cache=cache)
    with HashCache(tmp_path / "cache") as cache:
        assert all(cache.known([file.stat() for file in model.rglob("*") if file.is_file()]))
        assert measure(model, cache=cache).subjects == first.subjects
    status = (model / "weights.bin").stat()
    (model / "weights.bin").write_bytes(b"v" * 5000)
    os.utime(model / "weights.bin", ns=(status.st_atime_ns, status.st_mtime_ns))  # what touch -r does; ctime betrays it
    with HashCache(tmp_path / "cache") as cache:
        assert measure(model, cache=cache).sha256 == measure(model).sha256 != first.sha256


def test_young_files_are_not_remembered(tmp_path, model):
    with HashCache(tmp_path / "cache") as cache:
        measure(model, cache=cache)
    with HashCache(tmp_path / "cache") as cache:
        assert cache.known([(model / "weights.bin").stat()]) == [None]


def test_damaged_cache_only_costs_time(tmp_path, model):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "sha256.db").write_bytes(b"not a database" * 100)
    with HashCache(tmp_path / "cache") as cache:
        assert measure(model, cache=cache).sha256 == measure(model).sha256


def test_cache_directory_is_private(tmp_path):
    with HashCache(tmp_path / "cache"):
        assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_unreadable_file_is_named(tmp_path, model):
    (model / "weights.bin").chmod(0)
    if os.getuid() != 0:
        with pytest.raises(Unreadable, match="weights.bin"):
            measure(model)
        return
    # Root reads everything, so a child gives up root. It is forked, since another user may not read the interpreter.
    for parent in (model, *model.parents):
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setuid(65534)
            measure(model)
            text = "measured"
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    text = os.read(reader, 4096).decode()
    os.close(reader)
    assert text.startswith("Unreadable: cannot read") and "weights.bin" in text, text


def test_oms_statement_lists_names_and_notices_every_difference(model):
    measured = measure(model)
    said = oms.make(measured)
    oms.require_names(said, measured.manifest)
    renamed = Manifest(
        tuple(
            FileEntry(f.path + "x" if i == 0 else f.path, f.size, f.sha256)
            for i, f in enumerate(measured.manifest.files)
        )
    )
    with pytest.raises(Refusal, match="differ"):
        oms.require_names(said, renamed)
    with pytest.raises(Refusal):
        oms.require_names(said, Manifest(measured.manifest.files[1:]))


def test_oms_of_a_single_file_is_misuse(tmp_path):
    (tmp_path / "f").write_bytes(b"1")
    with pytest.raises(Misuse):
        oms.make(measure(tmp_path / "f"))


def test_our_root_is_that_of_model_signing(model):
    from model_signing import hashing
    from model_signing._signing.signing import Payload

    manifest = hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False).hash(model)
    assert Payload(manifest).statement.pb.subject[0].digest["sha256"] == measure(model).manifest.oms_root
