"""Buckets on a real S3 service (moto) on loopback."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": "y",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass
class Bucket:
    """A bucket on moto's S3."""

    endpoint: str
    name: str
    client: Any

    def keys(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return sorted(row["Key"] for row in found)

    def objects(self) -> list[str]:
        return [key for key in self.keys() if "/files/md5/" in key]

    def get(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.name, Key=key)["Body"].read())

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)


def new_bucket(endpoint: str) -> Bucket:
    """A bucket of a name that nobody has."""
    import botocore.session

    client = botocore.session.get_session().create_client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y"
    )
    name = f"b-{secrets.token_hex(6)}"
    client.create_bucket(Bucket=name)
    return Bucket(endpoint, name, client)
