"""From a promotion to a verdict: the one place where the adapter meets the gate.

1. Measure: the files of the version, or the text of the prompt.
2. Judge: the policies, over everything that the archive knows about what was measured, with the log read up to now.
3. Allowed: sign the verdict as the gate (SLSA VSA), keep it, put a copy beside the model for whoever loads it there.
4. Not allowed: raise with every reason and remedy; the verdict is signed in the background.

Every decision is a line in the local decision log, with who asked; the signed verdict holds a pseudonym.

Any exception refuses. One instance serves a process; it holds no verdict and no key that outlives minutes.
"""

from __future__ import annotations

import atexit
import base64
import hashlib
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlparse

from mlseal.errors import Error, Misuse, NotInitialised, Refusal, ServiceUnavailable, UntrustedSigner
from mlseal.evidence import paths
from mlseal.evidence import store as stores
from mlseal.evidence import trust as trust_roots
from mlseal.evidence.archive import Archive
from mlseal.evidence.bucket_url import is_url
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.clock import Clock, utcnow
from mlseal.evidence.digest import Measured, measure
from mlseal.evidence.identity import Identity
from mlseal.evidence.leaves import Leaf
from mlseal.evidence.signing import Signer
from mlseal.evidence.signing.tokens import source_for
from mlseal.evidence.store import BundleStore
from mlseal.evidence.trust import Trust
from mlseal.evidence.verifying import self_verify
from mlseal.policy import gate, load
from mlseal.policy.layers import with_layers
from mlseal.policy.model import Policy
from mlseal.policy.names import Action, canonical_facts
from mlseal.policy.remedies import Hints
from mlseal.policy.verdict import Verdict, raise_for, to_statement
from mlseal_mlflow import beside, files, journal, private, requester, standing
from mlseal_mlflow.identity import gates
from mlseal_mlflow.journal import Journal
from mlseal_mlflow.measuring import Limits, Measuring
from mlseal_mlflow.recorder import Background, Recorder
from mlseal_mlflow.requester import Asking, Requester

_log = logging.getLogger(__name__)

TOOL = "mlflow"
GATE = "gate"
"""The role that this server acts in."""

_BUSY_SECONDS = 30.0
_HUNG_SECONDS = 3.0

_VERDICT = "verdict-"
"""How the gate's own verdicts are called beside a model; they are no evidence for it."""

_SETTLE = (0.1, 0.3, 0.8)
"""Seconds to wait when a leaf has no bundle yet: another worker logs its verdict an instant before it stores it."""


class Decisions:
    """Brings actions to the gate.

    Args:
        policies: loaded once, at start; their digests stand in every verdict.
        archive: evidence known here.
        signer: signs as the gate and publishes to the archive's store.
        limits: what is hashed now, later, never.
        webhook_hosts: hosts that webhooks may report to.
        sources: URI prefixes where models may lie, beside the server's own storage.
        asking: where the server learns who asks.
    """

    def __init__(
        self,
        policies: Sequence[Policy],
        archive: Archive,
        signer: Signer,
        *,
        limits: Limits | None = None,
        webhook_hosts: frozenset[str] = frozenset(),
        sources: Sequence[str] = (),
        asking: Asking | None = None,
        clock: Clock = utcnow,
    ) -> None:
        self._asking = asking or Asking()
        self.policies, self.archive = tuple(policies), archive
        self._signer, self._clock, self._webhook_hosts = signer, clock, webhook_hosts
        self._measuring = Measuring(paths.state_dir() / "mlflow", limits or Limits(), self.notice)
        self._journal = Journal(journal.directory(), clock=clock)
        self._recorder, self._publishing = Recorder(signer.sign), Background("putting a verdict beside its model")
        self._sources = tuple(sources)
        self._gates, self._root = gates(archive.trust), standing.Root(archive.trust)
        self._judging = threading.Lock()

    def governs(self, action: str, facts: Mapping[str, str]) -> bool:
        """Whether any policy, or a layer beneath one, speaks about `action` with these facts, by a window too."""
        asked = canonical_facts(Action(TOOL, action, facts))
        now = self._clock()
        return any(policy.applies(asked) or any(policy.frozen(asked, now)) for policy in with_layers(self.policies))

    def require_exempt(self, action: str, facts: Mapping[str, str]) -> None:
        """Raise `Refusal` unless a policy in force lists `action` as ungoverned: for what nobody is asked about.

        Nothing is measured and no verdict is signed: an exemption is a decision about people, not about these bytes.
        """
        asked = Action(TOOL, action, facts)
        known, now, who = canonical_facts(asked), self._clock(), self._who(asked)
        owner = next((found for policy in self.policies if (found := policy.exempts(known, now))), None)
        verdict = "refused" if owner is None else "ungoverned"
        self._journal.note(who, asked.items, verdict, **({"exemptedBy": owner} if owner else {}))
        if owner is None:
            entry = f"{{tool: {TOOL}, action: {action}, model: {json.dumps(facts['model'])}, owner: WHO, until: WHEN}}"
            raise Refusal(
                "no policy governs this action, so it is refused",
                got=str(asked),
                expected="a policy whose applies covers it, or an entry under ungoverned that has not ended",
                remedy=f"to let it pass without evidence, list {entry} under ungoverned in a policy of MLSEAL_POLICY",
            )

    def note_demotion(self, action: str, facts: Mapping[str, str]) -> None:
        """A line for something taken out of use; whatever goes wrong here keeps nobody from it."""
        try:
            self._journal.note(self._asking.anyone(), Action(TOOL, action, dict(facts)).items, "demoted")
        except Exception as error:  # noqa: BLE001 - a bad model must be stoppable with a full disk too
            _log.warning("mlseal: %s of %s is not in the decision log: %s", action, facts.get("model"), error)

    def decide_model(self, uri: str, key: object, action: str, facts: Mapping[str, str]) -> Bundle:
        """The signed verdict that allows `action` for the model at `uri`; raises every reason otherwise."""
        location = files.locate(uri, self._sources)
        bundle = self.decide(self._measuring.measured(location, key, name=facts["model"]), action, facts)
        self._publish(location, bundle, {**facts, "action": action})
        return bundle

    def decide_prompt(self, content: bytes, action: str, facts: Mapping[str, str]) -> Bundle:
        """The signed verdict that allows `action` for a prompt."""
        with private.passing() as directory:
            file = directory / "prompt.json"
            file.write_bytes(content)
            measured = measure(file, name=facts["model"])
        return self.decide(measured, action, facts)

    def decide(self, measured: Measured, action: str, facts: Mapping[str, str]) -> Bundle:
        """Steps 2 to 4 for what was measured just now."""
        asked = Action(TOOL, action, dict(facts))
        who = self._who(asked)
        try:
            self._root.require_there()
        except Error:
            self._journal.note(who, asked.items, "undecided", sha256=measured.sha256)
            raise
        verdict = self._judge(measured, asked)
        # Without a nonce, two equal decisions within a second would be one statement, which the log holds once.
        nonce = uuid.uuid4().hex
        said = self._journal.note(who, asked.items, verdict.kind, nonce=nonce, sha256=measured.sha256)
        statement = to_statement(verdict, measured.subjects, nonce=nonce, requester=said)
        if verdict.passes:  # allowed, or objected to by observing policies only
            return self._signer.sign(statement)
        same = (measured.sha256, action, tuple(sorted(facts.items())), repr(verdict.reasons), who)
        self._recorder.submit(statement, same)
        raise_for(verdict)
        raise Refusal("the verdict was not an allowing one", got=type(verdict).__name__)

    def _who(self, asked: Action) -> Requester:
        """Who asks; the refusal of somebody unknown is a line in the decision log too."""
        with self._journal.noting_refusals(asked.items):
            return self._asking.current()

    def _judge(self, measured: Measured, action: Action) -> Verdict:
        hints = Hints(path=measured.name, policy_file=os.environ.get("MLSEAL_POLICY", "POLICY"))
        with self._judging:
            for pause in (*_SETTLE, None):
                began = time.monotonic()
                verdict = gate.judge(
                    measured, action, self.policies, self.archive, clock=self._clock, gate=self._gates, hints=hints
                )
                if pause is None or not any(reason.rule == "log" for reason in verdict.reasons):
                    break
                if time.monotonic() - began > _HUNG_SECONDS:  # nobody answers: that does not settle in a moment
                    break
                if pause == _SETTLE[-1]:  # no neighbour's that is under way: the store was away when one was signed
                    _publish_what_waits(self._signer, self._gates)
                time.sleep(pause)
            return verdict

    def measure_ahead(self, uri: str, key: object, model: str) -> None:
        """Begin to hash the model at `uri` if it is a large one, so that a promotion finds it done; nobody waits.

        Raises `Refusal` for a place that the gate does not look at; whatever is wrong with the files, a promotion says.
        """
        self._measuring.ahead(files.locate(uri, self._sources), key, name=model)

    def require_current(self) -> str:
        """Read the log up to now, and require what each policy requires of it and of revocations; says its size.

        Raises `Withheld` for an entry that cannot be read here: by the gate's own rule it leaves every verdict open.
        """
        for pause in (*_SETTLE, None):
            size, hidden = self._read()
            if not hidden or pause is None:
                break
            if pause == _SETTLE[-1]:
                _publish_what_waits(self._signer, self._gates)
            time.sleep(pause)
        standing.require_none(hidden, self.archive.store)
        return f"{size} entries"

    def _read(self) -> tuple[int, list[Leaf]]:
        """The size of the log now, and what of it stops decisions."""
        if not self._judging.acquire(timeout=_BUSY_SECONDS):
            raise ServiceUnavailable("the gate is busy", expected=f"a free moment within {_BUSY_SECONDS:g} s")
        try:
            return self.archive.refresh(), standing.hidden(self.archive, self.policies, self._clock())
        finally:
            self._judging.release()

    def require_trust(self) -> str:
        """Require that the trust root which this process began with is still there; says which it is."""
        return self._root.require_there()

    def require_identity(self) -> str:
        """Ask for a token of the gate, and throw it away; says whose it is."""
        _require_gate(source_for(GATE, self.archive.trust)(), self.archive.trust)
        return ", ".join(map(str, self._gates))

    def require_journal(self) -> str:
        """Require that decisions can be written down."""
        self._journal.require_writable()
        return "can be written"

    def notice(self, model: Path) -> None:
        """Take bundles lying beside a model into the store: evidence may travel with what it is about.

        They are untrusted like all of the store, but a bundle that does not verify is not let in: the store keeps the
        first encoding of a piece of evidence, and a spoilt one would stand in the way of the good one. What the store
        has lost is put back, whatever this server remembers of it. A store that gives no answer is asked once.
        """
        shown = self.archive.store.afresh()
        for bundle in beside.bundles(model / beside.FOLDER, without=_VERDICT):
            try:
                if not shown.has(bundle.evidence_id):
                    self_verify(bundle, self.archive.trust, clock=self._clock)
                    self.archive.store.put(bundle)
            except ServiceUnavailable as error:
                _log.warning("mlseal: bundles beside a model are not taken in: %s", error)
                return
            except Error as error:
                _log.warning("mlseal: a bundle beside a model is no evidence: %s", error)

    def _publish(self, location: files.Location, bundle: Bundle, action: Mapping[str, str]) -> None:
        """A copy of the newest verdict on each action, for loaders on other machines.

        The store has it already, so nobody waits for this, and storage that cannot be written is no reason to refuse.
        """
        use = json.dumps(sorted((key, value) for key, value in action.items() if key != "version"))
        name = f"{_VERDICT}{hashlib.sha256(use.encode()).hexdigest()[:16]}.sigstore.json"

        def publish() -> None:
            with private.passing() as directory:
                file = directory / name
                file.write_bytes(bundle.raw)
                location.publish(file)

        self._publishing.run(publish)

    def require_webhook(self, url: str) -> None:
        """Raise `Refusal` unless the operator listed the host of `url`."""
        host = urlparse(url).hostname or ""
        if host not in self._webhook_hosts:
            raise Refusal(
                "webhooks may report to listed hosts only",
                got=host or url[:100],
                expected=", ".join(sorted(self._webhook_hosts)) or "no host is listed",
                remedy="the operator sets MLSEAL_MLFLOW_WEBHOOK_HOSTS on the server",
            )


def from_environment() -> Decisions:
    """The decisions of this process, as its environment says.

    ``MLSEAL_TRUST`` (or a pinned root), ``MLSEAL_POLICY`` (files, separated by ``:``), ``MLSEAL_STORE`` (an existing
    directory, or a bucket's URL) and ``MLSEAL_TOKEN_FILE`` (or an authority that grants this user the gate's role).
    Raises `mlseal.errors.Error` if any of them will not do, so that the server does not start.
    """
    names = ("MLSEAL_TRUST", "MLSEAL_POLICY", "MLSEAL_STORE", "MLSEAL_TOKEN_FILE", "MLSEAL_STATE_DIR")
    return _build(tuple((name, os.environ.get(name)) for name in names))


@lru_cache(maxsize=4)
def _build(environment: tuple[tuple[str, str | None], ...]) -> Decisions:
    del environment  # the cache key: MLflow constructs a store more than once per process
    trust = trust_roots.resolve()
    store = _store()
    archive = Archive.open(trust, store)
    atexit.register(archive.close)
    source = source_for(GATE, trust)
    _require_gate(source(), trust)
    signer = Signer(trust, source, store=store)
    _publish_what_waits(signer, gates(trust))
    archive.refresh()
    return Decisions(
        _policies(),
        archive,
        signer,
        limits=_limits(),
        webhook_hosts=frozenset(_listed("MLSEAL_MLFLOW_WEBHOOK_HOSTS")),
        sources=_listed("MLSEAL_MLFLOW_SOURCES"),
        asking=requester.configured(),
    )


def _publish_what_waits(signer: Signer, gate: Sequence[Identity]) -> None:
    """Publish verdicts that a killed server had signed only: their leaves would leave every later one undecided."""
    try:
        done = signer.recover(gate)
    except Error as error:
        _log.warning("mlseal: a verdict signed before a crash is not published yet: %s", error)
    else:
        if done:
            _log.warning("mlseal: published %d verdicts that were signed before a crash", len(done))


def _require_gate(token: str, trust: Trust) -> None:
    """Raise `UntrustedSigner` when the authority's own issuer says that we are somebody else than the gate.

    A hint, read without verification: what a token of another provider turns into, only the CA knows.
    """
    try:
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        said = Identity(str(claims["iss"]), str(claims["sub"]))
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UntrustedSigner("the gate's token cannot be read", got=type(error).__name__) from error
    if trust.local_issuer(said.issuer) and said not in gates(trust):
        raise UntrustedSigner(
            "this token is not the gate's: nobody would believe its verdicts",
            got=str(said),
            expected=str(gates(trust)[0]),
            remedy="mlseal trust token gate",
        )


def _listed(variable: str) -> list[str]:
    return [part for part in os.environ.get(variable, "").split(",") if part]


def _policies() -> tuple[Policy, ...]:
    policies = load.in_force()
    if not policies:
        raise NotInitialised(
            "the gate has no policy", expected="MLSEAL_POLICY", remedy="set MLSEAL_POLICY=/path/policy.yaml"
        )
    return policies


def _store() -> BundleStore:
    """The evidence store, which must be there already: a gate that made one would know of nothing."""
    named = os.environ.get("MLSEAL_STORE")
    if named and is_url(named):
        kept = stores.resolve(named)
        kept.require_usable(writing=False)
        return kept
    if not named or not Path(named).is_dir():
        raise NotInitialised(
            "the gate has no evidence store",
            got=named,
            expected="an existing directory, or a URL such as s3://bucket/prefix",
            remedy="set MLSEAL_STORE=DIR, such as the evidence/ that 'mlseal init' made",
        )
    return stores.resolve(Path(named).resolve())


def _limits() -> Limits:
    default = Limits()
    try:
        return Limits(
            int(os.environ.get("MLSEAL_MLFLOW_INLINE_BYTES", default.inline_bytes)),
            int(os.environ.get("MLSEAL_MLFLOW_MAX_BYTES", default.max_bytes)),
            wait_seconds=int(os.environ.get("MLSEAL_MLFLOW_WAIT_SECONDS", default.wait_seconds)),
        )
    except ValueError as error:
        raise Misuse("a limit is not a number of bytes or seconds", got=str(error)) from error
