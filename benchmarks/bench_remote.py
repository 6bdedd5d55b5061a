"""A gate over 50 bundles in a directory and in a bucket of a real S3 service (moto, on loopback), in one run.

For each store: a new verifier, who has neither index nor cache (cold), one who lost the index only (warm cache), and
one who has both. No bar: what a request costs is the service's affair; here it is Python on the same two cores.
"""

import os
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from benchmarks.bench_statement import BUNDLES, POLICY
from benchmarks.service import authority

ROUNDS = 5
NAME = "remote.mlseal.local"


def main() -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    from mlseal.evidence import statement, store
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.digest import Subject
    from mlseal.evidence.revoking import snapshot
    from mlseal.evidence.signing import signer_for
    from mlseal.policy import load

    service = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    service.start()
    with authority(NAME) as trust, tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        endpoint = "http://{}:{}".format(*service.get_host_and_port())
        os.environ.update(AWS_ENDPOINT_URL=endpoint, AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="y")
        os.environ.update(AWS_DEFAULT_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true")
        client = boto3.client("s3")
        client.create_bucket(Bucket="evidence")
        kept, subject = store.Store(base / "store"), Subject("model", "cd" * 32)
        signer = signer_for("producer", trust=trust, store=kept)
        for number in range(BUNDLES):
            said = {"result": "PASSED", "configuration": [], "url": f"urn:{number}"}
            signer.sign(statement.make([subject], "https://in-toto.io/attestation/test-result/v0.1", said))
        monitor = signer_for("monitor", trust=trust, store=kept)
        snapshot(Archive.open(trust, kept), monitor, valid_for=timedelta(hours=1))
        for evidence_id in kept.ids():  # what 'aws s3 sync' does
            client.put_object(
                Bucket="evidence", Key=f"ml/{store.relative(evidence_id)}", Body=kept.get(evidence_id).raw
            )
        (base / "policy.yaml").write_text(POLICY.replace("NAME", NAME))
        policies = load.load_all([base / "policy.yaml"])
        places = {"directory": str(kept), "bucket": "s3://evidence/ml"}
        took = {(place, how): [] for place in places for how in ("cold", "warm cache", "index too")}
        for number in range(ROUNDS):
            for (place, how), times in took.items():
                if how == "cold":
                    os.environ["MLSEAL_CACHE_DIR"] = str(base / f"cache-{place}-{number}")
                if how != "index too":
                    os.environ["MLSEAL_STATE_DIR"] = str(base / f"state-{place}-{how[:4]}-{number}")
                times.append(judged(trust, places[place], subject, policies))
    service.stop()
    medians = {key: statistics.median(times) for key, times in took.items()}
    for how in ("cold", "warm cache", "index too"):
        near, far = medians["directory", how], medians["bucket", how]
        told = f"directory {near:.0f} ms, bucket {far:.0f} ms, ratio {far / near:.2f}"
        print(f"gate over {BUNDLES} bundles, {how}: {told}")


def judged(trust, place, subject, policies) -> float:
    """Milliseconds of one judgement, the archive opened for it."""
    from mlseal.evidence.archive import Archive
    from mlseal.policy import gate

    start = time.perf_counter()
    verdict = gate.judge([subject], None, policies, Archive.open(trust, place))
    spent = (time.perf_counter() - start) * 1e3
    if verdict.kind != "allowed" or len(verdict.inputs) < BUNDLES:
        raise SystemExit(f"{verdict.kind} by {len(verdict.inputs)} pieces of evidence: {verdict.reasons}")
    return spent


if __name__ == "__main__":
    main()
