"""Training: what went in and what came out, by digest; a failed run leaves nothing."""

import os

import pytest

from mlseal.errors import Misuse, Unchecked
from mlseal.evidence import predicates
from mlseal.evidence.digest import measure

SCRIPT = """
import argparse, pathlib
p = argparse.ArgumentParser()
p.add_argument("--data"); p.add_argument("--out", type=pathlib.Path); p.add_argument("--param", action="append", default=[])
o = p.parse_args()
rows = sorted(f.read_text() for f in pathlib.Path(o.data).iterdir())
o.out.mkdir()
(o.out / "weights").write_text(repr((rows, o.param)))
print("epoch 1")
"""
IMAGE = "registry.example/train@sha256:" + "0123456789abcdef" * 4


@pytest.fixture
def data(tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a").write_text("1")
    return tmp_path / "rows"


def dependencies(made):
    return {d["name"]: d["digest"]["sha256"] for d in made.predicate["buildDefinition"]["resolvedDependencies"]}


def test_digests_chain_data_code_and_model(perform, program, data, tmp_path):
    lines = []
    made = perform(
        "training.run",
        script=program(SCRIPT),
        data=data,
        out=tmp_path / "model",
        parameters='{"rate": 0.5, "label": "need"}',
        log=lines.append,
    )
    said = made.predicate
    assert made.subjects == measure(tmp_path / "model").subjects
    measured = measure(data)
    assert dependencies(made) == {
        "data": measured.subjects[0].sha256,
        "data#manifest": measured.sha256,
        "code": measure(program(SCRIPT)).sha256,
    }
    assert said["buildDefinition"]["externalParameters"] == {
        "script": "program.py",
        "parameters": {"label": "need", "rate": "0.5"},
    }
    assert "['label=need', 'rate=0.5']" in (tmp_path / "model" / "weights").read_text()
    assert lines == ["epoch 1"]
    internal = said["buildDefinition"]["internalParameters"]
    assert internal["harness"]["name"] == "training.run" and len(internal["notProven"]) == 4
    assert internal["packages"]["count"] > 10
    assert said["runDetails"]["metadata"]["invocationId"] == "run-1"
    predicates.check(made.predicate_type, dict(said))


def test_another_byte_of_data_or_code_is_another_provenance(perform, program, data, tmp_path):
    first = dependencies(perform("training.run", script=program(SCRIPT), data=data, out=tmp_path / "one"))
    (data / "a").write_text("2")
    second = dependencies(perform("training.run", script=program(SCRIPT + "#"), data=data, out=tmp_path / "two"))
    assert first.keys() == second.keys() and not set(first.values()) & set(second.values())


@pytest.mark.parametrize(
    ("marked", "image", "builder"),
    [
        (False, "", "host-process"),
        (False, IMAGE, "host-process"),
        (True, "", "host-process"),
        (True, IMAGE, "container"),
    ],
)
def test_the_builder_is_a_container_only_inside_a_released_image(
    perform, program, data, tmp_path, monkeypatch, marked, image, builder
):
    if marked:
        monkeypatch.setenv("MLSEAL_BUILDER", "container")
    made = perform("training.run", script=program(SCRIPT), data=data, out=tmp_path / "model", image=image)
    assert f"/builder/{builder}/" in made.predicate["runDetails"]["builder"]["id"]
    assert ("image" in dependencies(made)) == (builder == "container")
    internal = made.predicate["buildDefinition"]["internalParameters"]
    assert internal.get("imageNotRun") == (image if image and builder != "container" else None)


@pytest.mark.parametrize(
    "image", ["registry.example/train:latest", "x@sha256:abc", "x@sha256:" + "0" * 64, "@sha256:" + "a1" * 32]
)
def test_an_image_without_a_real_digest_is_refused(perform, program, data, tmp_path, monkeypatch, image):
    monkeypatch.setenv("MLSEAL_BUILDER", "container")
    with pytest.raises(Misuse, match="not named by digest"):
        perform("training.run", script=program(SCRIPT), data=data, out=tmp_path / "model", image=image)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise SystemExit('no rows')", "no rows"),
        ("print('done')", "left no usable output"),
        (SCRIPT + "raise ValueError('diverged')", "diverged"),
        ("import time; time.sleep(60)", "no end after 1 s"),
    ],
)
def test_a_failed_run_publishes_nothing(perform, program, data, tmp_path, text, message):
    (tmp_path / "place").mkdir()
    with pytest.raises(Unchecked, match=message):
        perform(
            "training.run",
            script=program(text),
            data=data,
            out=tmp_path / "place" / "model",
            timeout=1 if "sleep" in text else 60,
        )
    assert os.listdir(tmp_path / "place") == []


def test_a_script_that_edits_its_data_is_refused(perform, program, data, tmp_path):
    from mlseal.errors import DigestMismatch

    text = SCRIPT + "(pathlib.Path(o.data) / 'a').write_text('poison')\n"
    with pytest.raises(DigestMismatch, match="input data changed"):
        perform("training.run", script=program(text), data=data, out=tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_directory_of_code_runs_with_its_modules(perform, data, tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    (code / "__main__.py").write_text("import neighbour\n" + SCRIPT)
    (code / "neighbour.py").write_text("here = 1")
    made = perform("training.run", script=code, data=data, out=tmp_path / "model")
    assert dependencies(made)["code#manifest"] == measure(code).sha256
    (code / "__main__.py").unlink()
    with pytest.raises(Misuse, match="__main__"):
        perform("training.run", script=code, data=data, out=tmp_path / "another")
