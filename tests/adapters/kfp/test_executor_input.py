"""The contract with KFP: both dialects of ExecutorInput mean the same, and nothing slips in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlseal_kfp import executor_input, surroundings
from mlseal_kfp.executor_input import Task, local_path, parse
from mlseal_kfp.staging import as_text

from mlseal.errors import Error, MalformedEvidence, Misuse, Unreadable
from mlseal.stages.base import Parameter

BACK_END = {
    "inputs": {
        "parameterValues": {
            "epochs": 3.0,
            "select": "top:0.25",
            "ratio": 1,
            "flag": True,
            "parameters": {"depth": 4.0},
        },
        "artifacts": {
            "model": {
                "artifacts": [
                    {
                        "name": "4711",
                        "uri": "s3://mlpipeline/v2/artifacts/release/5f/train/out",
                        "metadata": {
                            "display_name": "out",
                            "store_session_info": '{"Provider":"minio"}',
                            "n": 12345678901234567.0,
                        },
                    }
                ]
            },
            "collected": {"artifacts": [{"name": "1", "uri": "gs://b/e1"}, {"name": "2", "uri": "minio://b/e2"}]},
            "absent": {"artifacts": []},
        },
    },
    "outputs": {
        "parameters": {"evidence_sha256": {"outputFile": "/tmp/kfp/outputs/evidence_sha256"}},
        "artifacts": {
            "evidence": {"artifacts": [{"name": "evidence", "uri": "s3://mlpipeline/v2/x/evidence", "metadata": {}}]}
        },
        "outputFile": "/tmp/kfp_outputs/output_metadata.json",
    },
}
LOCAL = {
    "inputs": {
        "parameterValues": {"epochs": 3},
        "artifacts": {
            "model": {
                "artifacts": [
                    {
                        "name": "out",
                        "uri": "/w/run/train/out",
                        "metadata": {},
                        "type": {"schemaTitle": "system.Model", "schemaVersion": "0.0.1"},
                    }
                ]
            }
        },
    },
    "outputs": {"outputFile": "/w/run/x/executor_output.json"},
}


def test_back_end_shape() -> None:
    """Numeric names, no type, extra metadata, object-store URIs."""
    task = parse(json.dumps(BACK_END))
    model = task.artifact("model")
    assert model is not None
    assert model.path == Path("/s3/mlpipeline/v2/artifacts/release/5f/train/out")
    assert [a.path for a in task.inputs["collected"]] == [Path("/gcs/b/e1"), Path("/minio/b/e2")]
    assert task.artifact("absent") is None
    assert task.artifact("unconnected") is None
    assert task.output_artifacts["evidence"].path == Path("/s3/mlpipeline/v2/x/evidence")
    assert task.output_parameters == {"evidence_sha256": Path("/tmp/kfp/outputs/evidence_sha256")}
    assert task.output_file == Path("/tmp/kfp_outputs/output_metadata.json")


def test_local_shape() -> None:
    """kfp.local: the artifact's URI is its path; sections without entries are absent."""
    task = parse(json.dumps(LOCAL))
    model = task.artifact("model")
    assert model is not None
    assert model.path == Path("/w/run/train/out")
    assert task.output_artifacts == {}


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("gs://b/k", "/gcs/b/k"),
        ("s3://b/k/python3/x", "/s3/b/k/python3/x"),
        ("minio://b/k", "/minio/b/k"),
        ("oci://registry/a/b:1", "/oci/registry_a_b:1/models"),
        ("file:///srv/x", "/srv/x"),
        ("/plain/path", "/plain/path"),
    ],
)
def test_places(uri: str, path: str) -> None:
    """Where the launcher puts what it downloads."""
    assert local_path(uri) == Path(path)


def test_workspace_and_custom_path() -> None:
    """Two more places that only the back end uses."""
    entry = {"uri": "s3://b/k", "metadata": {"_kfp_workspace": True}}
    document = {
        "inputs": {
            "artifacts": {"a": {"artifacts": [entry]}, "b": {"artifacts": [{"uri": "s3://b/k", "customPath": "/c"}]}}
        }
    }
    task = parse(json.dumps(document))
    assert task.inputs["a"][0].path == Path("/kfp-workspace/.artifacts/s3/b/k")
    assert task.inputs["b"][0].path == Path("/c")


@pytest.mark.parametrize("uri", ["https://x/y", "hdfs://x", "", "s3://b/../../etc/passwd", "/a/../../etc/shadow"])
def test_places_refused(uri: str) -> None:
    """Anything that no launcher mounts, or that climbs."""
    with pytest.raises(Misuse):
        local_path(uri)


def test_injected_key_is_refused() -> None:
    """kfp.local splices values into the JSON text; a second key must not win."""
    spliced = '{"inputs": {"parameterValues": {"model_name": "x", "run_id": "other", "run_id": "mine"}}}'
    with pytest.raises(MalformedEvidence, match="duplicate key 'run_id'"):
        parse(spliced)


@pytest.mark.parametrize(
    "document",
    [
        "",
        "null",
        "[]",
        '{"inputs": []}',
        '{"inputs": {"artifacts": {"m": {"artifacts": {}}}}}',
        '{"inputs": {"artifacts": {"m": {"artifacts": [{"uri": 3}]}}}}',
        '{"outputs": {"outputFile": 1}}',
        '{"outputs": {"artifacts": {"e": {"artifacts": []}}}}',
        '{"inputs": {"parameterValues": {"a": NaN}}}',
        "{{$}}",
    ],
)
def test_other_shapes_are_refused(document: str) -> None:
    """One of our errors for each; never another exception."""
    with pytest.raises(Error):
        parse(document)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["inputs", "outputs", "artifacts", "parameterValues", "uri", "m", "outputFile"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_gives_a_task_or_our_error(document: object) -> None:
    """Property: parsing is total."""
    try:
        parse(json.dumps(document))
    except Error as error:
        assert str(error)


def test_missing_artifact_is_unreadable(tmp_path: Path) -> None:
    """KFP calls a step that wrote nothing a success; its reader finds out."""
    document = {"inputs": {"artifacts": {"model": {"artifacts": [{"uri": str(tmp_path / "nothing")}]}}}}
    artifact = parse(json.dumps(document)).artifact("model")
    assert artifact is not None
    with pytest.raises(Unreadable, match="input 'model' is missing"):
        artifact.require()


def test_list_where_one_is_wanted() -> None:
    """A fan-out connected to a single port is not silently its first element."""
    with pytest.raises(Misuse, match="holds a list"):
        parse(json.dumps(BACK_END)).artifact("collected")


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("integer", 3.0, "3"),
        ("integer", -2, "-2"),
        ("number", 1, "1"),
        ("number", 0.25, "0.25"),
        ("boolean", True, "true"),
        ("text", 'it\'s python3 "x"', 'it\'s python3 "x"'),
        ("settings", {"a": 4.0, "b": "x", "c": 0.5}, '{"a": 4, "b": "x", "c": 0.5}'),
    ],
)
def test_values_as_text(kind: str, value: object, text: str) -> None:
    """Doubles become what the stage declares."""
    assert as_text(_parameter(kind), value) == text


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("integer", 3.5),
        ("integer", True),
        ("integer", "3"),
        ("number", "1"),
        ("number", False),
        ("boolean", 1),
        ("boolean", "true"),
        ("text", 3),
        ("settings", "{}"),
        ("settings", [1]),
        ("integer", float("inf")),
        ("number", float("nan")),
    ],
)
def test_values_of_another_type(kind: str, value: object) -> None:
    """No guessing."""
    with pytest.raises(Misuse, match="wrong type"):
        as_text(_parameter(kind), value)


def _parameter(kind: str) -> Parameter:
    return Parameter("p", "value", kind, required=True, default=None, help="")  # type: ignore[arg-type]


def test_text_parameter_of_another_type() -> None:
    """A digest that arrives as a number is refused."""
    with pytest.raises(Misuse, match="'run_id' has the wrong type"):
        executor_input.Task(parameters={"run_id": 5}).text("run_id")


@pytest.mark.parametrize(
    ("value", "variable", "expected"),
    [(None, None, False), (False, "0", False), (True, None, True), (False, "1", True), (None, "1", True)],
)
def test_reuse_is_asked_for_by_the_component_or_the_environment(
    monkeypatch: pytest.MonkeyPatch, value: bool | None, variable: str | None, expected: bool
) -> None:
    """Off unless somebody asks."""
    monkeypatch.delenv("MLSEAL_REUSE", raising=False)
    if variable is not None:
        monkeypatch.setenv("MLSEAL_REUSE", variable)
    assert surroundings.reuse(Task({} if value is None else {"reuse": value})) is expected


def test_reuse_is_true_or_false() -> None:
    """A text such as "false" is neither."""
    with pytest.raises(Misuse):
        surroundings.reuse(Task({"reuse": "false"}))
