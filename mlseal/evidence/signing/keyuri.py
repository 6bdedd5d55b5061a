"""Opening a private key that securesystemslib knows by a URI.

``file2:PATH``      a PEM file, perhaps encrypted
``awskms:ID``       AWS KMS: key id, ARN or alias; credentials, region and endpoint as for every AWS client
``gcpkms:NAME``     Google Cloud KMS
``azurekms:URL``    Azure Key Vault
``hsm:ID?label=…``  a PKCS#11 token: the library in ``$PYKCS11LIB``, the PIN asked for as a passphrase is

The key never passes through a command line, and of all but the first it never comes here: securesystemslib sends the
digest. An encrypted file's passphrase is read from ``$MLSEAL_KEY_PASSPHRASE``, the file that
``$MLSEAL_KEY_PASSPHRASE_FILE`` names, or the terminal.
"""

from __future__ import annotations

import getpass
import os
import queue
import stat
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from mlseal.errors import ForgedEvidence, MissingExtra, Misuse, NotInitialised, ServiceUnavailable, Unreadable
from mlseal.evidence import publickey
from mlseal.evidence.signing.credentials import SigningKey

_T = TypeVar("_T")
DEADLINE = 30.0
"""Seconds that a service or device has for one answer; a token may want to be touched."""
_MAX_BYTES = 64 * 1024
_KEPT_BY = {"awskms": "AWSSigner", "gcpkms": "GCPSigner", "azurekms": "AzureSigner", "hsm": "HSMSigner"}
SCHEMES = ("file2", *_KEPT_BY)


def open_key(uri: str, *, deadline: float = DEADLINE) -> SigningKey:
    """The private key at `uri`.

    Raises `Misuse` for a scheme that is not one of `SCHEMES`, `MalformedEvidence` for a key of another kind than ECDSA
    P-256, `Unreadable`, `ServiceUnavailable` or `NotInitialised` when it cannot be reached, `MissingExtra` without the
    client library.
    """
    scheme, colon, rest = uri.partition(":")
    if not colon or not rest or scheme not in SCHEMES:
        raise Misuse(
            "this is no URI of a signing key",
            got=(scheme if colon else uri)[:40],
            expected=" or ".join(f"{name}:…" for name in SCHEMES),
            remedy="write file2:PATH for a PEM file",
        )
    return _file(Path(rest)) if scheme == "file2" else _Remote.open(scheme, rest, deadline)


@dataclass(frozen=True)
class _File:
    """A private key in memory."""

    private: ec.EllipticCurvePrivateKey

    @property
    def public(self) -> ec.EllipticCurvePublicKey:
        """Its public half."""
        return self.private.public_key()

    def sign(self, data: bytes) -> bytes:
        """The DER signature of `data`."""
        return self.private.sign(data, ec.ECDSA(hashes.SHA256()))


@dataclass(frozen=True)
class _Remote:
    """A key that never leaves its service or device; each question has `deadline` seconds."""

    public: ec.EllipticCurvePublicKey
    signer: Any
    scheme: str
    deadline: float

    @classmethod
    def open(cls, scheme: str, name: str, deadline: float) -> _Remote:
        """Ask for the public key; the library chooses the one scheme that the key has."""
        import securesystemslib.signer as library

        kept_by = getattr(library, _KEPT_BY[scheme])

        def load() -> tuple[Any, bytes]:
            if scheme == "hsm":
                known, public = kept_by.import_(*_hsm_name(name), _pin)
            else:
                known, public = kept_by.import_(name)
            signer = kept_by.from_priv_key_uri(known, public, _pin)
            return signer, public.keyval["public"].encode()

        signer, pem = _answer(load, scheme, deadline)
        return cls(publickey.from_pem(pem), signer, scheme, deadline)

    def sign(self, data: bytes) -> bytes:
        """The DER signature of `data`, which verifies: what does not is not shown to the log."""
        signature = _answer(lambda: bytes.fromhex(self.signer.sign(data).signature), self.scheme, self.deadline)
        try:
            self.public.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            raise ForgedEvidence(
                f"{self.scheme} gave a signature that does not verify under its key",
                got=publickey.fingerprint(self.public),
                expected="a signature of the digest that was sent",
                remedy="check that endpoint and key are the right ones",
            ) from error
        return signature


def _file(path: Path) -> _File:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            pem = file.read(_MAX_BYTES)
    except OSError as error:
        raise Unreadable(f"cannot read the key {path}", got=error.strerror, remedy="check the path") from error
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise Unreadable(
            f"others can read or change the key {path}",
            got=f"mode {stat.S_IMODE(mode):04o}",
            expected="0600",
            remedy=f"chmod 600 {path}, and take a new key if somebody may have read it",
        )
    try:
        return _checked(load_pem_private_key(pem, None), path)
    except TypeError:  # it is encrypted
        secret = passphrase(f"passphrase of {path}")
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Unreadable(f"{path} holds no private key", got=str(error)[:120], expected="PEM, PKCS#8") from error
    try:
        return _checked(load_pem_private_key(pem, secret), path)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Unreadable(f"the passphrase does not open the key {path}", remedy="try again") from error


def _checked(key: Any, path: Path) -> _File:
    public = key.public_key() if hasattr(key, "public_key") else key
    publickey.require_kind(public)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Unreadable(f"{path} holds no private key", got=type(key).__name__)
    return _File(key)


def passphrase(what: str) -> bytes:
    """The secret that opens a key. Raises `NotInitialised` where there is none and nobody to ask."""
    if given := os.environ.get("MLSEAL_KEY_PASSPHRASE"):
        return given.encode()
    if named := os.environ.get("MLSEAL_KEY_PASSPHRASE_FILE"):
        try:
            return Path(named).read_bytes().rstrip(b"\r\n")
        except OSError as error:
            raise Unreadable(f"cannot read the passphrase in {named}", got=error.strerror) from error
    if sys.stdin.isatty():
        return getpass.getpass(f"{what}: ").encode()
    raise NotInitialised(
        f"no {what}",
        expected="MLSEAL_KEY_PASSPHRASE, MLSEAL_KEY_PASSPHRASE_FILE or a terminal",
        remedy="set one of them; a passphrase is never an argument",
    )


def _pin(_: str) -> str:
    return passphrase("PIN of the token").decode()


def _hsm_name(name: str) -> tuple[int, str | None]:
    """The key's number and the token's label in ``ID?label=…``."""
    number, _, query = name.partition("?")
    try:
        return int(number), dict(parse_qsl(query)).get("label")
    except ValueError:
        raise Misuse("an hsm key is named by its number", got=name[:40], expected="hsm:2, or hsm:2?label=…") from None


def _answer(ask: Callable[[], _T], scheme: str, deadline: float) -> _T:
    """What `ask` gives, within `deadline` seconds; a client that hangs is left behind in its thread."""
    answers: queue.SimpleQueue[tuple[_T | None, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((ask(), None))
        except Exception as error:  # noqa: BLE001  raised by the thread that waits
            answers.put((None, error))

    threading.Thread(target=run, name=scheme, daemon=True).start()
    try:
        value, error = answers.get(timeout=deadline)
    except queue.Empty:
        raise ServiceUnavailable(f"{scheme} gave no answer", expected=f"one within {deadline:g} s") from None
    if error is None:
        return value  # type: ignore[return-value]  # the thread put one of the two
    raise _told(error, scheme) from error


def _told(error: Exception, scheme: str) -> Exception:
    from securesystemslib.exceptions import UnsupportedAlgorithmError, UnsupportedLibraryError

    from mlseal.errors import Error, MalformedEvidence

    if isinstance(error, Error):
        return error
    if isinstance(error, UnsupportedLibraryError):
        return MissingExtra(
            f"signing by {scheme} needs a client library", got=str(error)[:120], remedy="pip install 'mlseal[kms]'"
        )
    if isinstance(error, UnsupportedAlgorithmError):
        return MalformedEvidence("this kind of key signs no evidence", got=str(error)[:120], expected=publickey.KIND)
    return ServiceUnavailable(
        f"{scheme} cannot use the key",
        got=f"{type(error).__name__}: {error}"[:200],
        remedy="check the key's name, the credentials and the endpoint",
    )
