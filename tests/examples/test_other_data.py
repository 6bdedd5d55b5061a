"""The main job on another data set; a module of its own, so that both runs go side by side."""

import json

import pytest

from tests.examples.job import claims, run

pytestmark = pytest.mark.slow


def test_the_same_job_on_another_data_set(tmp_path, home):
    work = tmp_path / "demo"
    done = run(work, "--data", "nhefs", env=home.env)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    about = json.loads((work / "project" / "data" / "dataset.json").read_text())
    assert about["name"] == "nhefs"
    assert claims(work, "/fairness/") and not claims(work, "/dp-training/"), "nobody asked for --full"
    assert "bundles verified in an empty network namespace" in " ".join(done.stdout.split())
