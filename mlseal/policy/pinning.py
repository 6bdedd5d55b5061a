"""Accepting a policy from elsewhere: verified, newer than everything known, then pinned. Forwards only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from mlseal.errors import DigestMismatch, Error, Misuse, Revoked, RuleBroken
from mlseal.evidence.archive import Archive
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.identity import Identity
from mlseal.policy import plainyaml, releases, shelf
from mlseal.policy.fetching import Fetched
from mlseal.policy.load import parse
from mlseal.policy.pins import Owner, Pin, Pins, Version
from mlseal.policy.releases import Release


def accept(
    archive: Archive, fetched: Fetched, pins: Pins, *, owners: Sequence[Identity] = (), sha256: str | None = None
) -> tuple[Pin, Release]:
    """Verify what was fetched and pin it.

    1. Its digest is `sha256`, if that was told over another way.
    2. Owners are those of the pin that is there, else `owners`: the file itself names nobody.
    3. Its release verifies: by an owner, about these bytes and this policy.
    4. No release of the owners on the log has a higher number, and none that was pinned here.

    Raises what is wrong; the pin before then stays.
    """
    digest = hashlib.sha256(fetched.policy).hexdigest()
    if sha256 is not None and digest != sha256:  # (1)
        raise DigestMismatch(
            f"{fetched.source} is not the policy that was asked for",
            got=f"sha256 {digest}",
            expected=f"sha256 {sha256}",
            remedy="ask its owner for the digest again, over a way that an attacker does not control",
        )
    name = str(plainyaml.parse(fetched.policy, fetched.source).value.get("policy"))
    before = pins.by_name.get(name)
    listed = _owners(name, before, owners)  # (2)
    people = [owner.identity for owner in listed]
    bundle = Bundle(fetched.release)
    try:
        release = releases.verified(archive, bundle, digest, people)  # (3)
    except Error as error:
        raise type(error)(
            f"the release of {name} does not count: {error.message}",
            got=error.got,
            expected=error.expected or "a release of these bytes by " + " or ".join(map(str, people)),
            remedy=error.remedy or "get the policy and its release again from its owner",
        ) from error
    if release.policy != name:
        raise RuleBroken("the release is of another policy", got=release.policy, expected=name)
    parse(fetched.policy, name=fetched.source, find=shelf.finder([fetched.folder] if fetched.folder else []))
    archive.store.put(bundle)
    archive.refresh()
    _require_not_taken_back(archive, release, people)
    others = releases.known(archive, name, people, since=release)
    releases.require_newest(release, [*others, *_seen(before)])  # (4)
    pin = Pin(
        policy=name,
        sha256=digest,
        serial=release.serial,
        owners=listed,
        source=fetched.source,
        release=release.evidence_id,
        seen=_history(before, release),
    )
    pins.written(pin, fetched.policy, fetched.release)
    return pin, release


def newer(archive: Archive, kept: Pins, pin: Pin) -> Release | None:
    """What the owners of `pin` released since; None while `pin` is the newest that `archive` knows as it is now.

    Raises `Revoked` for a release that its owner took back, and whatever keeps that one or a later one from verifying.
    """
    people = [owner.identity for owner in pin.owners]
    mine = releases.verified(archive, kept.release(pin), pin.sha256, people)
    _require_not_taken_back(archive, mine, people)
    newest = max(releases.known(archive, pin.policy, people, since=mine), key=lambda one: one.serial, default=mine)
    return newest if newest.serial > pin.serial else None


def _require_not_taken_back(archive: Archive, release: Release, people: Sequence[Identity]) -> None:
    if (back := archive.revocations(people).of(release.evidence_id)) is not None:
        raise Revoked("its owner took this release back", got=back.reason, remedy="pin the newest release")


def _owners(name: str, before: Pin | None, owners: Sequence[Identity]) -> list[Owner]:
    named = [Owner(issuer=who.issuer, san=who.san) for who in owners]
    if before is None and not named:
        raise Misuse(
            f"nobody is named who may release {name}",
            expected="--owner ISSUER SAN, at the first pin",
            remedy="ask who owns the policy, over a way that an attacker does not control",
        )
    if before is not None and named and set(named) != set(before.owners):
        raise RuleBroken(
            f"{name} is pinned with other owners",
            got=", ".join(str(owner.identity) for owner in named),
            expected=", ".join(str(owner.identity) for owner in before.owners),
            remedy=f"if they changed: mlseal policy pin --remove {name}, then pin it again",
        )
    return before.owners if before is not None else named


def _seen(before: Pin | None) -> list[Release]:
    """What was pinned here, as releases; it counts also where the log that holds them is gone."""
    if before is None:
        return []
    versions = [*before.seen, Version(serial=before.serial, sha256=before.sha256)]
    return [Release(before.policy, v.sha256, v.serial, "pinned", None, before.release, (0, 0)) for v in versions]


def _history(before: Pin | None, release: Release) -> list[Version]:
    if before is None:
        return []
    if before.serial == release.serial:
        return before.seen
    return [*before.seen, Version(serial=before.serial, sha256=before.sha256)]
