"""Data imported from another repository: held against that repository's evidence, remote and signers.

``dvc import`` and ``dvc update`` bring somebody else's data, and DVC never pushes them again: their evidence is the
source's. So for an import into a protected repository:

1. What is copied has to be tracked by DVC at the source. A file that is only in the source's git has no evidence.
2. Evidence is looked for among this user's own copies, then on the *source's* remote (`sources`), and judged by the
   rules for the *source*: policies see its URL as ``repository`` and its path as ``output``. This holds for the import
   itself and for every later fetch and checkout, whether or not the source calls itself protected.
3. A source without evidence is refused, unless a policy lists it under ``ungoverned`` as ``{tool: dvc, action: import,
   repository: URL}`` with owner and end. That excuses missing evidence, never evidence that does not hold.

Outputs made from imported data name, in their lineage, the evidence that was verified here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlseal.errors import Error, NoEvidence
from mlseal_dvc import gitstate, halt, sources, watching
from mlseal_dvc.pointers import Pointer

if TYPE_CHECKING:
    from mlseal_dvc.checking import Attested, Checker
    from mlseal_dvc.desk import Desk
    from mlseal_dvc.places import Place

_excusing = 0  # imports that a policy takes without evidence
_demanding = 0  # imports into protected repositories under way; DVC copies in threads, so not a context variable


@dataclass(frozen=True)
class Imported:
    """What is known of an import that an output was made from: its digest, and the evidence that says so."""

    sha256: str
    evidence: str


def install() -> None:
    """Wrap DVC's class. The caller has checked that it is as expected (`contract`)."""
    from dvc.dependency.repo import RepoDependency

    watching.replace(RepoDependency, "download", _downloading)
    watching.replace(RepoDependency, "_make_fs", _opening)


def demanding() -> bool:
    """Whether evidence is demanded of every repository that is read now."""
    return _demanding > 0


def excusing() -> bool:
    """Whether missing evidence is excused now, by a policy that lists the source that is read."""
    return _excusing > 0


def exempted(desk: Desk, url: str | None, path: str) -> str | None:
    """By whose decision and until when `path` of the source at `url` needs no evidence; None if it does."""
    source = desk.governance.of_source(url)
    now = desk.session.clock()
    return next((who for p in source.policies if (who := p.exempts(source.facts("import", path), now))), None)


def attested(desk: Desk, pointer: Pointer) -> Attested:
    """Step 2 for an import. Raises as `Checker.attested`, and `ServiceUnavailable` for a source out of reach."""
    from mlseal_dvc.places import of_remote

    try:
        return kept(desk, pointer)
    except Error:
        source = sources.of(desk, pointer)
        if source is None:
            raise
    return _checker(desk, pointer, of_remote(source.remote)).attested(pointer)


def imports(desk: Desk) -> dict[tuple[str, str], Imported]:
    """The imports of this repository that evidence kept by this user covers, by path and object id; no network."""
    from mlseal_dvc import pointers

    found: dict[tuple[str, str], Imported] = {}
    for pointer in pointers.selected(desk.repo, {}):
        if pointer.repo_import:
            try:
                known = kept(desk, pointer)
            except Error:
                continue
            found[pointer.path, pointer.oid] = Imported(known.sha256, known.verified.evidence_id)
    return found


def kept(desk: Desk, pointer: Pointer) -> Attested:
    """Evidence about an import among this user's own copies; no network. Raises as `Checker.attested`."""
    return _checker(desk, pointer).attested(pointer)


def source_of(pointer: Pointer) -> tuple[str | None, str]:
    """URL of the repository that `pointer` was imported from, and the path there."""
    dependency = pointer.dependencies[0]
    return dependency.repo_url, dependency.path


def _checker(desk: Desk, pointer: Pointer, *places: Place) -> Checker:
    from mlseal_dvc import revoked
    from mlseal_dvc.checking import Checker
    from mlseal_dvc.shelf import Shelf, own_copies

    url, path = source_of(pointer)
    source = desk.governance.of_source(url)
    everywhere = [own_copies(), *places]
    return Checker(
        desk.trust,
        Shelf(everywhere),
        lambda p: source.rules(replace(p, path=path), "pull"),
        revocations=revoked.known(desk.trust, source.applicable("pull"), everywhere, desk.session.clock),
        clock=desk.session.clock,
    )


def _downloading(original: Callable[..., Any]) -> Callable[..., Any]:
    """``RepoDependency.download``: what ``dvc import`` and ``dvc update`` copy."""

    @functools.wraps(original)
    def download(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not watching.protected(self.repo):
            return original(self, *args, **kwargs)
        from mlseal_dvc.desk import Desk

        with halt.told_to_dvc():
            url = self.def_repo[self.PARAM_URL]
            who = exempted(Desk(self.repo), url, self.def_path)
            if who is not None:
                halt.say(f"{gitstate.without_credentials(url)} is imported without evidence, by decision of {who}")
                with _excuse():
                    return original(self, *args, **kwargs)
            _require_tracked(self, url)
            with _demand():
                return original(self, *args, **kwargs)

    return download


def _opening(original: Callable[..., Any]) -> Callable[..., Any]:
    """Another repository on this machine is read at its commit, which ``rev_lock`` names, not as it lies about."""

    @functools.wraps(original)
    def _make_fs(self: Any, rev: Any = None, locked: bool = True) -> Any:
        if not rev and not self._get_rev(locked=locked) and watching.protected(self.repo):
            rev = _commit_at(self.def_repo[self.PARAM_URL], self.repo)
        return original(self, rev, locked)

    return _make_fs


def _commit_at(url: str, repo: Any) -> str | None:
    if not Path(url).is_dir():
        return None
    top = gitstate.run(url, "rev-parse", "--show-toplevel", check=False)
    if top is None or Path(top).resolve() == Path(gitstate.top(repo)).resolve():
        return None
    return gitstate.run(url, "rev-parse", "HEAD", check=False)


def _require_tracked(dependency: Any, url: str) -> None:
    """Step 1."""
    fs, top = dependency.fs, dependency.fs_path
    for path in [top] if fs.isfile(top) else fs.find(top):
        if "dvc_info" not in fs.info(path):
            raise NoEvidence(
                f"{path} is in the git of {gitstate.without_credentials(url)}, not in its DVC, so nobody signed it",
                expected="data that the source tracks with DVC and pushed with mlseal",
                remedy="have its owner track it with DVC, or list the source in the policy under ungoverned",
            )


@contextmanager
def _demand() -> Iterator[None]:
    global _demanding  # noqa: PLW0603
    _demanding += 1
    try:
        yield
    finally:
        _demanding -= 1


@contextmanager
def _excuse() -> Iterator[None]:
    global _excusing  # noqa: PLW0603
    _excusing += 1
    try:
        yield
    finally:
        _excusing -= 1
