"""The file system behind ``mlseals3://``: DVC's own for S3, under the name that DVC alone does not know.

Loaded by DVC when a strict remote is opened; without dvc-s3 its import fails and DVC says what is missing (`scheme`).
``protocol`` stays ``s3``, for DVC switches on it.
"""

from __future__ import annotations

import re
from typing import Any

from dvc_s3 import S3FileSystem

from mlseal_dvc.scheme import NAME, require_remote

_SCHEME = re.compile(rf"\s*{NAME}://", re.IGNORECASE)


class StrictS3FileSystem(S3FileSystem):
    """S3, reached by URLs of the strict scheme, as a remote only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        require_remote()
        super().__init__(*args, **kwargs)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(_as_s3(path)))

    @classmethod
    def _get_kwargs_from_urls(cls, urlpath: str) -> dict[str, Any]:
        return dict(super()._get_kwargs_from_urls(_as_s3(urlpath)))


def _as_s3(path: str) -> str:
    return _SCHEME.sub("s3://", path, count=1)
