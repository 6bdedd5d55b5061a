"""Take each check of the store in a bucket out once: a test of test_store or test_store_urls must then fail."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from mlseal.evidence import bucket, bucket_faults, bucket_url, deadlines, store
from tests.adapters.remote import test_store
from tests.adapters.remote.changing import changed
from tests.unit.evidence import test_deadlines, test_store_urls

STORE, URLS, DEADLINES = test_store, test_store_urls, test_deadlines
MUTANTS: list[tuple[Any, str, str, Any, dict[str, Any]]] = [
    (store, "if not _HEX.fullmatch(evidence_id):", "if False:", STORE.test_a_path_never_leads_out, {}),
    (store, "if bundle.evidence_id != evidence_id:", "if False:", STORE.test_a_poisoned_cache_is_harmless, {}),
    (store, "place = _HEX.fullmatch(evidence_id) and path", "place = path", STORE.test_a_list_that_lies_names_nothing_outside_of_its_own, {}),
    (store, "bucket_url.require_no_lost_slash(os.fspath(place))", "pass", URLS.test_a_url_that_lost_a_slash_is_no_directory, {}),
    (bucket, ', mode="create")', ")", STORE.test_the_first_encoding_stays_and_is_asked_for_in_one_request, {}),
    (bucket, "        if over or not _exists(fs, path):", "        if True:", STORE.test_where_no_first_write_is_known_it_is_looked_before, {}),
    (bucket, "        if over or not _exists(fs, path):", "        if not _exists(fs, path):", STORE.test_usable_is_tried_by_a_write_where_no_first_write_is_known, {}),
    (bucket, "        if not faults.no_conditions(error):\n            raise", "        if False:\n            raise", STORE.test_a_first_write_that_is_refused_is_not_tried_without_its_condition, {}),
    (bucket, "if not raw or len(raw) > MAX_BYTES:", "if not raw:", STORE.test_each_way_to_answer_wrongly_is_one_sentence, {"row": 4}),
    (bucket, "if not raw or len(raw) > MAX_BYTES:", "if len(raw) > MAX_BYTES:", STORE.test_each_way_to_answer_wrongly_is_one_sentence, {"row": 2}),
    (bucket, 'if "http" not in fs.protocol:', "if True:", STORE.test_a_web_server_that_never_ends_is_left, {}),
    (bucket, "require_same(Bundle(raw), evidence_id, self.where(evidence_id))", "Bundle(raw)", STORE.test_each_way_to_answer_wrongly_is_one_sentence, {"row": 1}),
    (bucket, "            raise said from error", "            pass", STORE.test_each_way_to_answer_wrongly_is_one_sentence, {"row": 7}),
    (bucket, "cached=False, limits=self._limits)", "limits=self._limits)", STORE.test_an_audit_does_not_believe_the_cache, {}),
    (bucket, "self._cache.path(evidence_id).unlink(missing_ok=True)", "pass", STORE.test_a_poisoned_cache_is_harmless, {}),
    (bucket, "paths.private(self._cache.root)", "pass", STORE.test_a_poisoned_cache_is_harmless, {}),
    (bucket, "if self._pid != os.getpid():", "if False:", STORE.test_a_process_that_was_forked_opens_its_own_connection, {}),
    (bucket, "if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 3600:", "if False:", STORE.test_seconds_to_wait_come_from_the_environment, {}),
    (bucket, 'bool(found.get("type") != "directory")', "True", STORE.test_what_lies_below_an_id_is_not_it, {}),
    (bucket_faults, '    if code == "NoSuchBucket":', "    if False:", STORE.test_each_way_to_answer_wrongly_is_one_sentence, {"row": 6}),
    (bucket_faults, "    if isinstance(error, PermissionError) or code in _DENIED:", "    if False:", STORE.test_each_way_to_answer_wrongly_is_one_sentence, {"row": 7}),
    (bucket_faults, "    if isinstance(error, ImportError):", "    if False:", STORE.test_without_the_extra_and_with_an_unknown_scheme_it_is_one_sentence, {}),
    (deadlines, "        if answer.done():", "        if False:", DEADLINES.test_a_time_limit_of_the_work_itself_is_not_taken_for_ours, {}),
    (deadlines, "        while not ended.is_set():", "        while True:", DEADLINES.test_who_asks_for_no_more_begins_no_more, {}),
    (deadlines, "answers.put((item, error))", "answers.put((item, None))", DEADLINES.test_each_answers_once_and_errors_are_told_with_their_item, {}),
    (bucket_url, """        _refuse(text, "a chain of file systems")""", "        pass", URLS.test_bad_ones_are_refused_and_not_repeated, {"text": "simplecache::s3://bucket/hunter2"}),
    (bucket_url, 'match is None or "::" in text', "match is None", URLS.test_bad_ones_are_refused_and_not_repeated, {"text": "s3://bucket/hunter2::memory"}),
    (bucket_url, '        _refuse(text, "a user or password")', "        pass", URLS.test_bad_ones_are_refused_and_not_repeated, {"text": "s3://key:hunter2@bucket/x"}),
    (bucket_url, "scheme in _AZURE and _CONTAINER.fullmatch(rest)", "scheme in _AZURE", URLS.test_bad_ones_are_refused_and_not_repeated, {"text": "abfs://container:hunter2@account/x"}),
    (bucket_url, 'scheme in LOCAL and rest.startswith("/")', "scheme in LOCAL", URLS.test_bad_ones_are_refused_and_not_repeated, {"text": "file://u:hunter2@host/x"}),
    (bucket_url, 'got=f"{lost[1][:20]}:/…"', "got=path[:120]", URLS.test_a_url_that_lost_a_slash_is_no_directory, {}),
    (bucket_url, '        _refuse(text, "an empty or relative part")', "        pass", URLS.test_bad_ones_are_refused_and_not_repeated, {"text": "s3://bucket/hunter2/../other"}),
    (bucket_url, "        yield from _options(conf)", "        yield ''", STORE.test_another_service_by_fsspecs_configuration_is_another_store, {}),
    (bucket_url, '    if not path.startswith("/"):', "    if False:", URLS.test_a_url_that_lost_a_slash_is_no_directory, {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "old", "new", "test", "given"),
    MUTANTS,
    ids=[f"{row[0].__name__.rpartition('.')[2]}: {row[1]}"[:70] for row in MUTANTS],
)
def test_taking_a_check_out_is_noticed(module, old, new, test, given, remote, tmp_path, monkeypatch, home):
    if "row" in given:
        (mark,) = (mark for mark in test.pytestmark if mark.name == "parametrize")
        given = dict(zip(mark.args[0], mark.args[1][given["row"]], strict=True))
    offered = {
        "remote": remote,
        "tmp_path": tmp_path,
        "monkeypatch": monkeypatch,
        "home": home,
        "released": threading.Event(),
        **given,
    }
    wanted = test.__code__.co_varnames[: test.__code__.co_argcount]
    with changed(module, old, new), pytest.raises(BaseException):  # pytest.fail is one
        test(**{name: offered[name] for name in wanted})
