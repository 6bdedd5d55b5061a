"""`testing.model_file` with ModelAudit's second opinion: its own program, in a process of its own."""

import json
import pickle
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils import Bunch

from mlseal.errors import MissingExtra, NotInitialised
from mlseal.stages import runner
from mlseal.stages.testing import opinions
from tests.adapters.modelaudit.package import VERSION, package

PLANTED = b'cos\nsystem\n(S"echo planted"\ntR.'


@pytest.fixture
def beside(monkeypatch):
    """ModelAudit can be imported, as where a user has installed it."""
    monkeypatch.syspath_prepend(str(package()))


@pytest.fixture
def model(tmp_path):
    """A directory with the files that are given."""

    def write(**files: bytes) -> Path:
        folder = tmp_path / "model"
        folder.mkdir()
        for name, raw in files.items():
            (folder / name).write_bytes(raw)
        return folder

    return write


def scan(model: Path) -> dict:
    def no_archive():
        raise NotInitialised("no trust in this test")

    given = {"model": str(model), "report": str(model.with_suffix(".sarif")), "second_opinions": "modelaudit"}
    with runner.performed("testing.model_file", given, archive=no_archive, log=lambda _: None) as done:
        return json.loads(done.statement.payload)["predicate"]


def facts(said: dict) -> dict:
    (entry,) = (one["annotations"] for one in said["configuration"] if one["name"] == "modelaudit")
    return entry


def test_ordinary_files_pass(beside, model, tmp_path):
    fitted = LogisticRegression().fit(np.arange(6.0)[:, None], [0, 0, 0, 1, 1, 1])
    learned = tmp_path / "learned.joblib"
    joblib.dump({"coef": fitted.coef_, "intercept": fitted.intercept_}, learned)
    said = scan(model(**{"weights.pkl": pickle.dumps({"w": [0.5, 1.5]}), learned.name: learned.read_bytes()}))
    assert said["result"] == "PASSED" and "modelaudit" in said["passedTests"]
    counted = {"files": 2, "flagged": 0, "notRead": 0, "disagrees": False}
    assert facts(said) == counted | {"version": VERSION, "verdict": "no issue"}


def test_a_planted_file_is_critical(beside, model, tmp_path):
    """Beside one of scikit-learn, of which it only warns; through a link, behind which it says the real name."""
    folder = model(planted=PLANTED, bunch=pickle.dumps(Bunch(a=1)))
    (tmp_path / "link").symlink_to(folder)
    files = [tmp_path / "link" / name for name in ("planted", "bunch")]
    said = opinions.ask("modelaudit", files)
    assert (said.flagged, said.unread, said.verdict) == (2, 0, "critical")
    assert opinions.ask("modelaudit", []).clean, "nothing to read, nothing started"


def test_what_came_to_no_end_is_not_read(beside, model, monkeypatch):
    monkeypatch.setattr(opinions, "_TIMEOUT", 0.001)
    said = scan(model(weights=pickle.dumps({"w": [0.5, 1.5]}), planted=PLANTED))
    assert said["warnedTests"] == ["modelaudit"] and said["failedTests"] == ["allow-list"]
    assert facts(said)["notRead"] == facts(said)["files"] == 2


def test_without_it_there_is_one_sentence_and_no_evidence(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "modelaudit", None)
    with pytest.raises(MissingExtra, match="pip install modelaudit"):
        scan(model(weights=pickle.dumps({"w": [0.5, 1.5]})))
