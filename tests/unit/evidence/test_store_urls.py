"""URLs that name a store: none holds a secret or leads out of itself, and what is refused is not repeated."""

import os
import pathlib
import subprocess
import sys

import pytest

from mlseal.errors import Misuse
from mlseal.evidence import bucket_url, store
from mlseal.evidence.store import Store


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://bucket/org/evidence", "s3://bucket/org/evidence"),
        ("s3://bucket/org/evidence/", "s3://bucket/org/evidence"),
        ("s3a://bucket", "s3://bucket"),
        ("gs://bucket/x", "gs://bucket/x"),
        ("memory:///x", "memory:///x"),
        ("abfs://container@account.dfs.core.windows.net/x", "abfs://container@account.dfs.core.windows.net/x"),
        ("WASBS://container@account.blob.core.windows.net", "wasbs://container@account.blob.core.windows.net"),
        ("S3A://Bucket/x", "s3://Bucket/x"),
        ("file:///home/ann@corp/x", "file:///home/ann@corp/x"),
    ],
)
def test_good_ones(text, shown):
    assert str(bucket_url.parse(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "s3://key:hunter2@bucket/x",
        "https://u:hunter2@host/x",
        "s3://AKIA:abc/hunter2+ghi@bucket/ml",
        "sftp://u:p/hunter2@h/x",
        "https://hunter2@host/store",
        "S3://KEY:hunter2@bucket/x",
        "abfs://container:hunter2@account/x",
        "abfs://container@hunter2@account/x",
        "abfs://c/hunter2@account/x",
        "abfs://c@account/hunter2@x",
        "file://u:hunter2@host/x",
        "https://host/x?X-Amz-Signature=hunter2",
        "s3://bucket/x#hunter2",
        "simplecache::s3://bucket/hunter2",
        "SimpleCache::s3://bucket/hunter2",
        "zip://a::/tmp/hunter2.zip",
        "s3://bucket/hunter2::memory",
        "reference://::/tmp/hunter2.json",
        "s3://bucket/hunter2/../other",
        "s3://bucket/./hunter2",
        "s3://bucket//hunter2",
        "s3://bucket/hunter2\nx",
        "s3://bucket/%2e%2e/hunter2",
        "s3://",
        "memory://",
        "s3:///",
    ],
)
def test_bad_ones_are_refused_and_not_repeated(text):
    with pytest.raises(Misuse, match="cannot name an evidence store") as caught:
        store.resolve(text)
    assert "hunter2" not in str(caught.value)
    assert isinstance(caught.value, Misuse)


def test_a_directory_stays_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLSEAL_STORE", raising=False)
    for place, root in (
        (None, ".mlseal/evidence"),
        ("some/where", "some/where"),
        (tmp_path, str(tmp_path)),
        (tmp_path.as_uri(), str(tmp_path)),
        ("odd:name", "odd:name"),
    ):
        found = store.resolve(place)
        assert isinstance(found, Store)
        assert str(found) == root
    monkeypatch.setenv("MLSEAL_STORE", tmp_path.as_uri())
    assert store.resolve().root == tmp_path


def test_a_url_that_lost_a_slash_is_no_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Misuse, match="lost a slash"):
        store.resolve(str(pathlib.Path("s3://bucket/x")))
    (tmp_path / "s3:/bucket").mkdir(parents=True)
    assert isinstance(store.resolve("s3:/bucket"), Store)
    for lost in ("S3:/key:hunter2@bucket", "sftp:/hunter2@host"):
        with pytest.raises(Misuse, match="lost a slash") as caught:
            store.resolve(lost)
        assert "hunter2" not in str(caught.value)
    with pytest.raises(Misuse, match="needs an absolute path"):
        store.resolve("file://relative/path")


def _named(url, home, **environment):
    """The name of a store in a process of its own, which has no other environment."""
    code = "import sys; from mlseal.evidence import bucket_url; print(bucket_url.parse(sys.argv[1]).name)"
    env = {"PATH": os.environ["PATH"], "HOME": str(home), **environment}
    done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, env=env, check=True)
    return done.stdout


def test_another_service_with_the_same_bucket_is_another_store(tmp_path):
    config = tmp_path / "config"
    config.write_text(
        "[profile a]\nregion = x\nservices = minio\n[services minio]\ns3 =\n  endpoint_url = http://one\n"
    )
    plain = {"AWS_CONFIG_FILE": str(config)}
    url = "s3://bucket/x"
    before = _named(url, tmp_path, **plain)
    others = [
        _named(url, tmp_path, **plain, **more)
        for more in (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"},
            {"AWS_PROFILE": "a"},
            {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=one;AccountKey=k"},
        )
    ]
    config.write_text(config.read_text().replace("one", "two"))
    others.append(_named(url, tmp_path, **plain))
    assert len({before, *others}) == 5
    config.write_text(config.read_text().replace("two", "one").replace("region = x", "region = y"))
    assert _named(url, tmp_path, **plain) == before
