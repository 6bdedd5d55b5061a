"""Versions against advisories: every dependency is accounted for, and what did not answer has not cleared anything."""

import importlib.metadata
import json
import shutil
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

from mlseal.errors import Misuse, Unreadable
from mlseal.evidence.digest import measure
from mlseal.stages import registry
from mlseal.stages.testing import osv

PYYAML = {
    "schema_version": "1.6.0",
    "id": "PYSEC-2021-142",
    "modified": "2026-03-01T10:20:30.123456Z",
    "aliases": ["CVE-2020-14343", "GHSA-8q59-q68h-6hv4"],
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "PyYAML", "purl": "pkg:pypi/pyyaml"},
            "ranges": [
                {
                    "type": "GIT",
                    "repo": "https://github.com/yaml/pyyaml",
                    "events": [{"introduced": "0"}, {"fixed": "a001f27"}],
                },
                {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "5.4"}]},
            ],
            "versions": ["3.10", "5.3", "5.3.1"],
        }
    ],
    "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],
}
SAME = {**PYYAML, "id": "GHSA-8q59-q68h-6hv4", "aliases": ["CVE-2020-14343", "PYSEC-2021-142"]}
OTHER = {
    "id": "PYSEC-2026-1",
    "modified": "2026-05-02T00:00:00Z",
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "ours"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "2"}, {"last_affected": "2.4"}]}],
        }
    ],
}
WITHDRAWN = {**PYYAML, "id": "PYSEC-2020-9", "aliases": [], "withdrawn": "2021-01-01T00:00:00Z"}
FOREIGN = {
    "id": "RUSTSEC-1",
    "modified": "2030-01-01T00:00:00Z",
    "affected": [{"package": {"ecosystem": "crates.io", "name": "pyyaml"}, "versions": ["6.0"]}],
}


@pytest.fixture
def advisories(tmp_path):
    """Writes OSV entries into a directory."""

    def write(*entries, name="advisories") -> Path:
        folder = tmp_path / name / "vulns"
        folder.mkdir(parents=True)
        for entry in entries:
            (folder / f"{entry['id']}.json").write_text(json.dumps(entry))
        return folder.parent

    return write


@pytest.fixture
def listed(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "requirements.txt"
        path.write_text(text)
        return path

    return write


def audit(perform, requirements, database, **more):
    return perform("testing.dependencies", requirements=requirements, advisories=database, **more).predicate


def test_a_vulnerable_version_is_found_once_under_its_names(perform, advisories, listed):
    said = audit(perform, listed("PyYAML==5.3\nours==3.0\n"), advisories(PYYAML, SAME, OTHER, WITHDRAWN, FOREIGN))
    (found,) = said["scanner"]["result"]
    assert found["id"] == "PYSEC-2021-142" and said["vulnerabilities"] == 1
    assert found["severity"] == [{"method": "CVSS_V3", "score": PYYAML["severity"][0]["score"]}]
    assert found["annotations"] == [
        {"package": "pyyaml", "version": "5.3", "aliases": "CVE-2020-14343 GHSA-8q59-q68h-6hv4", "fixed": "5.4"}
    ]
    assert (said["dependencies"], said["audited"], said["complete"], said["strength"]) == (2, 2, True, "measured")
    assert said["scanner"]["db"]["lastUpdate"] == "2026-05-02T00:00:00Z", "the newest entry about PyPI"


def test_mended_versions_are_silent(perform, advisories, listed):
    said = audit(perform, listed("pyyaml==6.0.2\nours==1.9 ; python_version > '3'\n"), advisories(PYYAML, OTHER))
    assert (said["vulnerabilities"], said["scanner"]["result"], said["complete"]) == (0, [], True)


def test_what_cannot_be_compared_is_not_audited(perform, advisories, listed):
    git_only = {
        "id": "PYSEC-2026-2",
        "modified": "2026-05-02T00:00:00Z",
        "affected": [
            {
                "package": {"ecosystem": "PyPI", "name": "gitonly"},
                "ranges": [{"type": "GIT", "repo": "https://x", "events": [{"introduced": "0"}]}],
            }
        ],
    }
    odd = {**OTHER, "id": "PYSEC-2026-3"}
    odd["affected"] = [
        {
            "package": {"ecosystem": "PyPI", "name": "odd"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "one"}]}],
        }
    ]
    text = (
        "# a comment\n--index-url https://example.org/simple\npyyaml>=5\nnumpy==2.*\nfresh @ https://example.org/f.whl\n"
        "-r more.txt\n-e .\ngitonly==1.0\nodd==1.0\nours==3.0 \\\n    --hash=sha256:00\nsilly===not-a-version\n"
    )
    said = audit(perform, listed(text), advisories(PYYAML, git_only, odd, OTHER))
    reasons = {one["name"]: one["reason"] for one in said["notAudited"]}
    assert set(reasons) == {"pyyaml", "numpy", "fresh", "more.txt", ".", "gitonly", "odd", "silly"}
    assert "no exact version" in reasons["pyyaml"] and "names no versions" in reasons["gitonly"]
    assert "cannot be compared" in reasons["odd"] and "address" in reasons["fresh"]
    assert (said["audited"], said["dependencies"], said["complete"]) == (1, 9, False)


@pytest.mark.parametrize(
    ("events", "affected", "safe"),
    [
        ([{"introduced": "0"}, {"fixed": "1.0"}], ["0.1", "0.9", "1.0rc1"], ["1.0", "1.0.post1", "2"]),
        ([{"introduced": "1.0"}, {"last_affected": "1.5"}], ["1.0", "1.5"], ["0.9", "1.5.1", "1.5.post1"]),
        ([{"fixed": "1.2"}, {"introduced": "2.0"}, {"introduced": "1.0"}, {"fixed": "2.3"}],
         ["1.1", "2.0", "2.2"], ["0.9", "1.2", "1.9", "2.3"]),
        ([{"introduced": "1.0"}], ["1.0", "99"], ["0.9"]),
        ([{"introduced": "0"}, {"limit": "2"}], ["1"], ["2", "3"]),
        ([{"introduced": "0"}, {"fixed": "1"}, {"introduced": "1"}], ["0.5", "1", "2"], []),
    ],
)  # fmt: skip
def test_the_events_of_a_range(events, affected, safe):
    assert [v for v in affected if not osv._in_range(events, Version(v))] == []
    assert [v for v in safe if osv._in_range(events, Version(v))] == []


def test_a_listed_version_is_affected_whatever_the_ranges_say(advisories):
    entry = {**OTHER, "affected": [{**OTHER["affected"][0], "versions": ["9.9", "2004d-odd"]}]}
    database = osv.load(advisories(entry))
    assert [a.id for a in database.affecting("ours", Version("9.9.0"))] == [OTHER["id"]]
    assert database.affecting("ours", Version("9.8")) == []


def test_zip_and_yaml_say_the_same_as_a_directory(perform, advisories, listed, tmp_path):
    folder = advisories(PYYAML, OTHER)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("PyPI/a.json", json.dumps(PYYAML))
        archive.writestr("PyPI/b.yaml", yaml.safe_dump(OTHER))
        archive.writestr("README.md", "advisories")
    wanted = listed("pyyaml==5.3.1\n")
    one, two = audit(perform, wanted, folder), audit(perform, wanted, tmp_path / "all.zip")
    assert one["scanner"]["result"] == two["scanner"]["result"] != []
    assert one["scanner"]["db"]["lastUpdate"] == two["scanner"]["db"]["lastUpdate"]


def _no_entries(folder):
    (folder / "vulns" / f"{PYYAML['id']}.json").unlink()


def _truncated(folder):
    path = folder / "vulns" / f"{PYYAML['id']}.json"
    path.write_text(path.read_text()[:200])


def _no_time(folder):
    (folder / "vulns" / "x.json").write_text(json.dumps({**OTHER, "modified": "lately"}))


@pytest.mark.parametrize("spoil", [_no_entries, _truncated, _no_time])
def test_damaged_or_empty_advisories_find_nothing_so_they_stop(perform, advisories, listed, spoil):
    folder = advisories(PYYAML)
    spoil(folder)
    (folder / "vulns" / "foreign.json").write_text(json.dumps(FOREIGN))
    with pytest.raises(Unreadable):
        audit(perform, listed("pyyaml==5.3\n"), folder)


@pytest.mark.parametrize(
    "content", [b"", b"\n# nothing\n", b"\x89PNG\r\n\x1a\n\x00\x00", b'{"name": "x"}', b"<html>\n"]
)
def test_a_file_that_is_no_requirements_file_stops(perform, advisories, tmp_path, content):
    path = tmp_path / "requirements.txt"
    path.write_bytes(content)
    with pytest.raises(Unreadable):
        audit(perform, path, advisories(PYYAML))


def test_a_zip_that_is_none_and_two_subjects_stop(perform, advisories, listed, tmp_path):
    (tmp_path / "all.zip").write_bytes(b"PK\x03\x04 cut")
    wanted = listed("pyyaml==5.3\n")
    with pytest.raises(Unreadable, match="whole zip"):
        audit(perform, wanted, tmp_path / "all.zip")
    with pytest.raises(Misuse, match="one thing"):
        perform("testing.dependencies", advisories=advisories(PYYAML))
    with pytest.raises(Misuse, match="not both"):
        audit(perform, wanted, advisories(PYYAML, name="more"), service="https://api.osv.dev/v1/query")


def test_what_is_installed_is_audited_by_its_metadata(perform, advisories, tmp_path):
    site = tmp_path / "site-packages"
    for name in ("pyyaml", "packaging"):
        source = Path(importlib.metadata.distribution(name)._path)
        (site / source.name).mkdir(parents=True)
        shutil.copy(source / "METADATA", site / source.name / "METADATA")
    installed = importlib.metadata.version("packaging")
    entry = {**OTHER, "affected": [{"package": {"ecosystem": "PyPI", "name": "packaging"}, "versions": [installed]}]}
    folder = advisories(PYYAML, entry)
    said = perform("testing.dependencies", environment=site, advisories=folder).predicate
    assert [v["annotations"][0]["package"] for v in said["scanner"]["result"]] == ["packaging"]
    assert (said["audited"], said["complete"]) == (2, True)
    (site / "bare-1.0.dist-info").mkdir()
    (site / "bare-1.0.dist-info" / "RECORD").write_text("x")
    said = perform("testing.dependencies", environment=site, advisories=folder).predicate
    assert said["notAudited"] == [{"name": "bare-1.0.dist-info", "reason": "it has no METADATA"}]
    with pytest.raises(Misuse, match="nothing is installed"):
        perform("testing.dependencies", environment=folder, advisories=folder)


def test_a_model_is_audited_by_what_it_wants(perform, advisories, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "MLmodel").write_text("flavors: {}\n")
    with pytest.raises(Misuse, match="names no dependencies"):
        perform("testing.dependencies", model=model, advisories=advisories(PYYAML))
    (model / "requirements.txt").write_text("pyyaml==5.3\n")
    made = perform("testing.dependencies", model=model, advisories=advisories(PYYAML, name="more"))
    assert made.predicate["vulnerabilities"] == 1 and made.subjects == measure(model).subjects


# --- services ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def service():
    """A server that speaks OSV's query protocol over `answers`: package → entries, or bytes sent as they are."""
    answers: dict = {"pyyaml": [PYYAML]}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = answers.get(asked["package"]["name"], answers.get("*", []))
            if isinstance(found, int):
                self.send_error(found)
                return
            if isinstance(found, list):
                fitting = [e for e in found if asked["version"] in e["affected"][0].get("versions", [asked["version"]])]
                found = json.dumps({"vulns": fitting} if fitting else {}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(found)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield answers, f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()
    thread.join()


def ask(perform, requirements, url):
    return perform("testing.dependencies", requirements=requirements, service=url).predicate


def test_pip_audit_asks_a_service(perform, listed, service):
    answers, url = service
    answers["ours"] = [OTHER]
    said = ask(perform, listed("ours==2.1\npackaging==25.0\n"), url)
    assert [v["id"] for v in said["scanner"]["result"]] == ["PYSEC-2026-1"]
    assert (said["audited"], said["complete"]) == (2, True)
    assert said["scanner"]["uri"] == "pkg:pypi/pip-audit" and said["harness"]["libraries"]["pip-audit"]
    assert not registry.load("testing.dependencies").stage.reusable(said), "a service may know more tomorrow"
    said = ask(perform, listed("packaging==25.0\n"), url)
    assert (said["vulnerabilities"], said["complete"]) == (0, True)


@pytest.mark.parametrize("answer", [503, b"", b"<html>please log in</html>", b'{"vulns": [{}]}'])
def test_a_service_that_does_not_answer_for_one_has_not_audited_it(perform, listed, service, answer):
    answers, url = service
    answers["ours"] = answer
    said = ask(perform, listed("ours==2.1\npackaging==25.0\n"), url)
    assert [one["name"] for one in said["notAudited"]] == ["ours"]
    assert (said["audited"], said["complete"]) == (1, False)


def test_part_of_an_answer_that_pip_audit_drops_is_no_answer(perform, listed, service):
    answers, url = service
    answers["ours"] = json.dumps({"vulns": [{**OTHER, "schema_version": "2.0.0"}]}).encode()
    said = ask(perform, listed("ours==2.1\n"), url)
    assert "could not be used" in said["notAudited"][0]["reason"] and not said["complete"]


def test_a_service_that_knows_nothing_clears_nothing(perform, listed, service):
    answers, url = service
    answers["pyyaml"] = []
    said = ask(perform, listed("packaging==25.0\n"), url)
    assert (said["audited"], said["complete"], said["scanner"]["result"]) == (0, False, [])
    assert "cannot be relied on" in said["notAudited"][0]["reason"]


def test_a_service_that_is_not_there_clears_nothing(perform, listed):
    said = ask(perform, listed("packaging==25.0\n"), "http://127.0.0.1:9/v1/query")
    assert (said["audited"], said["complete"]) == (0, False)
    assert "did not answer" in said["notAudited"][0]["reason"]
    with pytest.raises(Misuse, match="no web address"):
        ask(perform, listed("packaging==25.0\n"), "ftp://example.org")
