"""Signing a model directory: ours beside OpenSSF ``model_signing`` in one run, rounds interleaved.

Bars (DESIGN, section 11): 1 GB cold ≥ 1.3× faster, unchanged ≥ 50×; 20,000 small files cold ≥ 3×, 1 % changed ≥ 20×.
Floor: one pass of SHA-256 over the bytes, printed as such. "Cold" means without our hash cache; the files are in the
page cache for both.
"""

import hashlib
import os
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mlseal.evidence import statement
from mlseal.evidence.digest import measure
from mlseal.evidence.hashcache import HashCache
from mlseal.evidence.predicates import test_result

ROUNDS = 3


def timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peer(root: Path, key: Path, out: Path) -> None:
    from model_signing import hashing, signing

    config = hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
    signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(config).sign(root, out)


def ours(root: Path, key: ec.EllipticCurvePrivateKey, cache_dir: Path | None) -> None:
    """Measure, state, sign with a local key: what the peer does, minus the services that neither is measured with."""
    with HashCache(cache_dir) if cache_dir else nullcontext() as cache:
        measured = measure(root, cache=cache)
    made = statement.make(measured.subjects, test_result.URI, {"result": "PASSED", "configuration": []})
    key.sign(statement.pae(made.payload), ec.ECDSA(hashes.SHA256()))


def compare(label: str, root: Path, cache_dir: Path, change) -> None:
    cold, stock, warm = [], [], []
    key = ec.generate_private_key(ec.SECP256R1())
    pem = cache_dir.parent / "key.pem"
    pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    ours(root, key, cache_dir)
    for _ in range(ROUNDS):
        change(root)
        warm.append(timed(lambda: ours(root, key, cache_dir)))
        stock.append(timed(lambda: peer(root, pem, cache_dir.parent / "model.sig")))
        cold.append(timed(lambda: ours(root, key, None)))
    first, theirs, again = map(statistics.median, (cold, stock, warm))
    print(
        f"{label}: model_signing {theirs:.2f} s, ours cold {first:.2f} s ({theirs / first:.1f}x),"
        f" again {again:.3f} s ({theirs / again:.0f}x)"
    )


def main(megabytes: int = 1024, files: int = 20_000) -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        large = base / "large"
        large.mkdir()
        block = os.urandom(1 << 20)
        for shard in range(4):
            with (large / f"shard-{shard}.bin").open("wb") as file:
                for i in range(megabytes // 4):
                    file.write(block[:-8] + i.to_bytes(8, "big"))
        floor = timed(lambda: [hashlib.file_digest(path.open("rb"), "sha256") for path in sorted(large.iterdir())])
        small = base / "small"
        for i in range(files):
            folder = small / f"{i % 100:02d}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i}.bin").write_bytes(block[i % 1000 : i % 1000 + 1000])
        time.sleep(2.1)  # rows younger than two seconds are not remembered
        compare(f"{megabytes} MB in 4 files, unchanged", large, base / "cache-large", lambda _: None)
        print(f"  floor: one thread of SHA-256 {floor:.2f} s")

        def touch_one_percent(root: Path) -> None:
            for i in range(0, files, 100):
                (root / f"{i % 100:02d}" / f"{i}.bin").write_bytes(os.urandom(1000))

        compare(f"{files} files of 1 kB, 1 % changed", small, base / "cache-small", touch_one_percent)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
