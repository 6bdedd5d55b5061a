"""The transparency log: appends from many threads, each answered after a flush, and proofs from a large log.

Bars (DESIGN, section 11): ≥ 5,000 appends/s with fsync and 64 concurrent submitters at p99 ≤ 100 ms; an inclusion proof
at one million entries ≤ 5 ms. Floor: what the same disk needs to append the same bytes to a bare file and flush, once
for each entry (a log without tree, proofs or signatures that cannot share flushes) and once for each batch.
Rounds of floor and log are interleaved, so that a busy machine is busy for both.

    python -m benchmarks.bench_log [THREADS] [ENTRIES_PER_THREAD] [ENTRIES_OF_THE_LARGE_LOG]
"""

import os
import random
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mlseal.tlog.checkpoint import open_note
from mlseal.tlog.proofs import HashReader, leaf_hash, verify_inclusion
from mlseal.tlog.tiles import DirectoryTiles
from mlseal.tlog.writer import LogWriter

ROUNDS = 5
BODY = 1600
"""Bytes of a hashedrekord entry with a certificate."""
CHUNK = 8192
ORIGIN = "bench.example.org"


def identity_of(body: bytes) -> bytes:
    return sha256(body).digest()


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


@dataclass
class Appends:
    """One run of concurrent submitters."""

    rate: float
    latencies: list[float]
    cpu: float
    """Processor seconds for each entry, of all threads together."""
    batch: float
    """Entries in a batch, on average."""


def disk_flush(directory: Path, size: int, rounds: int) -> list[float]:
    """Seconds that each of `rounds` appends of `size` bytes with a flush takes, on a file of its own."""
    path, data, times = directory / "floor", os.urandom(size), []
    with path.open("wb", buffering=0) as file:
        for _ in range(rounds):
            start = time.perf_counter()
            file.write(data)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
    path.unlink()
    return times


def concurrent_appends(directory: Path, threads: int, each: int) -> Appends:
    """`threads` submitters, each waiting for the answer to one entry before it sends the next."""
    latencies: list[list[float]] = [[] for _ in range(threads)]
    sizes: list[set[int]] = [set() for _ in range(threads)]
    with LogWriter(directory, ORIGIN, Ed25519PrivateKey.generate(), identity_of=identity_of) as writer:

        def submit(number: int) -> None:
            for i in range(each):
                body = f"{number} {i} ".encode().ljust(BODY, b".")
                start = time.perf_counter()
                sizes[number].add(writer.append(body, identity_of(body)).size)
                latencies[number].append(time.perf_counter() - start)

        workers = [threading.Thread(target=submit, args=(number,)) for number in range(threads)]
        cpu, start = time.process_time(), time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    total = threads * each
    return Appends(total / seconds, [x for xs in latencies for x in xs], cpu / total, total / len(set().union(*sizes)))


def large_log(directory: Path, entries: int) -> tuple[float, list[float], float, float]:
    """Builds a log of `entries` in bulk; returns entries a second, seconds of cold proofs, and of opening it twice.

    A cold proof opens the directory, authenticates every tile that it uses against the signed root, and verifies. The
    first opening follows a clean close; for the second the identity map was deleted and is built from the log.
    """
    key = Ed25519PrivateKey.generate()
    start = time.perf_counter()
    with LogWriter(directory, ORIGIN, key, identity_of=identity_of) as writer:
        for at in range(0, entries, CHUNK):
            bodies = [b"entry %d" % i for i in range(at, min(entries, at + CHUNK))]
            writer.append_all([(body, identity_of(body)) for body in bodies])
    rate = entries / (time.perf_counter() - start)
    proofs = []
    tiles, raw_key = DirectoryTiles(directory), key.public_key().public_bytes_raw()
    for index in random.Random(0).sample(range(entries), min(entries, 200)):
        begin = time.perf_counter()
        now = open_note(tiles.read("checkpoint").decode(), ORIGIN, raw_key)
        proof = HashReader(tiles.read, now.size, now.root).inclusion(index)
        verify_inclusion(index, now.size, leaf_hash(b"entry %d" % index), proof, now.root)
        proofs.append(time.perf_counter() - begin)
    openings = []
    for _ in range(2):
        begin = time.perf_counter()
        LogWriter(directory, ORIGIN, key, identity_of=identity_of).close()
        openings.append(time.perf_counter() - begin)
        (directory / "identities.sqlite").unlink()
    return rate, proofs, openings[0], openings[1]


def report_appends(root: Path, threads: int, each: int) -> None:
    runs, alone, shared = [], [], []
    for number in range(ROUNDS):
        alone += disk_flush(root, BODY, 200)
        shared += disk_flush(root, BODY * threads // 2, 50)
        runs.append(concurrent_appends(root / str(number), threads, each))
    best = sorted(runs, key=lambda run: run.rate)[len(runs) // 2]
    floor, batch_floor = statistics.median(alone), statistics.median(shared)
    p50, p99 = (percentile(best.latencies, share) * 1e3 for share in (0.5, 0.99))
    print(f"append, {threads} submitters of {BODY} bytes, median of {ROUNDS} rounds:")
    print(f"  floor      {floor * 1e3:8.2f} ms  flush of one entry, {1 / floor:,.0f}/s one after another")
    print(f"  floor      {batch_floor * 1e3:8.2f} ms  flush of half a batch")
    print(f"  mlseal     {best.rate:8,.0f} /s  p50 {p50:.1f} ms, p99 {p99:.1f} ms, {best.batch:.0f} entries a batch, "
          f"{best.cpu * 1e6:.0f} us of processor each  (bars: 5,000/s, 100 ms)")  # fmt: skip
    print(f"  ratio      {best.rate * floor:8.2f} x   against a bare file flushed for each entry")
    single = concurrent_appends(root / "single", 1, 300)
    median = statistics.median(single.latencies)
    print(f"  one alone  {median * 1e3:8.2f} ms  {median / floor:.1f} x the flush")


def report_large(root: Path, entries: int) -> None:
    rate, proofs, opening, rebuild = large_log(root / "large", entries)
    print(f"log of {entries:,} entries:")
    print(f"  built      {rate:8,.0f} /s  in batches of {CHUNK:,}")
    print(f"  proof      {statistics.median(proofs) * 1e3:8.2f} ms  p99 {percentile(proofs, 0.99) * 1e3:.2f} ms, cold, "
          "every tile authenticated, verified  (bar: 5 ms)")  # fmt: skip
    print(f"  opening    {opening:8.2f} s   without its identity map {rebuild:.2f} s")


def main(threads: int = 64, each: int = 300, entries: int = 1_000_000) -> None:
    with tempfile.TemporaryDirectory(dir=".") as root:
        report_appends(Path(root), threads, each)
        report_large(Path(root), entries)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
