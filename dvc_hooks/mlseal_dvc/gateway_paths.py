r"""What a path at the gateway names. Everything else does not exist: no listing, no traversal, no escapes.

A path is compared as it came over the wire. One with ``%``, ``\``, ``?`` or ``..`` never matches, so that no two
spellings name one file, and nothing is left for the store behind to decode in another way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["object", "bundle", "manifest", "checkpoint", "tile", "revocation", "salt"]
_HEX = "[0-9a-f]"
_OID = rf"{_HEX}{{32}}(?:\.dir)?"
_ORIGIN = r"(?P<origin>[a-z0-9][a-z0-9.-]{0,252})"
_TILE = r"tile/[0-5]/(?:x[0-9]{3}/){0,4}[0-9]{3}(?:\.p/[1-9][0-9]{0,2})?"
_SHAPES: tuple[tuple[Kind, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(f"/{shape}"))  # type: ignore[misc]
    for kind, shape in (
        ("object", rf"files/md5/(?P<ab>{_HEX}{{2}})/(?P<rest>{_HEX}{{30}}(?:\.dir)?)"),
        ("bundle", rf"attestations/v1/bundles/md5/(?P<oid>{_OID})/{_HEX}{{32}}/{_HEX}{{32}}\.sigstore\.json"),
        ("manifest", rf"attestations/v1/manifests/(?P<ab>{_HEX}{{2}})/(?P<rest>{_HEX}{{62}})\.jsonl"),
        ("checkpoint", rf"attestations/v1/log/{_ORIGIN}/checkpoint"),
        ("tile", rf"attestations/v1/log/{_ORIGIN}/(?P<tile>{_TILE})"),
        ("revocation", rf"attestations/v1/revocations/(?P<id>{_HEX}{{64}})\.sigstore\.json"),
        ("salt", r"attestations/v1/names\.salt"),
    )
)


class Malformed(Exception):
    """The request is not answered as it was meant; (status, sentence)."""


@dataclass(frozen=True)
class Target:
    """One file that the gateway knows of.

    Attributes:
        name: relative to the remote's root.
        key: what identifies it within its kind: object id, manifest digest, evidence id, log origin.
        tile: path within the log.
    """

    kind: Kind
    name: str
    key: str
    tile: str = ""


def target(path: str) -> Target | None:
    """What `path` names; None if nothing."""
    for kind, shape in _SHAPES:
        found = shape.fullmatch(path)
        if found is None or ".." in path:
            continue
        parts = found.groupdict()
        if "ab" in parts:
            key = parts["ab"] + parts["rest"]
        else:
            key = parts.get("oid") or parts.get("origin") or parts.get("id") or ""
        return Target(kind, path[1:], key, parts.get("tile") or "")
    return None
