"""Text becomes typed arguments, or one sentence."""

import json

import pytest

from mlseal.errors import Misuse, Unreadable
from mlseal.stages.arguments import parse
from mlseal.stages.base import Context, DatasetPath, FilePath, Finding, OutputModel, Settings, stage


@stage("testing.arguments", predicate="test-result")
def subject(
    data: DatasetPath,
    out: OutputModel,
    count: int = 3,
    rate: float = 0.5,
    deep: bool = False,
    word: str = "w",
    extra: FilePath | None = None,
    more: Settings | None = None,
    seed: int = 0,
    *,
    context: Context,
) -> Finding:
    """Do nothing."""


@pytest.fixture
def given(tmp_path):
    (tmp_path / "data").mkdir()
    return {"data": str(tmp_path / "data"), "out": str(tmp_path / "out")}


def test_types_defaults_and_absolute_paths(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = parse(
        subject,
        {
            "data": "data",
            "out": "new/out",
            "count": "7",
            "rate": "0.25",
            "deep": "TRUE",
            "more": '{"a": "x", "b": 3, "c": true}',
        },
    )
    assert found.inputs == {"data": tmp_path / "data"}
    assert found.outputs == {"out": tmp_path / "new/out"}
    assert found.values == {
        "count": 7,
        "rate": 0.25,
        "deep": True,
        "word": "w",
        "seed": 0,
        "more": {"a": "x", "b": "3", "c": "true"},
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("count", "3.5"),
        ("count", "many"),
        ("rate", "nan"),
        ("rate", "inf"),
        ("rate", "a half"),
        ("deep", "yes"),
        ("more", "[1]"),
        ("more", '{"a": {}}'),
        ("more", '{"a": null}'),
        ("more", '{"a": "1", "a": "2"}'),
        ("more", "a=b"),
        ("more", '{"a": NaN}'),
    ],
)
def test_what_does_not_parse_is_refused_by_name(given, name, text):
    with pytest.raises(Misuse, match=f"--{name}"):
        parse(subject, given | {name: text})


def test_unknown_missing_and_absent_arguments(given, tmp_path):
    with pytest.raises(Misuse, match="no parameter 'epsilon'"):
        parse(subject, given | {"epsilon": "1"})
    with pytest.raises(Misuse, match="needs --out"):
        parse(subject, {"data": given["data"]})
    with pytest.raises(Misuse, match="needs --data"):
        parse(subject, given | {"data": ""})
    with pytest.raises(Unreadable, match="does not exist"):
        parse(subject, given | {"data": str(tmp_path / "nowhere")})
    with pytest.raises(Misuse, match="not a file"):
        parse(subject, given | {"extra": given["data"]})


def test_an_output_must_be_new(given, tmp_path):
    (tmp_path / "out").mkdir()
    assert parse(subject, given).outputs  # an empty directory is what Kubeflow makes
    (tmp_path / "out" / "file").write_text("x")
    with pytest.raises(Misuse, match="exists"):
        parse(subject, given)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Misuse, match="exists"):
        parse(subject, given | {"out": str(tmp_path / "dangling")})


def test_the_configuration_counts_values_only_and_not_the_seed(given, tmp_path):
    one = parse(subject, given | {"seed": "1"}).configuration
    assert one == parse(subject, given | {"seed": "2", "out": str(tmp_path / "elsewhere")}).configuration
    assert one != parse(subject, given | {"count": "4"}).configuration
    assert set(json.loads(one)["parameters"]) == {"count", "rate", "deep", "word", "more"}
