"""Run by `test_two_people` as root, with the autoload: two people who are two users of the machine use DVC.

Another user may not be allowed to read this interpreter, so each person is a fork of this process, and DVC runs inside
it. What a person does is done once before as root, so that all modules are there. Reads its scene from standard input,
writes what happened to standard output, as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.attacks.as_user import as_user

ANN, BEN = 42001, 42002
GIT = "[safe]\n    directory = *\n[user]\n    name = person\n    email = person@example.invalid\n"


def dvc(*arguments: str) -> dict[str, Any]:
    """One command of DVC in this process: its exit code, and all that it said."""
    from dvc.cli import main

    with tempfile.TemporaryFile() as said:
        kept = os.dup(1), os.dup(2)
        try:
            for number in (1, 2):
                os.dup2(said.fileno(), number)
            code = main(list(arguments))
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            for number, descriptor in zip((1, 2), kept, strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)
        said.seek(0)
        return {"code": code, "said": said.read().decode(errors="replace")[-3000:]}


def git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "core.hooksPath=/dev/null", *arguments], check=True, capture_output=True)


def sends(repo: Path, bare: Path) -> dict[str, Any]:
    """What the one who has the data does."""
    os.chdir(repo)
    (repo / "data.csv").write_text(f"id,value\n1,{os.urandom(8).hex()}\n")
    (repo / "imgs").mkdir()
    for name in ("a", "b"):
        (repo / "imgs" / name).write_text(os.urandom(8).hex())
    added = dvc("add", "-q", "data.csv", "imgs")
    git("add", "-A")
    git("commit", "-qm", "data")
    pushed = dvc("push")
    git("push", "-q", str(bare), "HEAD:refs/heads/main")
    return {"added": added, "pushed": pushed, "data": (repo / "data.csv").read_text()}


def fetches(place: Path, bare: Path, root: Path, settings: str, *, pin: bool = True) -> dict[str, Any]:
    """What the one who has nothing but the public root, a policy and the clone does."""
    from mlseal.evidence import trust

    if pin:
        trust.pin(root, trust.load(root).fingerprint)
    git("clone", "-q", "-b", "main", str(bare), str(place))
    os.chdir(place)
    (place / ".dvc" / "config.local").write_text(settings)
    pulled = dvc("pull")
    found = {name: (place / name).exists() for name in ("data.csv", "imgs/a")}
    text = (place / "data.csv").read_text() if found["data.csv"] else None
    return {"pulled": pulled, "found": found, "data": text}


def forges(place: Path, settings: str) -> dict[str, Any]:
    """The reader puts something else in its place, and tries to have it signed and sent."""
    os.chdir(place)
    (place / ".dvc" / "config.local").write_text(settings)
    (place / "data.csv").unlink()
    (place / "data.csv").write_text(os.urandom(8).hex())
    dvc("add", "-q", "data.csv")
    git("commit", "-qam", "forged")
    return dvc("push")


def gone(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)


def owned(path: Path, uid: int) -> Path:
    for found in [path, *path.rglob("*")]:
        os.chown(found, uid, uid, follow_symlinks=False)
    return path


def person(uid: int, home: Path, work: Callable[[], object], env: dict[str, str]) -> Any:
    own = {
        "DVC_SITE_CACHE_DIR": str(home / "dvc"),
        "DVC_NO_ANALYTICS": "1",
        "USER": "person",
        "LOGNAME": "person",
        **env,
    }
    return as_user(uid, home, work, **own)


def main() -> None:
    scene = json.load(sys.stdin)
    base, template = Path(scene["base"]), Path(scene["template"])
    root, config = Path(scene["root"]), Path(scene["config"])
    os.environ |= {
        "DVC_NO_ANALYTICS": "1",
        "MLSEAL_POLICY": scene["policy"],
        "GIT_CONFIG_GLOBAL": str(base / "gitconfig"),
    }
    (base / "gitconfig").write_text(GIT)
    (base / "gitconfig").chmod(0o644)
    homes = {}
    for uid in (ANN, BEN):
        homes[uid] = base / f"home-{uid}"
        homes[uid].mkdir(mode=0o700)
        os.chown(homes[uid], uid, uid)

    def repository(where: Path, settings: str) -> Path:
        shutil.copytree(template, where, symlinks=True)
        (where / ".dvc" / "config.local").write_text(settings)
        return where

    def bare(name: str) -> Path:
        git("init", "-q", "--bare", str(base / name))
        os.chmod(base / name, 0o777)
        for found in (base / name).rglob("*"):
            os.chmod(found, 0o777)
        return base / name

    # Everything once, as the owner of the authority.
    warm = repository(base / "warm", scene["warm"])
    first = sends(warm, bare("warm.git"))
    assert first["pushed"]["code"] == 0, first
    second = fetches(base / "warm-clone", base / "warm.git", root, scene["warm"], pin=False)
    assert second["pulled"]["code"] == 0, second
    forges(base / "warm-clone", scene["warm"])
    os.chdir("/")

    told = {"MLSEAL_POLICY": scene["policy"], "MLSEAL_TRUST": str(config)}
    hers = owned(repository(homes[ANN] / "repo", scene["ann"]), ANN)
    published = bare("shared.git")
    answers = {"ann": person(ANN, homes[ANN], lambda: sends(hers, published), told)}
    reader = {"MLSEAL_POLICY": scene["policy"]}
    his = homes[BEN] / "clone"
    answers["ben"] = person(BEN, homes[BEN], lambda: fetches(his, published, root, scene["ben"]), reader)
    answers["forged"] = person(BEN, homes[BEN], lambda: forges(his, scene["ben"]), reader)
    for name, path in scene["forbidden"].items():
        for uid, who in ((ANN, "ann"), (BEN, "ben")):
            tried = person(uid, homes[uid], lambda path=path: (Path(path) / "x").write_text("x"), {})
            answers[f"{who} writes {name}"] = tried
    swapped = 0
    for file in Path(scene["store"]).rglob("*"):
        if file.is_file() and "files/md5" in str(file) and not file.name.endswith(".dir"):
            file.chmod(0o644)
            file.write_text("swapped")
            file.chmod(0o444)
            swapped += 1
    again = homes[BEN] / "again"
    answers["swapped"] = swapped
    answers["after"] = person(
        BEN, homes[BEN], lambda: (gone(his), fetches(again, published, root, scene["ben"], pin=False))[1], reader
    )
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
