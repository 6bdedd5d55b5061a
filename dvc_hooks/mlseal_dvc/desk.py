"""Everything that one DVC command needs at hand: policy, trust root, remotes, checkers, quarantine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from mlseal.errors import Misuse
from mlseal.evidence import paths
from mlseal.evidence import trust as trust_roots
from mlseal.evidence.revocation import NOTHING_REVOCABLE
from mlseal.evidence.trust import Trust
from mlseal_dvc import gitstate, revoked, session, statedir
from mlseal_dvc.checking import Checker
from mlseal_dvc.governing import Governance, Rule
from mlseal_dvc.places import Place, of_remote
from mlseal_dvc.pointers import Pointer
from mlseal_dvc.shelf import Shelf, own_copies


class Desk:
    """The desk of `repo` (`dvc.repo.Repo`).

    Args:
        remote: the name given on the command line.
        of_others: this only looks, maybe at a commit that nobody of this side has agreed to yet, as in a check of a
            request (`sources`).
    """

    def __init__(self, repo: Any, remote: str | None = None, *, of_others: bool = False) -> None:
        self.repo, self.remote, self.of_others = repo, remote, of_others
        self.session = session.current()
        self.governance = Governance(repo, self.session)
        self._remotes: dict[str | None, Any] = {}
        self._checkers: dict[tuple[str | None, str], Checker] = {}

    @property
    def protected(self) -> bool:
        """Whether evidence is demanded here."""
        return self.governance.protected

    @cached_property
    def trust(self) -> Trust:
        """The trust root in force."""
        return trust_roots.resolve(self.session.trust)

    @cached_property
    def quarantine(self) -> Path:
        """Where refused objects go: git-ignored, and untouched by ``dvc gc``."""
        return (statedir.scratch(self.repo) or paths.state_dir() / "dvc") / "quarantine"

    def remote_of(self, pointer: Pointer) -> Any:
        """The DVC remote that an output's objects go to or come from; None when none is configured."""
        return self._named(self.remote or pointer.remote_name)

    def place_of(self, pointer: Pointer) -> Place | None:
        """The evidence beside those objects; None without a remote."""
        return self.place_named(self.remote or pointer.remote_name)

    def place_named(self, name: str | None) -> Place | None:
        """The evidence on the remote of this name, or on the default one."""
        remote = self._named(name)
        return None if remote is None else of_remote(remote)

    def checker(
        self, pointer: Pointer, action: str, rules: Callable[[Pointer], tuple[Rule, ...]] | None = None
    ) -> Checker:
        """A verifier of evidence for outputs of that remote. `rules` replaces the policy's, for signers only."""
        key = (self.remote or pointer.remote_name, action if rules is None else f"{action}+own")
        if key not in self._checkers:
            place = self.place_of(pointer)
            places = [own_copies(), *([place] if place else [])]
            self._checkers[key] = Checker(
                self.trust,
                Shelf(places),
                rules or (lambda p: self.governance.rules(p, action)),
                revocations=revoked.known(
                    self.trust, self.governance.applicable(action), places, self.session.clock, self._every_place
                ),
                clock=self.session.clock,
                more=self._every_place,
            )
        return self._checkers[key]

    def _every_place(self) -> Iterator[Place]:
        """The evidence on every remote of this repository that can be opened."""
        for name in self.repo.config["remote"]:
            place = None
            with suppress(Exception):  # not the remote that was asked for: what it cannot show is missing, and said so
                place = self.place_named(name)
            if place is not None:
                yield place

    def local_checker(self) -> Checker:
        """A verifier that looks at this user's own copies only: no network, and silent about what it does not know."""
        return Checker(
            self.trust,
            Shelf([own_copies()]),
            lambda p: self.governance.rules(p, "pull"),
            revocations=NOTHING_REVOCABLE,
            clock=self.session.clock,
        )

    def git_state(self, pointer: Pointer) -> tuple[str | None, bool, str | None]:
        """Commit, dirty and origin for a pointer's revision."""
        if pointer.rev not in self._states:
            self._states[pointer.rev] = gitstate.state(self.repo, pointer.rev)
        return self._states[pointer.rev]

    @cached_property
    def _states(self) -> dict[str | None, tuple[str | None, bool, str | None]]:
        return {}

    def _named(self, name: str | None) -> Any:
        if name not in self._remotes:
            self._remotes[name] = self._open(name)
        return self._remotes[name]

    def _open(self, name: str | None) -> Any:
        from dvc.config import NoRemoteError

        try:
            remote = self.repo.cloud.get_remote(name)
        except NoRemoteError:
            return None
        if not remote.path:
            raise Misuse(f"remote {remote.name} has no path")
        return remote
