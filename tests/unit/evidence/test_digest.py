"""Subjects are what the bytes say, names included, and nothing else."""

import hashlib
import os
import time

import pytest

from mlseal.errors import Misuse, Refusal, Unreadable
from mlseal.evidence import oms
from mlseal.evidence.digest import FileEntry, Manifest, measure, sha256_of, stamp_of
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
        b'{"path":"\\ud800","sha256":"00","size":1}\n',
        b'{"path":"a","sha256":"%s","size":01}\n' % (b"ab" * 32),
        b'{"path":"a","sha256":"%s","size":1}\n\n' % (b"ab" * 32),
        b'{"path":"a","sha256":"%s","size":1}' % (b"ab" * 32),
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


@pytest.mark.parametrize(
    "names", [["a", "é", "\x7f", "\u2028", "😀", "\uffff"], ["a", 'quote"d', "😀"], ["a", "\\", "b"]]
)
def test_manifest_lines_are_those_of_rfc8785(names):
    import rfc8785

    entries = tuple(FileEntry(name, 3, "ab" * 32) for name in sorted(names, key=str.encode))
    lines = [rfc8785.dumps({"path": e.path, "sha256": e.sha256, "size": e.size}) + b"\n" for e in entries]
    assert Manifest(entries).to_bytes() == b"".join(lines)
    again = Manifest.from_bytes(b"".join(lines))
    assert again.files == entries
    assert again.sha256 == Manifest(entries).sha256 == hashlib.sha256(b"".join(lines)).hexdigest()


def test_paths_sort_by_their_bytes(tmp_path):
    root = tmp_path / "d"
    names = ["a", "a b", "a-b/x", "a/x", "a.b", "B", "é", "\uffee", "😀", "~"]
    for name in names:
        file = root / ("a_" + name if name == "a" else name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"1")
    paths = [f.path for f in measure(root).manifest.files]
    assert paths == sorted(paths, key=str.encode)
    assert len(paths) == len(names)


@pytest.mark.parametrize("more", ["", "a\0b"])
def test_oms_order_is_that_of_the_components(more):
    paths = sorted(filter(None, ["a/x", "a-b/x", "a/x-y", "a/x/y", "a b", "a", "b/é", "b/e", more]), key=str.encode)
    manifest = Manifest(tuple(FileEntry(path, 1, "ab" * 32) for path in paths))
    assert [f.path for f in manifest.in_oms_order] == sorted(paths, key=lambda path: path.split("/"))


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
        assert all(cache.known([stamp_of(file.stat()) for file in model.rglob("*") if file.is_file()]))
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
        assert cache.known([stamp_of((model / "weights.bin").stat())]) == [None]


def test_file_that_was_young_when_asked_about_is_not_remembered_however_long_reading_it_takes(tmp_path, model):
    stamp = stamp_of((model / "weights.bin").stat())
    with HashCache(tmp_path / "cache") as cache:
        assert cache.known([stamp]) == [None]
        time.sleep(2.2)
        cache.remember(stamp, "ab" * 32)
    with HashCache(tmp_path / "cache") as cache:
        assert cache.known([stamp]) == [None]
        cache.remember(stamp, "ab" * 32)
    with HashCache(tmp_path / "cache") as cache:
        assert cache.known([stamp]) == ["ab" * 32]


def test_cache_answers_only_for_exactly_the_same_stamp(tmp_path):
    """Inodes in a run are asked for by range, scattered ones by list; neither gives what was not asked for exactly."""
    run = [(7, 100 + i, 5, 10, 10) for i in range(200) if i % 9]
    scattered = [(7, 10_000 * i, 5, 10, 10) for i in range(1, 1200)]
    other_device = [(8, 100 + i, 5, 10, 10) for i in range(0, 200, 2)]
    stamps = [*run, *scattered, *other_device]
    with HashCache(tmp_path / "cache") as cache:
        assert cache.known(stamps) == [None] * len(stamps)
        for number, stamp in enumerate(stamps):
            cache.remember(stamp, f"{number:064x}")
    with HashCache(tmp_path / "cache") as cache:
        assert cache.known(stamps) == [f"{number:064x}" for number in range(len(stamps))]
        for place in range(5):
            moved = [tuple(v + (i == place) * 10**9 for i, v in enumerate(stamp)) for stamp in stamps]
            assert cache.known(moved) == [None] * len(stamps)
        assert cache.known([]) == []


def test_cache_keeps_one_row_per_file(tmp_path):
    for mtime in (10, 20):
        with HashCache(tmp_path / "cache") as cache:
            cache.known([(7, 1, 5, mtime, mtime)])
            cache.remember((7, 1, 5, mtime, mtime), "ab" * 32)
    with HashCache(tmp_path / "cache") as cache:
        assert cache.known([(7, 1, 5, 10, 10), (7, 1, 5, 20, 20)]) == [None, "ab" * 32]


def test_damaged_cache_only_costs_time(tmp_path, model):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "sha256.db").write_bytes(b"not a database" * 100)
    with HashCache(tmp_path / "cache") as cache:
        assert measure(model, cache=cache).sha256 == measure(model).sha256


def test_cache_directory_is_private(tmp_path):
    with HashCache(tmp_path / "cache"):
        assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("expected", [0, 1, 5000, 5001, 1 << 21])
def test_all_bytes_are_hashed_whatever_size_was_expected(model, expected):
    descriptor = os.open(model / "weights.bin", os.O_RDONLY)
    assert sha256_of(descriptor, expected) == hashlib.sha256(b"w" * 5000).hexdigest()
    os.close(descriptor)


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
