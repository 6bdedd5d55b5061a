"""Take each refusal of decisions, transaction, store and loader out once: what it refuses must come through.

Each row is a refusal by function and message, and a call that must be refused by it: with the refusal the call raises,
without it the call returns or stumbles over something else. Everything runs in this process, over a real authority and
a real database; one server for each row would take an hour. Smaller modules: `test_small_mutants`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlseal_mlflow import decision, loading, prompts, stopping, store, transaction

from mlseal.errors import Error, Revoked, Withheld
from mlseal.evidence import statement
from mlseal.evidence.clock import utcnow
from mlseal.evidence.digest import Measured, measure
from mlseal.evidence.predicates import slsa_vsa
from mlseal.evidence.revoking import revoke
from tests.attacks.mutants import mutant, names

pytestmark = pytest.mark.slow


@dataclass
class Scene:
    """A desk, what was measured there, and this test's own patches."""

    desk: Any
    patch: pytest.MonkeyPatch
    place: Path

    def decisions(self, module: Any) -> Any:
        """Decisions made by `module` from this environment, never those of another row."""
        return module._build.__wrapped__(())

    def measured(self, *, proven: bool = False) -> Measured:
        """A new model on disk."""
        files = self.desk.pyfunc()
        if proven:
            self.desk.prove(files)
        return self.desk.measured(files)

    def judged(self, measured: Measured) -> Any:
        """The gate's verdict on it for alias champion, signed: refused ones too."""
        with contextlib.suppress(Error):
            return self.decisions(decision).decide(measured, "alias", FACTS)
        assert stopping.drain(30)
        return None

    def archive(self) -> Any:
        """All that is known now."""
        archive = self.desk.archive()
        archive.refresh()
        return archive

    def row(self, **changes: Any) -> transaction.VersionRow:
        """A version as the database has it."""
        return replace(transaction.VersionRow("default", "m", 1, 5, "s3://a", "s3://a", "None"), **changes)

    def store(self, module: Any) -> Any:
        """The registry store as `module` has it, on this desk's database and with its decisions."""
        made = type("Sealed", (module.SealedStore, SqlAlchemyStore), {})(self.desk.database)
        made.decisions = self.desk.store.decisions
        return made

    def version(self, source: str, pattern: str = "risk-{}") -> str:
        """A new model with one version, made past the gate."""
        name = self.desk.fresh(pattern)
        self.desk.other.create_registered_model(name)
        self.desk.other.create_model_version(name, source)
        return name

    def token(self, role: str) -> str:
        """A token of the authority's own issuer."""
        from mlseal.evidence.signing import tokens

        trust = self.desk.authority.trust
        return tokens.from_embedded(trust, trust.endpoints.issuer, role, 10)


FACTS = {"workspace": "default", "model": "risk-x", "alias": "champion"}
USE = loading.Use("models:/risk-x/1", "default", "risk-x", "1", alias="champion")


def _exempt(module: Any, scene: Scene) -> None:
    scene.decisions(module).require_exempt("create", {"workspace": "default", "model": "else", "source": "x"})


def _decide(module: Any, scene: Scene) -> None:
    """The last refusal stands behind `raise_for`, for a verdict that this lets through."""
    scene.patch.setattr(module, "raise_for", lambda verdict: None)
    scene.decisions(module).decide(scene.measured(), "alias", FACTS)


def _without_trust(module: Any, scene: Scene) -> None:
    """The file of the trust root goes after the start."""
    file = scene.place / f"{uuid.uuid4().hex}.json"
    file.write_bytes(Path(scene.desk.env["MLSEAL_TRUST"]).read_bytes())
    scene.patch.setenv("MLSEAL_TRUST", str(file))
    decisions, measured = scene.decisions(module), scene.measured(proven=True)
    file.unlink()
    decisions.decide(measured, "alias", FACTS)


def _webhook(module: Any, scene: Scene) -> None:
    scene.decisions(module).require_webhook("https://elsewhere.example/hook")


def _somebody(module: Any, scene: Scene) -> None:
    module._require_gate(scene.token("producer"), scene.desk.authority.trust)


def _unreadable(module: Any, scene: Scene) -> None:
    said = base64.urlsafe_b64encode(json.dumps({"iss": "x"}).encode()).decode()
    module._require_gate(f"a.{said}.c", scene.desk.authority.trust)


def _unset(variable: str, function: str, value: str = "") -> Callable[[Any, Scene], None]:
    def call(module: Any, scene: Scene) -> None:
        scene.patch.setenv(variable, value)
        getattr(module, function)()

    return call


def _nested(module: Any, scene: Scene) -> None:
    sessions = module.JoiningSessions(scene.desk.other.ManagedSessionMaker)
    with sessions.locked(), sessions.locked():
        pass


def _same(module: Any, scene: Scene) -> None:
    row = scene.row()
    kinds = {"workspace": "other", "version": 2, "created": 6, "source": "s3://b", "location": "s3://b"}
    prompt = module.PROMPT_SOURCES[0] if isinstance(module.PROMPT_SOURCES, tuple) else next(iter(module.PROMPT_SOURCES))
    text = scene.row(source=prompt, tags=(("mlflow.prompt.text", "a"),))
    pairs = [(row, scene.row(**{key: value})) for key, value in kinds.items()]
    for before, after in [*pairs, (text, replace(text, tags=(("mlflow.prompt.text", "b"),)))]:
        made = module.VersionRow(**vars(before))
        try:
            made.require_same(module.VersionRow(**vars(after)))
        except Error as error:
            last = error
        else:
            return  # one that changed was taken for the same
    raise last


def _read(module: Any, scene: Scene) -> None:
    store, name = scene.desk.other, scene.desk.fresh()
    store.create_registered_model(name)
    with store.ManagedSessionMaker(read_only=False) as session:
        module.read(store, session, name, "1")


def _lent(module: Any, scene: Scene) -> None:
    """Storage that gives its own place away instead of a copy."""
    mine = scene.place / uuid.uuid4().hex
    mine.mkdir()
    own = scene.place / uuid.uuid4().hex
    own.mkdir()

    class Lending:
        def download_artifacts(self, path: str, to: str) -> str:
            return str(own)

    scene.patch.setattr(module, "storage", lambda *_: Lending())
    module.fetch("models:/risk-x/1", mine, None, None)


def _withheld(module: Any, scene: Scene) -> None:
    """The log holds something of the gate that nobody shows; put back afterwards, for the other rows."""
    measured = scene.measured(proven=True)
    bundle = scene.judged(measured)
    path = scene.desk.authority.store.path(bundle.evidence_id)
    shown = path.read_bytes()
    path.unlink()
    scene.patch.setattr(module, "_SETTLE", ())
    try:
        module.require_allowed(measured, USE, scene.place / "none")
    finally:
        path.write_bytes(shown)


def _never(module: Any, scene: Scene) -> None:
    module.require_verdict(scene.measured(proven=True), USE, scene.archive())


def _refused(module: Any, scene: Scene) -> None:
    measured = scene.measured()
    scene.judged(measured)
    module.require_verdict(measured, USE, scene.archive())


def _old(module: Any, scene: Scene) -> None:
    measured = scene.measured(proven=True)
    scene.judged(measured)
    archive = scene.archive()
    module.require_verdict(measured, USE, archive, clock=lambda: utcnow() + timedelta(days=29))
    module.require_verdict(measured, USE, archive, clock=lambda: utcnow() + timedelta(days=31))


def _busy(module: Any, scene: Scene) -> None:
    """Somebody is being judged all the while."""
    decisions = scene.decisions(module)
    scene.patch.setattr(module, "_BUSY_SECONDS", 0.01)
    assert decisions._judging.acquire()
    decisions.require_current()


def _moved(module: Any, scene: Scene) -> None:
    """The place that was judged is not the one that MLflow writes down."""
    store, name = scene.store(module), scene.desk.fresh("risk-{}-prod")
    scene.desk.other.create_registered_model(name)
    judged = scene.desk.put()
    scene.patch.setattr(store, "_location_of", lambda _: judged, raising=False)
    store.create_model_version(name, scene.desk.put(proven=False))


def _very_many(module: Any, scene: Scene) -> None:
    scene.patch.setattr(module, "MAX_RENAMED_VERSIONS", 0)
    scene.store(module).rename_registered_model(scene.version(scene.desk.put()), scene.desk.fresh("risk-{}-prod"))


def _one_more(module: Any, scene: Scene) -> None:
    with scene.store(module)._unchanged([], all_of=scene.version("s3://a")):
        pass


def _in_use(module: Any, scene: Scene) -> None:
    name = scene.version(min(prompts.SOURCES), "prompt-{}")
    scene.desk.other.set_registered_model_alias(name, "live", "1")
    with scene.store(module)._tag_may_change(name, "1", "mlflow.prompt.text"):
        pass


def _twin(module: Any, scene: Scene) -> None:
    name = scene.version("s3://a")
    scene.store(module).create_registered_model(name.upper())


def _inside(module: Any, scene: Scene) -> None:
    with module._refusing_inside("write"):
        raise Revoked("what is refused inside of a session")


def _resting_on_nothing(module: Any, scene: Scene) -> None:
    """The gate's own verdict, said again without the names of what it rests on."""
    measured = scene.measured(proven=True)
    predicate = json.loads(json.dumps(dict(scene.judged(measured).statement.predicate)))
    for rests_on in predicate["inputAttestations"]:
        del rests_on["annotations"]
    predicate["mlseal"]["nonce"] = uuid.uuid4().hex
    scene.desk.authority.signer("gate").sign(statement.make(measured.subjects, slsa_vsa.URI, predicate))
    module.require_verdict(measured, USE, scene.archive())


CALLS: dict[Any, dict[str, Callable[[Any, Scene], object]]] = {
    decision: {
        "require_exempt: no policy governs this action, so it is refused": _exempt,
        "decide: ": _without_trust,
        "decide: the verdict was not an allowing one": _decide,
        "require_webhook: webhooks may report to listed hosts only": _webhook,
        "_require_gate: the gate's token cannot be read": _unreadable,
        "_require_gate: this token is not the gate's: nobody would believe its verdicts": _somebody,
        "_policies: the gate has no policy": _unset("MLSEAL_POLICY", "_policies"),
        "_store: the gate has no evidence store": _unset("MLSEAL_STORE", "_store", "/nowhere"),
        "_read: the gate is busy": _busy,
        "_limits: a limit is not a number of bytes or seconds": _unset("MLSEAL_MLFLOW_MAX_BYTES", "_limits", "lots"),
    },
    transaction: {
        "locked: locked transactions do not nest": _nested,
        "require_same: … version … changed while it was being judged": _same,
        "read: Model Version (name=…, version=…) not found": _read,
    },
    store: {
        "build_store: not an mlseal registry URI": lambda m, s: m.build_store(s.desk.database),
        "create_model_version: …": _moved,
        "rename_registered_model: too many versions to judge at once": _very_many,
        "_unchanged: … changed while it was being judged": _one_more,
        "_tag_may_change: …": _in_use,
        "_copied_from: the source of a copy names no version": lambda m, s: s.store(m)._copied_from(
            "models:/risk-x@champion"
        ),
        "_require_no_twin: a model … exists whose name differs in case only": _twin,
        "_require_unreserved: tags in mlseal's name space cannot be set or deleted": lambda m, s: m._require_unreserved(
            ["mlseal.verdict"]
        ),
        "_require_not_prompt_switch: what is a prompt is settled when it is created": lambda m, s: (
            m._require_not_prompt_switch(prompts.IS_PROMPT)
        ),
        "_refusing_inside: …": _inside,
    },
    loading: {
        "fetch: storage did not give a copy": _lent,
        "require_allowed: ": _withheld,
        "require_verdict: the gate never allowed these bytes for this use": _never,
        "_require_passed: the gate's newest verdict on … does not allow it": _refused,
        "_require_fresh: the gate's verdict is too old": _old,
        "_require_inputs_standing: the gate's verdict does not say what it rests on": _resting_on_nothing,
        "_revocations: the log holds evidence that nobody shows, and it might be a revocation": _withheld,
        "max_age: MLSEAL_MLFLOW_MAX_AGE cannot be read": _unset("MLSEAL_MLFLOW_MAX_AGE", "max_age", "soon"),
    },
}
PASSED_ON = {
    "decide: ": "the trust root is gone",
    "require_allowed: ": "the log holds evidence that nobody shows",
}
ROWS = [(module, where) for module, calls in CALLS.items() for where in calls]


def test_nobody_accounts_for_a_withheld_withdrawal_but_a_monitor(
    module_desk: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The reviewer takes the verdict back, a producer withholds that and takes it back in turn."""
    scene = Scene(module_desk, monkeypatch, tmp_path)
    monkeypatch.setattr(loading, "_SETTLE", ())
    authority = scene.desk.authority
    measured = scene.measured(proven=True)
    verdict = scene.judged(measured)
    loading.require_allowed(measured, USE, tmp_path / "none")
    withdrawal = revoke(scene.archive(), authority.signer("reviewer"), verdict.evidence_id, reason="withdrawn")
    path = authority.store.path(withdrawal.evidence_id)
    shown = path.read_bytes()
    path.unlink()
    try:
        revoke(scene.archive(), authority.signer("producer"), withdrawal.evidence_id, reason="withdrawn")
        with pytest.raises(Withheld, match="nobody shows"):
            loading.require_allowed(measured, USE, tmp_path / "none")
        revoke(scene.archive(), authority.signer("monitor"), withdrawal.evidence_id, reason="withdrawn")
        loading.require_allowed(measured, USE, tmp_path / "none")
    finally:
        path.write_bytes(shown)
    with pytest.raises(Revoked):
        loading.require_allowed(measured, USE, tmp_path / "none")


@pytest.mark.parametrize("module", CALLS, ids=lambda module: module.__name__)
def test_every_refusal_is_in_the_table(module: Any) -> None:
    assert sorted(names(module)) == sorted(CALLS[module])


@pytest.mark.parametrize(("module", "where"), ROWS, ids=[where for _, where in ROWS])
def test_taking_a_refusal_out_lets_something_through(
    module: Any, where: str, module_desk: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    call = CALLS[module][where]
    scene = Scene(module_desk, monkeypatch, tmp_path)
    with pytest.raises(Exception) as refused:  # noqa: PT011 - which one is what is compared
        call(module, scene)
    assert _says(where, str(refused.value)), refused.value
    try:
        call(mutant(module, where), scene)
    except Exception as error:  # it stumbles: the refusal was what said why
        assert not _says(where, str(error))


def _says(where: str, words: str) -> bool:
    """Whether `words` are those of the refusal; of one that passes an error on, those of what it passes on."""
    message = where.partition(": ")[2] or PASSED_ON[where]
    return all(part in words for part in message.split("…"))


def test_what_is_in_order_passes(module_desk: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing in the table is refused for another reason."""
    scene = Scene(module_desk, monkeypatch, tmp_path)
    measured = scene.measured(proven=True)
    assert scene.judged(measured) is not None
    loading.require_allowed(measured, USE, tmp_path / "none")
    assert measure(measured.path) == measured
    decision._require_gate(scene.token("gate"), module_desk.authority.trust)
    assert decision._policies()
    assert decision._store()
    assert decision._limits()
    scene.row().require_same(scene.row(stage="Production", aliases=("x",)))
