"""One statement signed by the embedded service, and one bundle verified, beside the disk and the stock verifier.

Bars (DESIGN, section 11): signing with fsync, self-verification apart, at most 30 ms (a prototype took 106 ms); strict
verification at most 1.3 times stock ``verify_dsse``; 50 bundles under a second. Floors: an ECDSA P-256 signature, and
the disk's own fsync. Rounds are interleaved.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.service import authority

ROUNDS = 100
BUNDLES = 50
POLICY = """\
policy: bench/1
applies: [{tool: bench, action: gate}]
assurance: {identity: local, log: pinned, time: local}
revocationMaxAge: 24h
revokers: [{issuer: "https://NAME/issuer", san: "https://NAME/roles/monitor"}]
gate: [{issuer: "https://NAME/issuer", san: "https://NAME/roles/gate"}]
require:
  - predicate: test-result
    by: [{issuer: "https://NAME/issuer", san: "https://NAME/roles/producer"}]
    maxAge: 1d
    when: [{id: passed, message: "the test failed", check: 'p.result == "PASSED"'}]
"""


def milliseconds(work) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def fsync(file: Path) -> None:
    with file.open("ab") as out:
        out.write(b"x" * 2000)
        out.flush()
        os.fsync(out.fileno())


def main() -> None:
    from sigstore.models import Bundle as StockBundle
    from sigstore.verify import policy

    from mlseal.evidence import statement
    from mlseal.evidence.bundle import Bundle
    from mlseal.evidence.digest import Subject
    from mlseal.evidence.identity import Identity
    from mlseal.evidence.revocation import NOTHING_REVOCABLE
    from mlseal.evidence.signing import Signer
    from mlseal.evidence.signing.tokens import source_for
    from mlseal.evidence.tiles import service_tiles
    from mlseal.evidence.verifying import Verifier

    subject = Subject("model", "ab" * 32)

    def claim():
        return statement.make(
            [subject],
            "https://in-toto.io/attestation/test-result/v0.1",
            {"result": "PASSED", "configuration": [], "url": f"urn:{time.time_ns()}"},
        )

    with authority() as trust, tempfile.TemporaryDirectory() as scratch:
        quick = Signer(trust, source_for("producer", trust), verify=False)
        whole = Signer(trust, source_for("producer", trust))
        quick.sign(claim()), whole.sign(claim())
        alone, verified, disk = [], [], []
        for _ in range(ROUNDS):
            alone.append(milliseconds(lambda: quick.sign(claim())))
            verified.append(milliseconds(lambda: whole.sign(claim())))
            disk.append(milliseconds(lambda: fsync(Path(scratch) / "f")))
        a, v, d = map(statistics.median, (alone, verified, disk))
        print(
            f"sign one statement: {a:.1f} ms (bar 30), with self-verification {v:.1f} ms; floor: one fsync {d:.2f} ms"
        )

        name = trust.logs[0].origin.split(".", 1)[1]
        who = Identity(f"https://{name}/issuer", f"https://{name}/roles/producer")
        bundles = [whole.sign(claim()) for _ in range(50)]
        ours = Verifier(trust, tiles=dict(service_tiles(trust)))
        stock = ours._stock

        def strict(bundle):
            ours.verify(
                Bundle(bundle.raw),
                predicate_type="test-result",
                identities=[who],
                subjects=[subject.sha256],
                revocations=NOTHING_REVOCABLE,
            )

        def plain(bundle):
            stock.verify_dsse(StockBundle.from_json(bundle.raw), policy.Identity(identity=who.san, issuer=who.issuer))

        strict(bundles[-1])
        mine, theirs = [], []
        for _ in range(3):
            ours = Verifier(trust, tiles=dict(service_tiles(trust)))  # remembers bundles by digest: start anew
            for bundle in bundles:
                mine.append(milliseconds(lambda b=bundle: strict(b)))
                theirs.append(milliseconds(lambda b=bundle: plain(b)))
        m, t = statistics.median(mine), statistics.median(theirs)
        print(f"verify one bundle: {m:.2f} ms, stock {t:.2f} ms, ratio {m / t:.2f} (bar 1.3)")
    judged()


def judged() -> None:
    """A gate over 50 pieces of evidence about one subject: archive opened, nothing remembered."""
    from datetime import timedelta

    from mlseal.evidence import statement
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.digest import Subject
    from mlseal.evidence.revoking import snapshot
    from mlseal.evidence.signing import signer_for
    from mlseal.evidence.store import Store
    from mlseal.policy import gate, load

    name, subject = "gate.mlseal.local", Subject("model", "cd" * 32)
    with authority(name) as trust, tempfile.TemporaryDirectory() as scratch:
        file, store = Path(scratch) / "policy.yaml", Store(Path(scratch) / "store")
        file.write_text(POLICY.replace("NAME", name))
        signer = signer_for("producer", trust=trust, store=store)
        for number in range(BUNDLES):
            said = {"result": "PASSED", "configuration": [], "url": f"urn:{number}"}
            store.put(signer.sign(statement.make([subject], "https://in-toto.io/attestation/test-result/v0.1", said)))
        monitor = signer_for("monitor", trust=trust, store=store)
        snapshot(Archive.open(trust, store), monitor, valid_for=timedelta(hours=1))
        policies, took, busy = load.load_all([file]), [], []
        for _ in range(5):
            start, processor = time.perf_counter(), time.process_time()
            verdict = gate.judge([subject], None, policies, Archive.open(trust, store))
            took.append((time.perf_counter() - start) * 1e3)
            busy.append((time.process_time() - processor) * 1e3)
            weighed = len(verdict.inputs)
            if verdict.kind != "allowed" or weighed < BUNDLES:
                raise SystemExit(f"{verdict.kind} by {weighed} pieces of evidence: {verdict.reasons}")
        wall, own = map(statistics.median, (took, busy))
        print(f"gate over {BUNDLES} bundles: {wall:.0f} ms (bar 1000), {own:.0f} ms of processor time")


if __name__ == "__main__":
    main()
