"""Bundles that a key signed: what steps 2 and 3 of `mlseal.evidence.verifying` do where there is no certificate.

sigstore-python 4.5 cannot read such a bundle, so its parts are handed to the pieces of it that the certificate path
uses: the log entry (inclusion proof and checkpoint under the root's keys) and the timestamp (under the root's
authorities). What a certificate settles is asked here:

* the log's record is, byte for byte, the record of this digest, this signature and this key;
* the bundle's hint names that key;
* the signature, in its one DER encoding, verifies under it;
* the time. A certificate lives ten minutes, so a timestamp under it cannot be much younger than the signature. A key
  has no such end: anybody who holds an old bundle could have its signature stamped again, and old evidence would look
  fresh, or evidence would move out of the time for which a key counts. So the signed bytes state when they were signed,
  and the timestamp must agree.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from mlseal.errors import ForgedEvidence
from mlseal.evidence import canonical, logrecord, publickey, statement
from mlseal.evidence.bundle import unbase64
from mlseal.evidence.clock import SKEW, rfc3339
from mlseal.evidence.identity import Identity
from mlseal.evidence.statement import Statement, pae

if TYPE_CHECKING:
    from datetime import datetime

    from rfc3161_client import TimeStampResponse
    from sigstore.verify import Verifier as StockVerifier

    from mlseal.evidence.strict import Parts

STAMPED_WITHIN = timedelta(minutes=10)
"""How long after the signature its timestamp may come: as long as a certificate would live."""


def stock_verify(stock: StockVerifier, parts: Parts) -> None:
    """Step 2: inclusion, checkpoint signature and timestamp, by the code of sigstore-python and rfc3161-client."""
    from rfc3161_client import decode_timestamp_response
    from sigstore._internal.trust import KeyringPurpose
    from sigstore.errors import Error as StockError
    from sigstore.models import TransparencyLogEntry
    from sigstore_models.rekor.v1 import TransparencyLogEntry as EntryModel

    root = stock._trusted_root  # noqa: SLF001 - stock offers no public way to verify an entry by itself
    try:
        entry = TransparencyLogEntry(EntryModel.from_json(canonical.dumps(parts.entry).decode()))
        entry._verify(root.rekor_keyring(KeyringPurpose.VERIFY))  # noqa: SLF001
        stamped = stamp_verifies(stock, decode_timestamp_response(parts.timestamp), parts.signature)
    except (StockError, ValueError) as error:
        raise ForgedEvidence(
            "stock verification refused the bundle", got=str(error)[:200] or type(error).__name__
        ) from error
    if not stamped:
        raise ForgedEvidence("no time-stamping authority of the trust root stamped this signature")


def stamp_verifies(stock: StockVerifier, stamp: TimeStampResponse, signature: bytes) -> bool:
    """Whether an authority of the root gave `stamp` over `signature`, by the code of sigstore-python."""
    return stock._verify_signed_timestamp(stamp, signature) is not None  # noqa: SLF001


def require_signature(parts: Parts, said: Statement) -> Identity:
    """Step 3, key: log record, hint and signature belong to one key, whose holder is returned."""
    spki = logged_key(unbase64(parts.entry["canonicalizedBody"], "log body"))
    encoded = pae(said.payload)
    digest = hashlib.sha256(encoded).digest()
    expected = logrecord.body(digest, parts.signature, logrecord.of_key(spki))
    if unbase64(parts.entry["canonicalizedBody"], "log body") != expected:
        raise ForgedEvidence("the log holds another statement, signature or key")
    key = publickey.from_der(spki)
    if parts.hint not in publickey.hints(key):
        raise ForgedEvidence(
            "the bundle names another key than the log",
            got=str(parts.hint)[:80],
            expected=" or ".join(publickey.hints(key)),
        )
    _require_verifies(key, parts.signature, encoded)
    return publickey.identity(key)


def logged_key(body: bytes) -> bytes:
    """The SubjectPublicKeyInfo in a log record. Raises `ForgedEvidence` for anything but a hashedrekord of a key."""
    record = canonical.parse(body, what="log body")
    try:
        return unbase64(
            record["spec"]["hashedRekordV002"]["signature"]["verifier"]["publicKey"]["rawBytes"], "logged key"
        )
    except (KeyError, TypeError) as error:
        raise ForgedEvidence("the log body is not a hashedrekord of a key") from error


def require_own_time(said: Statement, time: datetime) -> None:
    """Step 3, time: the signed bytes state when they were signed, and the verified `time` agrees."""
    stated = statement.signed_at(said)
    if stated is None:
        raise ForgedEvidence(
            "the statement does not say when the key signed it, so its timestamp may be of any later day",
            expected=f"the annotation {statement.SIGNED_AT}",
            remedy="sign with 'mlseal sign --key' or 'mlseal run --key'",
        )
    if not stated - SKEW <= time <= stated + STAMPED_WITHIN:
        raise ForgedEvidence(
            "the signature was stamped at another time than it was made",
            got=rfc3339(time),
            expected=f"within minutes of {rfc3339(stated)}",
            remedy="check the signer's clock, and sign again",
        )


def _require_verifies(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> None:
    try:
        if utils.encode_dss_signature(*utils.decode_dss_signature(signature)) != signature:
            raise ForgedEvidence("the signature is not in its canonical encoding", expected="DER")
        key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError) as error:
        raise ForgedEvidence("the signature does not verify under the key that the log names") from error
