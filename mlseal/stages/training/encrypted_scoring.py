"""Scoring under encryption: TenSEAL's CKKS, a client with the rows and the key, a server with the model."""

from __future__ import annotations

import importlib.metadata
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from mlseal.errors import Misuse, Unchecked
from mlseal.evidence.predicates.he_computation import fault
from mlseal.stages import dense, tables
from mlseal.stages.base import Context, DatasetPath, EntryPath, Finding, ModelPath, OutputDataset, require, stage
from mlseal.stages.training.encrypted_client import Client, Parameters, session, timed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NOT_PROVEN = (
    "that the model stays secret from the client: one more score than it has features gives a linear model away",
    "security once decrypted scores are shown to whoever holds the ciphertexts: CKKS errors may then give the key away",
    "that a server elsewhere computes the same: it could answer anything, and only this client's comparison would tell",
    "that the client's machine keeps the key: both processes ran under one account of one machine",
    "that the model is good, fair or safe",
)


@stage(
    "training.encrypted_scoring",
    predicate="he-computation",
    extra="privacy",
    cost="seconds: a ciphertext for each feature of 4096 rows",
    not_proven=_NOT_PROVEN,
)
def encrypted_scoring(
    model: ModelPath,  # noqa: ARG001 - read through the context, as a proven copy
    dataset: DatasetPath,  # noqa: ARG001 - same
    out: OutputDataset,
    table: EntryPath = "",
    error_bound: str = "0.0001",
    degree: int = 8192,
    modulus_bits: str = "60,40,60",
    scale_bits: int = 40,
    timeout: int = 600,
    *,
    context: Context,
) -> Finding:
    """Score a table with a linear model on a server that sees ciphertexts only, and compare with plain scores.

    A ciphertext holds one feature of thousands of rows, so that a batch costs little more than one row.

    Args:
        model: a directory of plain numbers with one layer, as training.dp makes.
        dataset: the table, or a directory that holds it.
        out: where the decrypted scores go, CSV with one logit a row, in row order.
        table: the table inside a data set directory, CSV or parquet.
        error_bound: the most that a decrypted score may differ from the plain one, a decimal.
        degree: of the polynomial modulus; twice the rows in a ciphertext.
        modulus_bits: bits of each prime of the coefficient modulus, separated by commas.
        scale_bits: bits of precision of the encoding.
        timeout: seconds until the server is stopped.

    Guarantees:
        The server is a process of its own that is sent the public context and ciphertexts; what it received is compared
        by digest, its library finds no secret key in it, and it tries to decrypt and fails. Parameters below 128 bits
        of security (table of the HomomorphicEncryption.org standard) are refused before a key is made. Every score is
        compared with the plain one.

    Edge cases:
        A hidden layer, missing values, an error over the bound, a server that ends early: no scores and no evidence.
    """
    require("tenseal", "privacy")
    parameters = _parameters(degree, modulus_bits, scale_bits)
    bound = _bound(error_bound)
    copy = context.private_copy("model")
    linear = dense.read(copy)
    if len(linear.layers) != 1:
        raise Misuse("only a linear model can be scored under encryption", got=f"{len(linear.layers)} layers")
    entry = tables.entry(context.measured["dataset"], table)
    rows = linear.scaled(tables.read(context.private_file("dataset", entry)))
    home = context.workspace / "he"
    home.mkdir(mode=0o700)
    with session(parameters, copy, home, timeout, context.log) as client:
        fields = _compare(client, linear, rows, bound, context)
        out.write_text("logit\n" + "".join(f"{score!r}\n" for score in fields.pop("scores")), encoding="utf-8")
    said = {
        "dataset": context.resource("dataset"),
        **({"table": context.naming.of("path", entry)} if entry else {}),
        **_described(parameters),
        "errorBound": format(bound, "f"),
        **fields,
    }
    libraries = {name: importlib.metadata.version(name) for name in ("numpy", "pandas", "tenseal")}
    return Finding(("model", "out"), said, libraries=libraries)


def _compare(
    client: Client, linear: dense.Dense, rows: NDArray[np.float64], bound: Decimal, context: Context
) -> dict[str, Any]:
    import numpy as np

    _, single = timed(lambda: client.score(rows[:1]))
    client.sent = 0
    found, seconds = timed(lambda: client.all(rows, lambda done: context.progress(done, len(rows), "rows")))
    plain = rows @ linear.layers[0].weight[0] + linear.layers[0].bias[0]
    error = float(np.abs(found - plain).max())
    if not error <= bound:
        raise Unchecked(
            "the encrypted scores are not those of the model",
            got=f"a difference of {error:.3g}",
            expected=f"at most {bound}",
            remedy="raise --scale-bits and --modulus-bits, or state a larger --error-bound",
        )
    each = seconds * 1000 / len(rows)
    context.log(f"{each:.3f} ms a score in batches of {client.slots}, {single * 1000:.1f} ms for one row alone")
    return {
        "scores": found.tolist(),
        "publicContext": client.public_sha256,
        "serverHeldSecretKey": False,
        "serverCouldDecrypt": False,
        "rows": len(rows),
        "features": rows.shape[1],
        "batches": -(-len(rows) // client.slots),
        "maximumError": error,
        "amortizedMilliseconds": round(each, 3),
        "singleMilliseconds": round(single * 1000, 3),
        "bytesPerRow": client.sent // len(rows),
    }


def _described(parameters: Parameters) -> dict[str, object]:
    return {
        "scheme": "ckks",
        "operation": "linear-score",
        "polyModulusDegree": parameters.degree,
        "coefficientModulusBits": list(parameters.bits),
        "scaleBits": parameters.scale,
        "securityBits": 128,
        "processes": "client-and-server",
        "transport": "unix-socket",
        "rowsPerCiphertext": parameters.slots,
    }


def _parameters(degree: int, bits: str, scale: int) -> Parameters:
    """Raises `Misuse` for what is below 128 bits of security or holds no multiplication."""
    try:
        primes = [int(part) for part in bits.split(",")]
    except ValueError:
        primes = []
    wrong = fault(degree, primes, scale)
    if wrong is not None:
        raise Misuse(
            "these parameters do not keep the rows secret, or do not compute", got=wrong, expected="8192 and 60,40,60"
        )
    return Parameters(degree, tuple(primes), scale)


def _bound(text: str) -> Decimal:
    try:
        bound = Decimal(text)
    except InvalidOperation:
        bound = Decimal(0)
    if not bound.is_finite() or bound <= 0:
        raise Misuse("--error-bound is no positive decimal", got=text[:40], expected="such as 0.0001")
    return bound
