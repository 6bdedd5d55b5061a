"""The workspace may hold links to the cache: what is signed is read from the cache, and edits through a link are caught."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from adapters.dvc.people import Person, Scene, fresh, oid_in, statement_in
from mlseal_dvc import objects

from mlseal.errors import DigestMismatch
from mlseal.evidence.hashcache import HashCache


def cached(person: Person, pointer: str) -> Path:
    oid = oid_in(person.cwd / pointer)
    return person.cwd / ".dvc/cache/files/md5" / oid[:2] / oid[2:]


def overwritten(path: Path, data: bytes) -> str:
    """A step of a session: a program that writes in place, through whatever link and past the mode."""
    return (
        f"import os; os.chmod({str(path)!r}, 0o644); open({str(path)!r}, 'wb').write({data!r}); "
        f"os.chmod({str(path)!r}, 0o444)"  # which for DVC means that there is nothing to check
    )


def refused(answer: tuple[int, str], why: str) -> bool:
    return answer[0] != 0 and why in answer[1]


NOT_ITS_NAME = "is not what its name says, so it is not signed"
NOT_THE_SIGNED = "these bytes are not the signed ones"


@pytest.mark.slow
@pytest.mark.parametrize("link", ["hardlink", "symlink"])
def test_an_edit_through_a_link_is_caught_at_the_push(scene: Scene, link: str) -> None:
    scene.owner.dvc("config", "cache.type", link)
    data = scene.add("data.csv")
    good, there = data.read_bytes(), scene.object_of("data.csv.dvc")
    assert data.samefile(cached(scene.owner, "data.csv.dvc"))
    answers = scene.owner.session(
        overwritten(data, fresh()),
        ["push"],  # nobody has signed it yet
        f"assert not os.path.exists({str(scene.remote)!r})",
        overwritten(data, good),
        ["push"],
        f"os.unlink({str(there)!r})",
        overwritten(data, fresh()),
        ["push"],  # signed, and asked for again
        overwritten(data, good),
        ["unprotect", "data.csv"],  # what DVC has for editing: a copy
        overwritten(data, fresh()),
        ["push"],
    )
    assert refused(answers[1], NOT_ITS_NAME)
    assert "signed 1 outputs" in answers[4][1]
    assert refused(answers[7], "is not what was signed, so it is not uploaded")
    assert "signed 0 outputs, 1 already signed" in answers[11][1]
    assert there.read_bytes() == good != data.read_bytes()
    (bundle,) = scene.bundles()
    assert statement_in(bundle)["subject"][0]["digest"]["sha256"] == hashlib.sha256(good).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("link", ["hardlink", "symlink"])
def test_a_poisoned_cache_is_not_linked_to(scene: Scene, link: str) -> None:
    scene.owner.dvc("config", "cache.type", link)
    good = scene.add("data.csv").read_bytes()
    scene.owner.dvc("push")
    reader = scene.newcomer()
    placed, kept = reader.cwd / "data.csv", cached(reader, "data.csv.dvc")
    answers = reader.session(
        ["pull"],
        f"import os; assert os.path.samefile({str(placed)!r}, {str(kept)!r}); os.unlink({str(placed)!r})",
        overwritten(kept, fresh()),
        ["checkout"],
        f"assert not os.path.lexists({str(placed)!r}) and not os.path.exists({str(kept)!r})",
        ["pull"],
        overwritten(placed, fresh()),  # through the link that is there
        ["checkout", "--relink"],
        f"assert not os.path.exists({str(kept)!r})",
        ["pull", "--force"],
    )
    assert answers[0][0] == answers[5][0] == answers[9][0] == 0, answers
    assert refused(answers[3], NOT_THE_SIGNED)
    assert refused(answers[7], NOT_THE_SIGNED)
    assert placed.is_symlink() is (link == "symlink")
    assert placed.read_bytes() == kept.read_bytes() == good


def test_a_copy_or_a_reflink_leaves_the_cache_alone(scene: Scene) -> None:
    scene.owner.dvc("config", "cache.type", "reflink,copy")
    data = scene.add("data.csv")
    good = data.read_bytes()
    assert not data.samefile(cached(scene.owner, "data.csv.dvc"))
    data.write_bytes(fresh())
    scene.owner.dvc("push")
    (bundle,) = scene.bundles()
    assert statement_in(bundle)["subject"][0]["digest"]["sha256"] == hashlib.sha256(good).hexdigest()
    assert scene.object_of("data.csv.dvc").read_bytes() == good


@pytest.mark.parametrize("size", [10, objects._LARGE + 1])
def test_objects_must_have_the_md5_of_their_name(tmp_path: Path, size: int) -> None:
    path = tmp_path / "object"
    path.write_bytes(b"x" * size)
    md5 = objects.md5(b"x" * size)
    with HashCache(tmp_path / "cache") as cache:
        (found,) = objects.hash_for_signing({str(path): md5}, cache).values()
        assert found.sha256 == hashlib.sha256(b"x" * size).hexdigest()
        assert objects.hash_for_signing({str(path): None}, cache)
        with pytest.raises(DigestMismatch, match="not what its name says"):
            objects.hash_for_signing({str(path): "0" * 32}, cache)
    with pytest.raises(DigestMismatch):
        objects.require_named(md5, "0" * 32 + ".dir", "x")
    objects.require_named(md5, f"{md5}.dir", "x")
