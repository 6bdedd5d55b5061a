"""Take each check of releases and pins out once: a test of test_pins must then fail. Real signatures, so each runs alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .test_mutants import PACKAGE, fresh, mutated

OLD, OLDER = (
    "test_an_older_version_validly_signed_is_refused",
    "test_an_older_version_is_refused_where_the_store_is_empty",
)
SWAPPED, OTHER = (
    "test_a_swapped_file_is_refused_before_and_after_it_is_pinned",
    "test_the_signature_of_another_file_is_refused",
)
LISTED = "test_a_signer_who_is_not_listed_is_refused_and_nobody_is_listed_by_the_file"
DRESSED, STORIES = (
    "test_an_earlier_version_dressed_as_a_new_one_is_refused",
    "test_two_releases_under_one_number_are_two_stories",
)
HERE, BACK = (
    "test_what_was_pinned_here_counts_though_the_log_shows_nothing",
    "test_versions_go_forward_and_back_by_a_signed_act",
)
TAKEN, LARGE = "test_a_release_of_another_policy_and_one_taken_back", "test_what_is_too_large_or_not_there_stops"
NEWER = "test_whoever_looks_is_told_of_a_newer_release_and_of_one_taken_back"
GIT, UNSIGNED = "test_from_git_by_revision", "test_an_unsigned_policy_is_refused"
MUTANTS: list[tuple[str, str, str, str]] = [
    ("releases", "        if later and leaf.identity in owners:", "        if False:", OLDER),
    ("releases", "later = since is None or", "later = True or", OLDER),
    ("releases", "    if newest.serial > release.serial:", "    if False:", OLD),
    ("releases", '    if before and release.act != "rollback":', "    if False:", DRESSED),
    ("releases", '    if before and release.act != "rollback":', "    if before:", BACK),
    ("releases", "if one.serial == other.serial and one.sha256 != other.sha256:", "if False:", STORIES),
    ("releases", "        _require_one_story(release, other)", "        pass", HERE),
    ("releases", "if any(release.sha256 == policy.sha256 for release in earlier):", "if False:", DRESSED),
    ("releases", "or earlier[-1].sha256 == policy.sha256:", "or False:", BACK),
    ("releases", "if not any(release.sha256 == policy.sha256 for release in earlier) or", "if", BACK),
    ("releases", "        identities=owners,", "        identities=[bundle_signer(archive, bundle)],", LISTED),
    ("pinning", "if sha256 is not None and digest != sha256:", "if False:", SWAPPED),
    ("pinning", "    if release.policy != name:", "    if False:", TAKEN),
    ("pinning", "    if (back := archive.revocations(people).of(release.evidence_id)) is not None:", "    if False:", TAKEN),
    ("pinning", "    _require_not_taken_back(archive, release, people)", "    pass", TAKEN),
    ("pinning", "    _require_not_taken_back(archive, mine, people)", "    pass", NEWER),
    ("pinning", "newest if newest.serial > pin.serial else None", "None", NEWER),
    ("pinning", "newest if newest.serial > pin.serial else None", "newest", NEWER),
    ("pinning", "    if before is None and not named:", "    if False:", LISTED),
    ("pinning", "set(named) != set(before.owners)", "False", LISTED),
    ("pins", "if (got := hashlib.sha256(raw).hexdigest()) != pin.sha256:", "if False:", SWAPPED),
    ("fetching", "    require_size(len(policy), source)", "    pass", LARGE),
    ("fetching", '"GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",', "", GIT),
    ("fetching", "    if wrong or not _REVISION.fullmatch(revision):", "    if False:", GIT),
]  # fmt: skip


def fails(test: str, authority: Any, path: Path) -> bool:
    path.mkdir(parents=True)
    module = fresh("test_pins")
    try:
        getattr(module, test)(module.Desk(authority, path))
    except BaseException:  # pytest.fail is one
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize(("module", "old", "new", "test"), MUTANTS)
def test_taking_a_check_out_is_noticed(
    module: str, old: str, new: str, test: str, authority: Any, tmp_path: Path
) -> None:
    assert old in (PACKAGE / f"{module}.py").read_text(), "the table must follow the source"
    with mutated(module, (old, new)):
        assert fails(test, authority, tmp_path / "mutant"), f"{test} does not notice {new!r} in place of {old!r}"
    with mutated(module, ("", "")):
        assert not fails(test, authority, tmp_path / "again"), f"{test} fails without a change too"
