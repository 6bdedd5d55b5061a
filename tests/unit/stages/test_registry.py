"""Strangers' stages are loaded only if their distribution is listed, under names that nobody has."""

import sys

import pytest

from mlseal.errors import DuplicateName, Misuse, UnknownName, Unreadable
from mlseal.evidence import paths
from mlseal.stages import registry

MODULE = """
import pathlib
pathlib.Path({canary!r}).write_text("imported")
from mlseal.stages.base import Context, DatasetPath, Finding, stage

@stage("testing.foreign", predicate={predicate!r})
def foreign(dataset: DatasetPath, *, context: Context) -> Finding:
    '''Look away.'''
    if {predicate!r} != "source-verification":
        return Finding(("dataset",), {fields!r}, seed=3)
    source = {{"evidenceId": "0" * 64, "predicateType": "x:y", "issuer": "i", "san": "s", "signedOn": context.started_on}}
    return Finding(("dataset",), {{"source": source, "assurance": {{}}, "files": 1, "size": 1}}, not_proven=("anything",))
"""


@pytest.fixture
def provider(tmp_path, monkeypatch):
    """Installs a distribution that offers `testing.foreign` under the given entry-point names."""

    def install(
        distribution="stranger",
        module="stranger_stages",
        names=("testing.foreign",),
        predicate="source-verification",
        fields=None,
    ):
        site = tmp_path / f"site-{distribution}"
        info = site / f"{distribution.replace('-', '_')}-3.1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 3.1\n")
        lines = "".join(f"{name} = {module}:foreign\n" for name in names)
        (info / "entry_points.txt").write_text(f"[mlseal.stages]\n{lines}")
        (site / f"{module}.py").write_text(
            MODULE.format(canary=str(tmp_path / f"imported-{distribution}"), predicate=predicate, fields=fields)
        )
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, module, raising=False)
        return tmp_path / f"imported-{distribution}"

    return install


def test_a_stranger_is_neither_listed_nor_imported_unless_allowed(provider, monkeypatch):
    canary = provider()
    assert registry.names() == sorted(registry.BUILTIN)
    with pytest.raises(UnknownName, match="testing.foreign"):
        registry.load("testing.foreign")
    monkeypatch.setenv("MLSEAL_STAGE_PROVIDERS", "somebody")
    assert registry.names() == sorted(registry.BUILTIN)
    assert not canary.exists()
    monkeypatch.setenv("MLSEAL_STAGE_PROVIDERS", "somebody, Stranger")
    assert "testing.foreign" in registry.names()
    assert not canary.exists(), "listing names must not run their code"
    found = registry.load("testing.foreign")
    assert (found.provider, found.version, found.foreign) == ("stranger", "3.1", True)
    assert canary.exists()


def test_the_allow_list_is_read_from_the_users_configuration_and_not_from_the_tree(provider, monkeypatch, tmp_path):
    provider()
    monkeypatch.chdir(tmp_path)
    (tmp_path / registry.ALLOW_FILE).write_text("stranger\n")
    assert "testing.foreign" not in registry.names()
    own = paths.config_dir() / registry.ALLOW_FILE
    own.parent.mkdir(parents=True)
    own.write_text("# reviewed 2026-11\nstranger  # stages\n")
    assert "testing.foreign" in registry.names()
    own.write_bytes(b"\xff\xfe")
    with pytest.raises(Unreadable):
        registry.names()


def test_names_that_are_taken_are_refused(provider, monkeypatch):
    provider(names=("governance.fairness",))
    monkeypatch.setenv("MLSEAL_STAGE_PROVIDERS", "stranger")
    with pytest.raises(DuplicateName, match=r"governance\.fairness.*stranger and mlseal"):
        registry.names()
    assert registry.load("governance.fairness").provider == "mlseal", "a built-in name stays ours"


def test_two_strangers_may_not_share_a_name(provider, monkeypatch):
    provider()
    provider("other-stranger", "other_stages")
    monkeypatch.setenv("MLSEAL_STAGE_PROVIDERS", "stranger,other_stranger")
    with pytest.raises(DuplicateName, match="two providers"):
        registry.load("testing.foreign")


def test_an_entry_point_that_is_no_stage_of_that_name_is_refused(provider, monkeypatch):
    provider(names=("testing.other",))
    monkeypatch.setenv("MLSEAL_STAGE_PROVIDERS", "stranger")
    with pytest.raises(Misuse, match=r"not the stage 'testing\.other'"):
        registry.load("testing.other")


def test_a_strangers_finding_is_declared_and_names_the_provider(provider, monkeypatch, perform, tmp_path):
    provider()
    monkeypatch.setenv("MLSEAL_STAGE_PROVIDERS", "stranger")
    (tmp_path / "rows.csv").write_text("a\n1\n")
    made = perform("testing.foreign", dataset=tmp_path / "rows.csv")
    assert made.predicate["strength"] == "declared"
    assert made.predicate["harness"]["provider"] == "stranger"
    assert made.predicate["harness"]["version"] == "3.1"


def test_a_strangers_test_result_names_the_provider_too(provider, monkeypatch, perform, tmp_path):
    provider(predicate="test-result", fields={"result": "PASSED", "configuration": [{"name": "suite"}]})
    monkeypatch.setenv("MLSEAL_STAGE_PROVIDERS", "stranger")
    (tmp_path / "rows.csv").write_text("a\n1\n")
    suite, harness = perform("testing.foreign", dataset=tmp_path / "rows.csv").predicate["configuration"]
    assert suite == {"name": "suite"}
    assert harness["name"] == "testing.foreign" and len(harness["digest"]["sha256"]) == 64
    assert harness["annotations"] == {
        "version": "3.1",
        "provider": "stranger",
        "strength": "declared",
        "runId": "run-1",
        "seed": 3,
    }


def test_a_stranger_makes_no_evidence_that_cannot_name_it(provider, monkeypatch, perform, tmp_path):
    fields = {
        "buildDefinition": {"buildType": "x:y", "externalParameters": {}},
        "runDetails": {"builder": {"id": "x:y"}},
    }
    provider(predicate="slsa-provenance", fields=fields)
    monkeypatch.setenv("MLSEAL_STAGE_PROVIDERS", "stranger")
    (tmp_path / "rows.csv").write_text("a\n1\n")
    with pytest.raises(Misuse, match="cannot name its provider"):
        perform("testing.foreign", dataset=tmp_path / "rows.csv")
