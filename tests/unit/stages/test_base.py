"""A stage's signature is the single source; what no generator could handle is refused at import."""

import re
import shutil
from pathlib import Path

import pytest

from mlseal.errors import DigestMismatch, MissingExtra, Misuse, UnknownName
from mlseal.evidence import predicates
from mlseal.evidence.digest import measure
from mlseal.evidence.predicates.base import Harness
from mlseal.stages import base, registry
from mlseal.stages.base import Context, DatasetPath, FilePath, Finding, OutputModel, Settings, stage


def example(
    data: DatasetPath,
    out: OutputModel,
    count: int,
    rate: float = 0.5,
    deep: bool = False,
    word: str = "",
    extra: FilePath | None = None,
    more: Settings | None = None,
    *,
    context: Context,
) -> Finding:
    """Do something.

    Args:
        data: where it comes from,
            over two lines.
        count: how many.

    Guarantees:
        data: nothing of this section is an argument.
    """


def test_parameters_follow_from_the_signature():
    made = stage("testing.example", predicate="test-result", extra="robustness")(example)
    rows = [(p.name, p.role, p.kind, p.required, p.default) for p in made.parameters]
    assert rows == [
        ("data", "input", "dataset", True, None),
        ("out", "output", "model", True, None),
        ("count", "value", "integer", True, None),
        ("rate", "value", "number", False, 0.5),
        ("deep", "value", "boolean", False, False),
        ("word", "value", "text", False, ""),
        ("extra", "input", "file", False, None),
        ("more", "value", "settings", False, None),
    ]
    assert made.parameter("data").help == "where it comes from, over two lines."
    assert made.parameter("rate").help == ""
    assert (made.summary, made.extra) == ("Do something.", "robustness")
    assert made.predicate_type == predicates.SHORT["test-result"]


@pytest.mark.parametrize("name", ["fairness", "Testing.x", "testing.", "testing.a-b", "testing x", ".x", ""])
def test_a_name_that_is_not_moment_and_stage_is_refused(name):
    with pytest.raises(Misuse):
        stage(name, predicate="test-result")


def test_unknown_predicate_type_untyped_parameter_reserved_name_and_missing_docstring_are_refused():
    def untyped(data) -> Finding:
        """Do."""

    def listed(data: list[str]) -> Finding:
        """Do."""

    def reserved(store: str) -> Finding:
        """Do."""

    def undocumented(data: DatasetPath) -> Finding: ...

    with pytest.raises(UnknownName, match="unknown predicate"):
        stage("testing.x", predicate="nonsense")(example)
    for function, message in (
        (untyped, "no known type"),
        (listed, "no known type"),
        (reserved, "command line"),
        (undocumented, "docstring"),
    ):
        with pytest.raises(Misuse, match=message):
            stage("testing.x", predicate="test-result")(function)


@pytest.mark.parametrize("kind", sorted(base.JUDGEMENTS))
def test_a_stage_cannot_approve_judge_or_take_back(kind):
    with pytest.raises(Misuse, match="people and gates"):
        stage("testing.x", predicate=kind)
    with pytest.raises(Misuse, match="people and gates"):
        stage("testing.x", predicate=predicates.SHORT[kind])


def test_every_built_in_stage_is_documented_for_people_and_generators():
    for name in registry.BUILTIN:
        found = registry.load(name).stage
        doc = found.function.__doc__
        assert found.name == name
        assert "Args:" in doc and "Guarantees:" in doc and "Edge cases:" in doc
        assert found.summary.endswith(".")
        assert all(p.help for p in found.parameters), [p.name for p in found.parameters if not p.help]


def test_every_stage_file_is_registered_and_every_registration_has_a_file():
    root = Path(base.__file__).parent
    moments = ("ingestion", "training", "testing", "governance", "inference", "monitoring")
    folders = [*(root / moment for moment in moments), root.parents[1] / "expectations" / "mlseal_gx"]
    declared = {
        match
        for folder in folders
        for file in folder.glob("*.py")
        for match in re.findall(r'^@stage\(\s*"([a-z._]+)"', file.read_text(), flags=re.M)
    }
    assert declared == set(registry.BUILTIN)


def test_a_missing_extra_names_the_extra():
    with pytest.raises(MissingExtra, match=r"pip install 'mlseal\[robustness\]'"):
        base.require("no_such_library_at_all", "robustness")


def _context(tmp_path, measured):
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    harness = Harness(name="a.b", version="1", provider="p", config_digest="0" * 64)
    return Context("r", lambda: None, "", {"model": measured}, workspace, harness, print, lambda: None)


def test_a_private_copy_is_proven_and_a_change_in_between_refuses(tmp_path):
    model = tmp_path / "model"
    (model / "sub").mkdir(parents=True)
    (model / "a").write_text("a")
    (model / "sub" / "b").write_text("b")
    (model / "attestations").mkdir()
    (model / "attestations" / "x").write_text("unmeasured")
    measured = measure(model)
    context = _context(tmp_path, measured)
    copy = context.private_copy("model")
    assert measure(copy, name="model").sha256 == measured.sha256
    assert not (copy / "attestations").exists()
    assert context.private_file("model", "sub/b").read_text() == "b"
    shutil.rmtree(context.workspace / "model")
    (model / "a").write_text("swapped")
    (model / "sub" / "b").write_text("swapped")
    with pytest.raises(DigestMismatch, match="changed"):
        context.private_copy("model")
    with pytest.raises(DigestMismatch, match="sub/b changed"):
        context.private_file("model", "sub/b")
