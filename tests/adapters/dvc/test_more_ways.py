"""Other remotes, imports between protected repositories, revocations, and how outputs came to be."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from adapters.dvc.people import Scene, fresh, policy_text, replace, statement_in

PIPELINE = "stages:\n  copy:\n    cmd: cp data.csv out.csv\n    deps: [data.csv]\n    outs: [out.csv]\n"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An HTTP remote that stores what is posted and, like most, lists nothing."""
    root = tmp_path / "web"
    root.mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(True)

        def do_HEAD(self) -> None:
            self._answer(False)

        def _answer(self, body: bool) -> None:
            path = root / self.path.lstrip("/")
            data = path.read_bytes() if path.is_file() else b""
            self.send_response(200 if path.is_file() else 404)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def do_POST(self) -> None:
            path = root / self.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            if self.headers.get("Transfer-Encoding") == "chunked":
                data = b""
                while size := int(self.rfile.readline(), 16):
                    data += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                data = self.rfile.read(int(self.headers["Content-Length"]))
            path.write_bytes(data)
            self.send_response(201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/store", root / "store"
    server.shutdown()
    server.server_close()


def test_http_remote(scene: Scene, web: tuple[str, Path]) -> None:
    url, root = web
    config = scene.repo / ".dvc" / "config"
    config.write_text(f"[core]\n    remote = web\n['remote \"web\"']\n    url = {url}\n")
    scene.add("imgs", {"a": fresh(), "b": fresh()})
    scene.owner.dvc("push")
    assert "signed 0 outputs, 1 already signed" in scene.owner.dvc("push").stderr
    reader = scene.newcomer()
    reader.dvc("pull")
    (victim,) = [
        p for p in (root / "files").rglob("*") if p.is_file() and p.read_bytes() == (scene.repo / "imgs/a").read_bytes()
    ]
    victim.write_bytes(b"poison")
    second = scene.newcomer("second")
    assert "not the signed ones" in second.dvc("pull", ok=False).stderr
    assert not (second.cwd / "imgs").exists()


def test_committed_names_on_a_remote_that_lists_nothing(scene: Scene, web: tuple[str, Path]) -> None:
    url, root = web
    config = scene.repo / ".dvc" / "config"
    config.write_text(f"[core]\n    remote = web\n['remote \"web\"']\n    url = {url}\n")
    scene.owner.mlseal("dvc", "install", "--no-autoload", "--no-hook", "--names", "committed")
    data = scene.add("0231_smith.csv")
    scene.owner.dvc("push")
    (bundle,) = (root / "attestations").rglob("*.sigstore.json")
    assert "smith" not in json.dumps(statement_in(bundle))
    reader = scene.newcomer()
    reader.dvc("pull")
    assert (reader.cwd / data.name).read_bytes() == data.read_bytes()
    scene.owner.mlseal("dvc", "forget-names")
    second = scene.newcomer("second")
    assert "committed with a salt that is not here" in second.dvc("pull", ok=False).stderr
    assert not (second.cwd / data.name).exists()


def test_import_between_protected_repositories(scene: Scene, tmp_path: Path) -> None:
    data = scene.add("data.csv")
    scene.owner.dvc("push")
    reader = scene.newcomer(clone=False)
    reader.cwd = tmp_path / "consumer"
    reader.cwd.mkdir()
    reader.git("init", "-q")
    reader.dvc("init", "-q")
    reader.mlseal("dvc", "install", "--no-autoload", "--no-hook")
    reader.dvc("import", "-q", str(scene.repo), "data.csv", "-o", "theirs.csv")
    assert (reader.cwd / "theirs.csv").read_bytes() == data.read_bytes()
    (reader.cwd / "theirs.csv").unlink()
    reader.dvc("checkout")  # verified against the evidence of the source, kept at the import
    assert (reader.cwd / "theirs.csv").read_bytes() == data.read_bytes()
    shutil.rmtree(reader.cwd / ".dvc" / "cache")
    (reader.cwd / "theirs.csv").unlink()
    replace(scene.object_of("data.csv.dvc"), b"poison")
    shutil.rmtree(scene.repo / ".dvc" / "cache")
    data.unlink()
    reader.dvc("pull", ok=False)
    assert not (reader.cwd / "theirs.csv").exists()


def test_withdrawn_data_are_refused(scene: Scene, authority, tmp_path: Path) -> None:
    revokers = f'revokers: [{{issuer: "{authority.issuer}", san: "{authority.san("monitor")}"}}]\n'
    scene.owner.env["MLSEAL_STORE"] = str(authority.store.root)  # one monitor, one store: a snapshot lists all it said
    scene.owner.mlseal("revoke", "--snapshot")
    scene.policy.write_text(policy_text(authority.issuer, authority.san("producer"), revokers))
    scene.add("data.csv")
    scene.owner.dvc("push")
    reader = scene.newcomer()
    reader.dvc("pull")
    (bundle,) = scene.bundles()
    evidence = json.loads(scene.owner.mlseal("dvc", "evidence", "data.csv", "--json").stdout)["evidenceId"]
    scene.owner.mlseal("revoke", evidence, "--reason", "withdrawn")
    done = scene.owner.dvc("push", ok=False)  # stops, after leaving the revocation beside the data
    assert "withdrawn" in done.stderr
    late = scene.newcomer("late")
    assert "withdrawn" in late.dvc("pull", ok=False).stderr
    assert not (late.cwd / "data.csv").exists()
    (reader.cwd / "data.csv").unlink()
    shutil.rmtree(reader.cwd / ".dvc" / "cache")
    assert "withdrawn" in reader.dvc("pull", ok=False).stderr  # who saw the log before it held the withdrawal
    assert not (reader.cwd / "data.csv").exists()


def test_an_older_copy_of_the_log_does_not_hide_a_withdrawal(scene: Scene, authority, tmp_path: Path) -> None:
    """Who writes to the remote can put the log's copy back; a revoker's word that it cannot reach must then stop."""
    revokers = f'revokers: [{{issuer: "{authority.issuer}", san: "{authority.san("monitor")}"}}]\n'
    scene.owner.env["MLSEAL_STORE"] = str(authority.store.root)
    scene.owner.mlseal("revoke", "--snapshot")
    scene.policy.write_text(policy_text(authority.issuer, authority.san("producer"), revokers))
    scene.add("data.csv")
    scene.owner.dvc("push")
    log = scene.evidence / "log"
    older = tmp_path / "older"
    shutil.copytree(log, older)
    reader = scene.newcomer()
    reader.dvc("pull")
    evidence = json.loads(scene.owner.mlseal("dvc", "evidence", "data.csv", "--json").stdout)["evidenceId"]
    scene.owner.mlseal("revoke", evidence, "--reason", "withdrawn")
    scene.owner.dvc("push", ok=False)
    shutil.rmtree(log)
    shutil.copytree(older, log)
    (reader.cwd / "data.csv").unlink()
    shutil.rmtree(reader.cwd / ".dvc" / "cache")
    done = reader.dvc("pull", ok=False)
    assert "tile/" in done.stderr and "remedy" in done.stderr
    assert not (reader.cwd / "data.csv").exists()


def test_what_strangers_leave_among_the_revocations_stops_nobody(scene: Scene, authority, tmp_path: Path) -> None:
    revokers = f'revokers: [{{issuer: "{authority.issuer}", san: "{authority.san("monitor")}"}}]\n'
    scene.owner.env["MLSEAL_STORE"] = str(authority.store.root)
    scene.owner.mlseal("revoke", "--snapshot")
    scene.policy.write_text(policy_text(authority.issuer, authority.san("producer"), revokers))
    data = scene.add("data.csv")
    scene.owner.dvc("push")
    place = scene.evidence / "revocations"
    (bundle,) = scene.bundles()
    (place / f"{'0' * 64}.sigstore.json").write_bytes(b"{")
    (place / f"{'1' * 64}.sigstore.json").write_bytes(bundle.read_bytes())  # another type, by another identity
    (place / f"{'2' * 64}.sigstore.json").write_bytes(bundle.read_bytes().replace(b'"logIndex":"', b'"logIndex":"9'))
    reader = scene.newcomer()
    reader.dvc("pull")
    assert (reader.cwd / data.name).read_bytes() == data.read_bytes()


def test_a_policy_with_revokers_wants_a_snapshot(scene: Scene, authority) -> None:
    scene.add("data.csv")
    scene.owner.dvc("push")
    revokers = f'revokers: [{{issuer: "{authority.issuer}", san: "{authority.san("monitor")}"}}]\n'
    scene.policy.write_text(policy_text(authority.issuer, authority.san("producer"), revokers))
    reader = scene.newcomer()
    assert "no revocation snapshot" in reader.dvc("pull", ok=False).stderr
    assert not (reader.cwd / "data.csv").exists()


def test_conditions_of_the_policy(scene: Scene) -> None:
    scene.policy.write_text(
        scene.policy.read_text() + '    when: [{id: clean, message: "a clean tree", check: "!p.git.dirty"}]\n'
    )
    scene.add("data.csv")
    (scene.repo / "data.csv").write_bytes(fresh())
    scene.owner.dvc("add", "-q", "data.csv")  # the pointer is changed and not committed
    done = scene.owner.dvc("push", ok=False)
    assert "a clean tree" in done.stderr
    assert not scene.objects()
    scene.owner.commit("now clean")
    scene.owner.dvc("push")
    scene.newcomer().dvc("pull")


def test_origins(scene: Scene) -> None:
    """Only what was seen: run, restored, committed by hand; and unknown for a machine that saw nothing."""

    def origin() -> str:
        scene.owner.dvc("push")
        newest = max(scene.bundles(), key=lambda path: path.stat().st_mtime_ns)
        said = statement_in(newest)["predicate"]
        assert said["path"] == "out.csv"
        return str(said["origin"])

    scene.add("data.csv")
    scene.owner.dvc("push")
    (scene.repo / "dvc.yaml").write_text(PIPELINE)
    scene.owner.dvc("repro", "-q")
    scene.owner.commit("run")
    assert origin() == "ran"
    (scene.repo / "out.csv").unlink()
    (scene.repo / "out.csv").write_bytes(fresh())
    scene.owner.dvc("commit", "-q", "-f")
    scene.owner.commit("by hand")
    assert origin() == "committed"
    shutil.rmtree(scene.repo / ".dvc" / "tmp" / "mlseal")
    (scene.repo / "out.csv").unlink()
    (scene.repo / "out.csv").write_bytes(fresh())
    command = "from dvc.repo import Repo; r = Repo(); r.index"
    scene.owner.run(str(scene.owner.python), "-c", command)
    scene.owner.dvc("commit", "-q", "-f")
    shutil.rmtree(scene.repo / ".dvc" / "tmp" / "mlseal")
    scene.owner.commit("nobody saw it")
    assert origin() == "unknown"
