"""HE computation: scores that a server computed on ciphertexts it could not read, and how far they are from plain ones.

The subjects are the model and the scores; the data set stands in ``dataset`` by digest. Client and server were two
processes; the server got the public context and ciphertexts, nothing else. Whoever reads this predicate compares the
parameters with the table of the HomomorphicEncryption.org standard (2018, 128 bits, ternary secret, classical attacks):
a modulus with more bits than its polynomial degree allows is refused.

Example::

    {"dataset": {"name": "patients.csv", "digest": {"sha256": "…"}}, "scheme": "ckks", "operation": "linear-score",
     "polyModulusDegree": 8192, "coefficientModulusBits": [60, 40, 60], "scaleBits": 40, "securityBits": 128,
     "publicContext": "…", "serverHeldSecretKey": false, "serverCouldDecrypt": false,
     "processes": "client-and-server", "transport": "unix-socket",
     "rows": 2520, "features": 30, "batches": 1, "rowsPerCiphertext": 4096,
     "maximumError": 0.0000027, "errorBound": "0.0001",
     "amortizedMilliseconds": 0.31, "singleMilliseconds": 240.1, "bytesPerRow": 2400, …}
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mlseal.evidence.predicates.base import NAMESPACE, Decimal, Finite, Measurement, ResourceDescriptor, Sha256

URI = NAMESPACE + "he-computation/v0.1"
SHORT = "he-computation"
STANDARD = {4096: 109, 8192: 218, 16384: 438, 32768: 881}
"""Degree of the polynomial modulus → most bits of the coefficient modulus at 128 bits of security."""


def fault(degree: int, bits: list[int], scale: int) -> str | None:
    """Why parameters are below 128 bits of security, or cannot hold one multiplication; None if neither."""
    if degree not in STANDARD:
        return f"degree {degree} is none of {', '.join(map(str, STANDARD))}"
    if sum(bits) > STANDARD[degree]:
        return f"{sum(bits)} bits of modulus at degree {degree}, where 128 bits of security allow {STANDARD[degree]}"
    if len(bits) < 3 or not all(20 <= one <= 60 for one in bits) or not 20 <= scale <= min(60, max(bits)):
        return f"primes of {bits} bits and a scale of {scale} hold no multiplication"
    return None


class Predicate(Measurement):
    """HE computation v0.1.

    Attributes:
        table: the file inside a data set directory.
        public_context: SHA-256 of the context as the server received it.
        server_held_secret_key: what the server's library says of the context that it received.
        server_could_decrypt: whether decrypting a ciphertext there did anything but fail.
        rows_per_ciphertext: slots, one row in each; a ciphertext holds one feature of so many rows.
        maximum_error: largest distance between a decrypted score and the plain one.
        error_bound: what it had to stay under, stated before.
        amortized_milliseconds: encrypt, send, compute, send back and decrypt, over the rows of the batches.
        single_milliseconds: the same for one row alone.
    """

    dataset: ResourceDescriptor
    table: str | None = None
    scheme: Literal["ckks"]
    operation: Literal["linear-score"]
    poly_modulus_degree: Literal[8192, 16384, 32768, 4096]
    coefficient_modulus_bits: list[Annotated[int, Field(ge=20, le=60)]] = Field(min_length=3)
    scale_bits: int = Field(ge=20, le=60)
    security_bits: Literal[128]
    public_context: Sha256
    server_held_secret_key: Literal[False]
    server_could_decrypt: Literal[False]
    processes: Literal["client-and-server"]
    transport: Literal["unix-socket"]
    rows: int = Field(ge=1)
    features: int = Field(ge=1)
    batches: int = Field(ge=1)
    rows_per_ciphertext: int = Field(ge=1)
    maximum_error: Finite = Field(ge=0)
    error_bound: Decimal
    amortized_milliseconds: Finite
    single_milliseconds: Finite
    bytes_per_row: int = Field(ge=0)

    @model_validator(mode="after")
    def _parameters_are_secure_and_the_error_is_within_its_bound(self) -> Predicate:
        wrong = fault(self.poly_modulus_degree, self.coefficient_modulus_bits, self.scale_bits)
        if wrong is not None:
            raise ValueError(wrong)
        if self.maximum_error > float(self.error_bound):
            raise ValueError(f"the error {self.maximum_error} is over its bound {self.error_bound}")
        return self
