"""Signing a model directory: ours beside OpenSSF ``model_signing`` in one run, rounds interleaved.

Bars (DESIGN, section 11): 1 GB cold ≥ 1.3× faster, unchanged ≥ 50×; 20,000 small files cold ≥ 3×, 1 % changed ≥ 20×.
"Cold" means without our hash cache; the files are in the page cache for both.

Floors, printed beside the figures: SHA-256 of that many bytes by every core, from memory, no file read; and one `stat`
of every file, which is how an unchanged file is known. The first bar is out of reach on two cores: both keep every core
busy with SHA-256 and stand near its floor, in equal shards and also where one file is as large as all others together
(we begin with the largest there). On 20,000 files ``model_signing`` itself took from 2.8 s (cores busy elsewhere) to
5.5 s (both idle, its threads contending for the interpreter), so the ratio depends on the machine's other work.
"""

import hashlib
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mlseal.evidence import statement
from mlseal.evidence.digest import measure
from mlseal.evidence.hashcache import HashCache
from mlseal.evidence.predicates import test_result

ROUNDS = 5
LAYOUTS = {"4 equal shards": (4, 4, 4, 4), "one half and 8 shards": (1, 1, 1, 1, 1, 1, 1, 1, 8)}


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


def hashing_floor(megabytes: int) -> float:
    """Seconds of SHA-256 over that much by every core, each over a piece that stays in its own cache."""
    block, cores = os.urandom(1 << 15), os.cpu_count() or 1

    def work(count: int) -> None:
        digest = hashlib.sha256()
        for _ in range(count):
            digest.update(block)

    def every_core() -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(work, [megabytes * 32 // cores] * cores))

    return statistics.median(timed(every_core) for _ in range(ROUNDS))


def scanning_floor(root: Path) -> float:
    """Seconds of one `stat` of every file below `root`, two levels."""

    def scan() -> None:
        for folder in os.scandir(root):
            for entry in os.scandir(folder.path):
                entry.stat()

    return statistics.median(timed(scan) for _ in range(ROUNDS))


def large(base: Path, megabytes: int, shares: tuple[int, ...]) -> Path:
    """A directory of `megabytes`, divided into files by `shares`."""
    block = os.urandom(1 << 20)
    base.mkdir()
    for number, share in enumerate(shares):
        with (base / f"shard-{number}.bin").open("wb") as file:
            for i in range(megabytes * share // sum(shares)):
                file.write(block[:-8] + i.to_bytes(8, "big"))
    return base


def main(megabytes: int = 1024, files: int = 20_000) -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        models = {layout: large(base / str(i), megabytes, LAYOUTS[layout]) for i, layout in enumerate(LAYOUTS)}
        small = base / "small"
        block = os.urandom(2000)
        for i in range(files):
            folder = small / f"{i % 100:02d}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i}.bin").write_bytes(block[i % 1000 : i % 1000 + 1000])
        time.sleep(2.1)  # rows younger than two seconds are not remembered
        print(f"floor: SHA-256 of {megabytes} MB by every core {hashing_floor(megabytes):.2f} s")
        for layout, root in models.items():
            compare(f"{megabytes} MB, {layout}, unchanged", root, base / f"cache-{root.name}", lambda _: None)
        print(f"floor: one stat of {files} files {scanning_floor(small):.3f} s")

        def touch_one_percent(root: Path) -> None:
            for i in range(0, files, 100):
                (root / f"{i % 100:02d}" / f"{i}.bin").write_bytes(os.urandom(1000))

        compare(f"{files} files of 1 kB, 1 % changed", small, base / "cache-small", touch_one_percent)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
