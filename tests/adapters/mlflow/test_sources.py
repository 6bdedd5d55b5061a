"""Where the gate looks for files: not wherever the one who registers a version says."""

from __future__ import annotations

import pytest
from mlseal_mlflow.files import is_under


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        ("s3://models/team/a", "s3://models"),
        ("s3://models/team/a", "s3://models/team/"),
        ("/srv/mlruns/0/a", "/srv/mlruns"),
    ],
)
def test_below_a_listed_root(uri, root):
    assert is_under(uri, root)


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        ("s3://models-evil/a", "s3://models"),
        ("s3://models/../evil", "s3://models"),
        ("s3://models", "s3://models"),
        ("s3://models/%2e%2e/evil", "s3://models"),
        ("s3://models//evil", "s3://models"),
        ("s3://evil/s3://models/a", "s3://models"),
        ("/srv/mlruns/./../x", "/srv/mlruns"),
        ("gs://x/a", ""),
        ("/etc/passwd", "/"),
        ("s3://models/a?b", "s3://models"),
        ("s3://models/a\\..\\b", "s3://models"),
    ],
)
def test_not_below_it(uri, root):
    assert not is_under(uri, root)
