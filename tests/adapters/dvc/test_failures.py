"""Things break while a push runs. Whatever happens: no data without evidence, and the next push mends it."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
from adapters.dvc.people import Scene, fresh, replace

# Runs `dvc push` and kills the process, as SIGKILL would, right before the Nth file of a kind is put in place.
KILLER = """
import os, sys
at, kind = int(sys.argv[1]), sys.argv[2]
real = os.replace
seen = 0
def replace(source, target, **kwargs):
    global seen
    if kind in os.fspath(target):
        seen += 1
        if seen == at:
            os.kill(os.getpid(), 9)
    return real(source, target, **kwargs)
os.replace = replace
sys.argv = ["dvc", "push"]
from dvc.cli import main
sys.exit(main(["push"]))
"""


def state(scene: Scene) -> tuple[int, int]:
    return len(scene.bundles()), len(scene.objects())


def evidence_covers_data(scene: Scene) -> bool:
    """Every object on the remote belongs to an output whose bundle is there."""
    from adapters.dvc.people import statement_in

    oids = {statement_in(b)["predicate"]["dvc"]["oid"] for b in scene.bundles()}
    finished = [
        path for path in scene.objects() if re.fullmatch("[0-9a-f]{30}", path.name)
    ]  # others are DVC's partial copies
    return all(path.parent.name + path.name in oids for path in finished)


def test_without_a_signer_nothing_is_uploaded(scene: Scene) -> None:
    scene.add("data.csv")
    reader = scene.newcomer()  # has the public root only, so cannot sign
    (reader.cwd / "own.csv").write_bytes(fresh())
    reader.dvc("add", "-q", "own.csv")
    done = reader.dvc("push", ok=False)
    assert "names no services to sign with" in done.stderr
    assert state(scene) == (0, 0)
    done = reader.mlseal("dvc", "push", ok=False)
    assert done.returncode in (2, 11)


def test_service_gone(scene: Scene, new_authority) -> None:
    other = new_authority(enter=False)
    scene.add("data.csv")
    other.stop()
    # The service would be started on demand; without its state directory it cannot.
    other.state.rename(other.state.with_name("gone"))
    done = scene.owner.dvc("push", ok=False, MLSEAL_TRUST=str(other.dir / "trust_config.json"))
    assert "Traceback" not in done.stderr
    assert state(scene) == (0, 0)
    other.state.with_name("gone").rename(other.state)
    scene.owner.dvc("push")
    assert state(scene) == (1, 1)


@pytest.mark.parametrize(
    ("kind", "at"),
    [
        ("attestations", 1),
        ("attestations", 2),
        ("attestations", 4),
        ("bundles/", 2),
        ("unpublished", 1),
        ("evidence/", 1),
        ("files/md5", 1),
    ],
)
def test_killed_at_a_write(scene: Scene, kind: str, at: int) -> None:
    scene.add("data.csv")
    code = [str(scene.owner.python), "-c", KILLER, str(at), kind]
    done = scene.owner.run(*code, ok=None)
    assert done.returncode in (0, -9), done.stderr
    assert evidence_covers_data(scene)
    assert not [p for p in scene.evidence.rglob("*") if p.is_file() and p.stat().st_size == 0]
    scene.owner.dvc("push")
    assert len(scene.bundles()) == 1
    assert scene.object_of("data.csv.dvc").exists()
    scene.newcomer().dvc("pull")


def test_two_clones_push_at_once(scene: Scene) -> None:
    """Two clones of one person, the same new data: both end well, evidence is valid whoever wrote last."""
    data = fresh()
    scene.add("data.csv", data)
    second = scene.newcomer("second")
    second.env = scene.owner.env | {"DVC_SITE_CACHE_DIR": second.env["DVC_SITE_CACHE_DIR"]}
    (second.cwd / "data.csv").write_bytes(data)
    second.dvc("add", "-q", "data.csv")
    running = [
        subprocess.Popen(
            [str(p.python), "-m", "dvc", "push"], cwd=p.cwd, env=p.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for p in (scene.owner, second)
    ]
    for process in running:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors.decode()
    assert state(scene) == (1, 1)
    scene.newcomer().dvc("pull")


def test_interrupted_upload_is_completed_without_signing_again(scene: Scene) -> None:
    scene.add("imgs", {"a": fresh(), "b": fresh()})
    scene.owner.dvc("push")
    for path in scene.objects():
        path.unlink()
    done = scene.owner.dvc("push")
    assert "signed 0 outputs, 1 already signed" in done.stderr
    assert len(scene.objects()) == 3
    scene.newcomer().dvc("pull")


def test_evidence_lost_on_the_remote_is_put_back(scene: Scene) -> None:
    import shutil

    scene.add("imgs", {"a": fresh()})
    scene.owner.dvc("push")
    shutil.rmtree(scene.evidence)
    assert "signed 0 outputs, 1 already signed" in scene.owner.dvc("push").stderr
    scene.newcomer().dvc("pull")


def test_partial_cache_carries_verified_digests_over(scene: Scene) -> None:
    scene.add("imgs", {"a": fresh(), "b": fresh(), "c": fresh()})
    scene.owner.dvc("push")
    worker = scene.newcomer("worker")
    worker.env |= {k: v for k, v in scene.owner.env.items() if k.startswith("XDG_")}  # may sign, own state
    worker.dvc("pull", "imgs/a")
    (worker.cwd / "imgs" / "new").write_bytes(fresh())
    worker.dvc("add", "-q", "imgs/new")
    worker.commit("new file")
    worker.dvc("push")
    worker.git("push", "-q", "origin", "HEAD:refs/heads/next")
    reader = scene.newcomer()
    reader.git("fetch", "-q")
    reader.git("checkout", "-q", "origin/next")
    reader.dvc("pull")
    assert sorted(p.name for p in (reader.cwd / "imgs").iterdir()) == ["a", "b", "c", "new"]


def test_partial_cache_without_verified_evidence_is_not_signed(scene: Scene) -> None:
    """What is carried over comes from evidence that verifies, never from what lies about."""
    scene.add("imgs", {"a": fresh(), "b": fresh()})
    scene.owner.dvc("push")
    worker = scene.newcomer("worker")
    worker.env |= {k: v for k, v in scene.owner.env.items() if k.startswith("XDG_")}
    worker.dvc("pull", "imgs/a")
    (worker.cwd / "imgs" / "new").write_bytes(fresh())
    worker.dvc("add", "-q", "imgs/new")
    worker.commit("new file")
    worker.env["MLSEAL_STATE_DIR"] = str(scene.remote.parent / "forgetful")  # no copies of evidence of its own
    (earlier,) = scene.bundles()
    manifest = next(scene.evidence.glob("manifests/*/*"))
    intact = manifest.read_bytes()
    replace(manifest, intact.replace(b'"path":"b"', b'"path":"c"'))
    assert manifest.read_bytes() != intact
    assert "only partly in the cache" in worker.dvc("push", ok=False).stderr
    assert scene.bundles() == [earlier]
    assert len(scene.objects()) == 3
    replace(manifest, intact)
    worker.dvc("push")
    assert len(scene.bundles()) == 2


def test_unsignable_content_is_refused_in_one_sentence(scene: Scene) -> None:
    scene.add("dir", {"attestations/x": fresh(), "y": fresh()})
    done = scene.owner.dvc("push", ok=False)
    assert "leaves out of manifests" in done.stderr
    assert "Traceback" not in done.stderr
    assert state(scene) == (0, 0)


def test_broken_encodings(scene: Scene) -> None:
    """DVC takes no name that is not UTF-8, as an output or inside of one: told, nothing lost, nothing sent."""
    directory, file = os.fsencode(scene.repo) + b"/dir", os.fsencode(scene.repo) + b"/\xfe.csv"
    os.mkdir(directory)
    for name in (directory + b"/\xff.csv", file):
        with open(name, "wb") as made:
            made.write(fresh())
    for target in ("dir", os.fsdecode(b"\xfe.csv")):
        done = scene.owner.dvc("add", target, ok=False)
        assert "Traceback" not in done.stderr
        assert "codec can't encode" in done.stdout + done.stderr
    scene.owner.dvc("push")
    assert state(scene) == (0, 0)
    assert os.listdir(directory) == [b"\xff.csv"]
    assert os.path.getsize(file)


def test_empty_file(scene: Scene) -> None:
    scene.add("empty.csv", b"")
    assert "is empty" in scene.owner.dvc("push", ok=False).stderr
    assert state(scene) == (0, 0)


def test_internals_that_differ_refuse_everything(scene: Scene) -> None:
    scene.add("data.csv")
    for change in ("dvc.version_tuple = (3, 99, 0)", "import dvc_data.fs; del dvc_data.fs.DataFileSystem._get_key"):
        code = f"import sys, dvc\n{change}\nfrom dvc.cli import main\nsys.exit(main(['push']))"
        done = scene.owner.run(str(scene.owner.python), "-c", code, ok=False)
        assert "not the one that mlseal knows how to protect" in done.stderr
        assert "Traceback" not in done.stderr
    assert state(scene) == (0, 0)


def test_read_only_remote_leaves_one_sentence(scene: Scene) -> None:
    scene.add("data.csv")
    scene.remote.parent.joinpath("remote").write_text("a file where the remote should be")
    done = scene.owner.dvc("push", ok=False)
    assert "Traceback" not in done.stderr


def test_own_unpushed_data(scene: Scene) -> None:
    """Checked out again only once signed; left alone while the workspace holds them; signing needs no upload."""
    data = scene.add("data.csv")
    content = data.read_bytes()
    scene.owner.dvc("checkout")  # nothing would change, so nothing is at stake
    data.unlink()
    assert "no provenance of data.csv" in scene.owner.dvc("checkout", ok=False).stderr
    scene.owner.mlseal("dvc", "sign", "data.csv")
    assert state(scene) == (0, 0)
    scene.owner.dvc("checkout")
    assert data.read_bytes() == content
    assert "signed 0 outputs, 1 already signed" in scene.owner.dvc("push").stderr
    assert state(scene) == (1, 1)


def test_repro_restores_nothing_that_contradicts_evidence(scene: Scene) -> None:
    scene.add("data.csv")
    (scene.repo / "dvc.yaml").write_text(
        "stages:\n  twice:\n    cmd: cat data.csv data.csv > out.csv\n    deps: [data.csv]\n    outs: [out.csv]\n"
    )
    scene.owner.dvc("repro", "-q")
    scene.owner.commit()
    scene.owner.dvc("push")
    (scene.repo / "out.csv").unlink()
    lock = (scene.repo / "dvc.lock").read_text()
    oid = [line.split()[-1] for line in lock.splitlines() if "md5:" in line][-1]
    replace(scene.repo / ".dvc/cache/files/md5" / oid[:2] / oid[2:], b"poison")
    done = scene.owner.dvc("repro", ok=False)
    assert "not the signed ones" in done.stderr
    assert not (scene.repo / "out.csv").exists()
