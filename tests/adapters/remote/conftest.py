"""Evidence stores on URLs: a bucket on a real S3 service, and a relay before it that can be slow, broken or a liar."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from mlseal.evidence import canonical, statement, store
from mlseal.evidence.bucket import BucketStore
from mlseal.evidence.bucket_url import parse
from mlseal.evidence.bundle import MEDIA_TYPE, Bundle
from mlseal.evidence.deadlines import Limits
from mlseal.evidence.digest import Subject
from mlseal.evidence.statement import PAYLOAD_TYPE
from tests.adapters.dvc.buckets import CREDENTIALS
from tests.adapters.remote.relay import Relay

SECRET = "wJalrXUtnFEMI-not-to-be-seen"
PATIENT = Limits(call=30.0, total=60.0, workers=8)


@dataclass
class Remote:
    """A bucket behind the relay; its own client goes past it."""

    relay: Relay
    client: Any
    bucket: str
    prefix: str = "org/evidence"

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def env(self) -> dict[str, str]:
        """What the environment of whoever uses it holds."""
        return CREDENTIALS | {"AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": self.relay.url}

    def open(self, *, cached: bool = True, limits: Limits = PATIENT) -> BucketStore:
        return BucketStore(parse(self.url), cached=cached, limits=limits)

    def key(self, evidence_id: str) -> str:
        return f"{self.prefix}/{store.relative(evidence_id)}"

    def lay(self, evidence_id: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.key(evidence_id), Body=data)

    def lay_at_once(self, evidence_id: str, data: bytes) -> None:
        """Into the service itself, which runs in this process: a thousand are no thousand requests."""
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(self.bucket, self.key(evidence_id), data)

    def read(self, evidence_id: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.bucket, Key=self.key(evidence_id))["Body"].read())

    def drop(self, evidence_id: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self.key(evidence_id))

    def keys(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [row["Key"] for page in pages for row in page.get("Contents", [])]


@pytest.fixture(scope="module")
def _relay() -> Iterator[Relay]:
    from moto.server import ThreadedMotoServer

    service = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    service.start()
    relay = Relay("http://{}:{}".format(*service.get_host_and_port()))
    threading.Thread(target=relay.serve_forever, daemon=True).start()
    yield relay
    relay.shutdown()
    relay.server_close()
    service.stop()


@pytest.fixture(scope="module")
def _client(_relay: Relay) -> Any:
    import botocore.session

    return botocore.session.get_session().create_client(
        "s3",
        endpoint_url=f"http://{_relay.behind}",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="y",
    )


@pytest.fixture
def remote(_relay: Relay, _client: Any, home: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    """A fresh bucket, and an environment that reaches it through the relay."""
    one = Remote(_relay, _client, f"b-{secrets.token_hex(6)}")
    _client.create_bucket(Bucket=one.bucket)
    enter(one, monkeypatch)
    yield one
    _relay.lie = lambda *_: None


def enter(one: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment; again after another fixture has cleared it, and with nothing counted."""
    one.relay.lie = lambda *_: None
    one.relay.asked.clear()
    one.relay.heads.clear()
    for key, value in one.env.items():
        monkeypatch.setenv(key, value)


def unsigned(mark: str) -> Bundle:
    """The bytes of a bundle that says something and proves nothing: for what knows no signatures."""
    said = statement.make(
        [Subject("model", "ab" * 32)], "https://in-toto.io/attestation/test-result/v0.1", {"url": mark}
    )
    return enveloped(said.payload, "AAAA")


def enveloped(payload: bytes, signature: str) -> Bundle:
    """An encoding of a statement."""
    import base64

    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"sig": signature}],
    }
    return Bundle(canonical.dumps({"mediaType": MEDIA_TYPE, "dsseEnvelope": envelope}))
