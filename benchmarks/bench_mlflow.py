"""An alias write through the gate beside the same write on an ungated server, and what a denial costs.

Bars (DESIGN, section 11), over at least 200 interleaved pairs: median difference at most one VSA signature + 8 ms for
each bundle weighed + hashing; a denial at most 10 ms. The difference is over HTTP, between two servers of one worker
each on SQLite. The parts of the budget are measured in the same run, and the denial's cost is the difference between a
refused alias and the same request stopped by MLflow itself (an alias on a version that does not exist). Floor: the
ungated write.

The reconciler: one pass over 100 promoted models, 50 bundles each, under 60 s (`--models`, `--bundles` for less). Its
floor is the time to fetch the same files over HTTP.

What verifying costs a loader: `attested:` beside `models:`, interleaved in one process, for a small model, a large one
and one small file of the large one, each at first and again (`--only-load`).
"""

import argparse
import json
import os
import statistics
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from benchmarks.service import authority

PAIRS = 200
LARGE = 256 << 20
"""Bytes of the larger model that is loaded."""
WEIGHED = 3
"""Bundles under a verdict: two results and the revocation snapshot."""
FILES = {"MLmodel": 800, "model.pkl": 200_000, "conda.yaml": 300, "requirements.txt": 200, "code/loader.py": 2_000}

POLICY = """\
policy: bench/1
applies: [{{tool: mlflow, action: alias, alias: champion, model: "*", workspace: "*"}}]
assurance: {{identity: local, log: pinned, time: local}}
revokers: [{{issuer: "{issuer}", san: "{san}/monitor"}}]
require:
  - {{predicate: test-result, by: [{{issuer: "{issuer}", san: "{san}/evaluator"}}]}}
ungoverned: [{{tool: mlflow, action: create, owner: benchmark, until: "2100-01-01T00:00:00Z"}}]
"""


def request(method: str, url: str, body: object = None, data: bytes | None = None) -> tuple[int, dict]:
    payload = data if data is not None else None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, payload, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


@contextmanager
def server(base: Path, registry: str | None, env: dict[str, str]) -> Iterator[str]:
    """REST address of a server with one worker; gated unless `registry` names a store without the gate."""
    from mlseal_mlflow import serving

    base.mkdir()
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with serving.running(
        base, registry=registry, workers=1, env={**os.environ, **env, **quiet}, log=base / "log"
    ) as started:
        yield f"{started.url}/api/2.0"


def model(url: str, files: dict[str, bytes], name: str = "m") -> None:
    """One registered model with one version that holds `files`."""
    info = request("POST", f"{url}/mlflow/logged-models", {"experiment_id": "0", "name": "m"})[1]["model"]["info"]
    for file, data in files.items():
        request(
            "PUT",
            f"{url}/mlflow-artifacts/artifacts/{info['artifact_uri'].removeprefix('mlflow-artifacts:/')}/{file}",
            data=data,
        )
    request("POST", f"{url}/mlflow/registered-models/create", {"name": name})
    body = {"name": name, "source": f"models:/{info['model_id']}", "model_id": info["model_id"]}
    status, answer = request("POST", f"{url}/mlflow/model-versions/create", body)
    assert status == 200, answer


def alias(url: str, status: int, version: str = "1", name: str = "champion", model: str = "m") -> float:
    """Milliseconds of one alias write, or of its refusal."""
    start = time.perf_counter()
    got, answer = request(
        "POST", f"{url}/mlflow/registered-models/alias", {"name": model, "alias": name, "version": version}
    )
    taken = (time.perf_counter() - start) * 1e3
    assert got == status, answer
    return taken


def evidence(trust, store, files: dict[str, bytes], scratch: Path) -> tuple[float, float]:
    """Prove the model; returns the milliseconds of one signature and of hashing the files."""
    from mlseal.evidence import revoking, statement
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.digest import measure
    from mlseal.evidence.signing import Signer
    from mlseal.evidence.signing.tokens import source_for

    for name, data in files.items():
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        (scratch / name).write_bytes(data)
    hashing = []
    for _ in range(20):
        start = time.perf_counter()
        measured = measure(scratch)
        hashing.append((time.perf_counter() - start) * 1e3)
    signer = Signer(trust, source_for("evaluator", trust), store=store)

    def result(url: str):
        return statement.make(
            measured.subjects,
            "https://in-toto.io/attestation/test-result/v0.1",
            {"result": "PASSED", "configuration": [], "url": url},
        )

    signer.sign(result("urn:first")), signer.sign(result("urn:second"))
    revoking.snapshot(
        Archive.open(trust, store),
        Signer(trust, source_for("monitor", trust), store=store),
        valid_for=timedelta(hours=24),
    )
    return signature(trust, statement.make), statistics.median(hashing)


def signature(trust, make) -> float:
    """Milliseconds of one signature with self-verification and fsync; into a store that is thrown away."""
    from mlseal.evidence.digest import Subject
    from mlseal.evidence.signing import Signer
    from mlseal.evidence.signing.tokens import source_for
    from mlseal.evidence.store import resolve

    signer = Signer(trust, source_for("gate", trust), store=resolve())
    taken = []
    for number in range(40):
        said = make(
            [Subject("x", f"{number:064x}")],
            "https://in-toto.io/attestation/test-result/v0.1",
            {"result": "PASSED", "configuration": []},
        )
        start = time.perf_counter()
        signer.sign(said)
        taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(taken[5:])


def reconciled(url: str, trust, store, base: Path, models: int, bundles: int) -> None:
    """Promote `models` models with `bundles` results each, and time one look of the reconciler at all of them."""
    from concurrent.futures import ThreadPoolExecutor

    import mlflow
    from mlseal_mlflow import loading, private, reconcile

    from mlseal.evidence import statement
    from mlseal.evidence.digest import measure
    from mlseal.evidence.signing import Signer
    from mlseal.evidence.signing.tokens import source_for

    signer = Signer(trust, source_for("evaluator", trust), store=store)
    began = time.perf_counter()
    for number in range(models):
        name, place = f"risk-r{number}", base / f"r{number}"
        files = {file: os.urandom(size) for file, size in FILES.items()}
        for file, data in files.items():
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            (place / file).write_bytes(data)
        subjects = measure(place).subjects
        said = [
            statement.make(
                subjects,
                "https://in-toto.io/attestation/test-result/v0.1",
                {"result": "PASSED", "configuration": [], "url": f"urn:{number}:{run}"},
            )
            for run in range(bundles - 1)  # the verdict is the last
        ]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(signer.sign, said))
        model(url, files, name=name)
        alias(url, 200, model=name)
    print(f"   (set up in {time.perf_counter() - began:.0f} s: {models} models, {bundles} bundles each)", flush=True)
    server_url = url.removesuffix("/api/2.0")
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    client = reconcile.registry(server_url)
    mlflow.set_tracking_uri(server_url)
    began = time.perf_counter()
    for number in range(models):
        with private.passing() as directory:
            loading.fetch(f"models:/risk-r{number}/1", directory, server_url, server_url)
    floor = time.perf_counter() - began
    began = time.perf_counter()
    seen = reconcile.check(client, tracking_uri=server_url)
    findings = [finding for finding in seen if finding.model.startswith("risk-r")]
    taken = time.perf_counter() - began
    assert len(findings) == models, len(findings)
    assert all(finding.error is None for finding in findings), [str(f.error) for f in findings if f.error][:2]
    print(f"reconcile: {models} models x {bundles} bundles in {taken:.1f} s (bar 60 for 100 x 50);")
    print(f"   {taken / models * 1e3:.0f} ms each; fetching the files alone {floor:.1f} s;", end=" ")
    print(f"load of the machine {os.getloadavg()[0]:.1f}")


def loaded(url: str, trust, store, base: Path) -> None:
    """Fetch a small and a large model, and one file of the large one, verified and not."""
    import mlflow

    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    server_url = url.removesuffix("/api/2.0")
    mlflow.set_tracking_uri(server_url)
    mlflow.set_registry_uri(server_url)
    for name, size in {"small": FILES["model.pkl"], "large": LARGE}.items():
        files = {file: os.urandom(size if file == "model.pkl" else much) for file, much in FILES.items()}
        model(url, files, name=name)
        evidence(trust, store, files, base / name)
        alias(url, 200, model=name)
    for what, part, pairs in (("small", "", 20), ("large", "", 4), ("large", "/requirements.txt", 4)):
        taken: dict[str, list[float]] = {"models": [], "attested": []}
        for _ in range(pairs):
            for scheme, times in taken.items():
                with tempfile.TemporaryDirectory(dir=base) as place:
                    start = time.perf_counter()
                    mlflow.artifacts.download_artifacts(f"{scheme}:/{what}@champion{part}", dst_path=place)
                    times.append(time.perf_counter() - start)
        plain, verified = (statistics.median(times[1:]) for times in taken.values())
        first, at_first = taken["attested"][0], taken["attested"][0] / taken["models"][0]
        print(f"load of {what}{part}: {verified / plain:.1f} times as long, {verified:.3f} s against {plain:.3f} s;")
        print(f"   at first {at_first:.1f} times, {first:.3f} s; machine's load {os.getloadavg()[0]:.1f}")


def main() -> None:
    from mlseal.evidence.store import Store

    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--bundles", type=int, default=50)
    parser.add_argument("--only-reconcile", action="store_true")
    parser.add_argument("--only-load", action="store_true")
    asked = parser.parse_args()
    with authority() as trust, tempfile.TemporaryDirectory(prefix="mlsb-") as scratch:
        base = Path(scratch)
        (base / "evidence").mkdir()
        os.environ["MLSEAL_STORE"] = str(base / "evidence")
        name = trust.logs[0].origin.split(".", 1)[1]
        (base / "policy.yaml").write_text(POLICY.format(issuer=f"https://{name}/issuer", san=f"https://{name}/roles"))
        env = {
            "MLSEAL_TRUST": trust.source,
            "MLSEAL_POLICY": str(base / "policy.yaml"),
            "MLSEAL_STORE": str(base / "evidence"),
        }
        files = {name: os.urandom(size) for name, size in FILES.items()}
        ungated = f"sqlite:///{base}/bare/registry.db"
        with server(base / "bare", ungated, {}) as bare, server(base / "gated", None, env) as gated:
            if asked.only_load:
                loaded(gated, trust, Store(base / "evidence"), base)
                return
            model(bare, files), model(gated, files)
            if asked.only_reconcile:
                evidence(trust, Store(base / "evidence"), files, base / "model")
                reconciled(gated, trust, Store(base / "evidence"), base, asked.models, asked.bundles)
                return
            refused, stopped = [], []
            for _ in range(PAIRS):
                refused.append(alias(gated, 403))
                stopped.append(alias(gated, 404, version="99"))
            unmatched = [alias(gated, 403, name="nobody-governs-this") for _ in range(PAIRS)]
            sign, hashing = evidence(trust, Store(base / "evidence"), files, base / "model")
            for _ in range(5):
                alias(gated, 200), alias(bare, 200)
            with_gate, without = [], []
            for _ in range(PAIRS):
                with_gate.append(alias(gated, 200))
                without.append(alias(bare, 200))
            loaded(gated, trust, Store(base / "evidence"), base)
            reconciled(gated, trust, Store(base / "evidence"), base, asked.models, asked.bundles)
    g, b, r, s, u = map(statistics.median, (with_gate, without, refused, stopped, unmatched))
    difference = statistics.median(x - y for x, y in zip(with_gate, without, strict=True))
    bar = sign + 8 * WEIGHED + hashing
    print(
        f"alias write: gated {g:.1f} ms, ungated {b:.1f} ms; median difference over {PAIRS} pairs {difference:.1f} ms"
    )
    print(f"   (bar {bar:.1f}: one signature {sign:.1f} + 8 x {WEIGHED} bundles + hashing {hashing:.1f})")
    denial = statistics.median(x - y for x, y in zip(refused, stopped, strict=True))
    print(f"denial: {denial:.1f} ms over a request that MLflow stops itself (bar 10); {r:.1f} ms against {s:.1f} ms,")
    print(f"   by no policy at all {u:.1f} ms; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
