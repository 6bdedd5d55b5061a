"""The three services that a signature needs: CA (Fulcio v2), time (RFC 3161) and log (Rekor v2).

Same calls for the embedded service, a team's service and public Sigstore. Each answer is only parsed here; whether it
is right is decided by verifying the finished bundle.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mlseal.errors import ForgedEvidence, ServiceUnavailable, UntrustedSigner
from mlseal.evidence import logrecord
from mlseal.evidence.signing.tokens import json_or_empty
from mlseal.evidence.signing.transport import Connection, Response
from mlseal.evidence.trust import Endpoints

_JSON = {"Content-Type": "application/json"}
_ENTRIES = "/api/v2/log/entries"


class Remote:
    """The services at `endpoints`, each call within `deadline` seconds.

    `retired` are URLs of logs that take nothing new and still say what they hold.
    """

    def __init__(self, endpoints: Endpoints, deadline: float, *, retired: Sequence[str] = ()) -> None:
        self._ca = Connection(endpoints.ca, deadline)
        self._tsa = Connection(endpoints.tsa, deadline)
        self._log = Connection(endpoints.log, deadline)
        self._retired = [Connection(url, deadline) for url in retired]

    def certificate(self, key: ec.EllipticCurvePrivateKey, token: str) -> x509.Certificate:
        """A short-lived certificate for `key`, issued against `token`.

        Raises `UntrustedSigner` when the CA refuses the token, `ForgedEvidence` when it certifies another key.
        """
        from cryptography.hazmat.primitives import hashes

        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        body = {"certificateSigningRequest": _b64(request.public_bytes(serialization.Encoding.PEM))}
        answer = self._ca.request(
            "POST", "/api/v2/signingCert", json.dumps(body).encode(), {**_JSON, "Authorization": f"Bearer {token}"}
        )
        if answer.status in (400, 401, 403):
            raise UntrustedSigner(
                "the CA refused the identity token",
                got=_message(answer),
                remedy="get a fresh token for the right audience ('sigstore')",
            )
        chain = _member(_created(answer, "CA"), "signedCertificateEmbeddedSct", "chain", "certificates")
        try:
            certificate = x509.load_pem_x509_certificate(str(chain[0]).encode())
        except (ValueError, IndexError, KeyError, TypeError) as error:
            raise ForgedEvidence("the CA's answer holds no certificate") from error
        if certificate.public_key() != key.public_key():
            raise ForgedEvidence("the CA certified another key")
        return certificate

    def timestamp(self, signature: bytes) -> bytes:
        """RFC 3161 response (DER) over the signature bytes, with the nonce of this request."""
        from rfc3161_client import HashAlgorithm, TimestampRequestBuilder, decode_timestamp_response

        query = TimestampRequestBuilder().hash_algorithm(HashAlgorithm.SHA256).data(signature).nonce(nonce=True).build()
        answer = self._tsa.request("POST", "", query.as_bytes(), {"Content-Type": "application/timestamp-query"})
        if answer.status not in (200, 201):
            raise ServiceUnavailable(
                "the time-stamping authority refused", got=f"status {answer.status} {_message(answer)}"
            )
        try:
            nonce = decode_timestamp_response(answer.body).tst_info.nonce
        except ValueError as error:
            raise ForgedEvidence("the time-stamping authority's answer cannot be read", got=str(error)[:120]) from error
        if nonce != query.nonce:
            raise ForgedEvidence("the timestamp answers another request")
        return answer.body

    def append(
        self,
        digest: bytes,
        signature: bytes,
        verifier: dict[str, Any],
        *,
        asked: str | None = None,
        ask_retired: bool = False,
    ) -> tuple[dict[str, Any], bool]:
        """The log's entry for this signature and whether it was there before (idempotent append).

        `verifier` is the certificate or key of the record (`mlseal.evidence.logrecord`); the holder of a key also has
        `asked`, in base64. With `ask_retired` the retired logs are asked first; one that holds the statement gives its
        entry. Raises `UntrustedSigner` when the log takes no entry of this signer.
        """
        body = {
            "hashedRekordRequestV002": {
                "digest": _b64(digest),
                "signature": {"content": _b64(signature), "verifier": verifier},
            }
        }
        encoded, headers = json.dumps(body).encode(), dict(_JSON)
        if asked is not None:
            headers["Authorization"] = f"{logrecord.SCHEME} {asked}"
        for retired in self._retired if ask_retired else ():
            if (known := _existing(retired.request("POST", _ENTRIES, encoded, headers))) is not None:
                return known, True
        answer = self._log.request("POST", _ENTRIES, encoded, headers)
        if (known := _existing(answer)) is not None:
            return known, True
        if answer.status == 403:
            raise UntrustedSigner("the log takes no entry of this signer", got=_message(answer))
        return _created(answer, "log"), False


def _existing(answer: Response) -> dict[str, Any] | None:
    """The entry in a log's answer that it holds one already."""
    document = json_or_empty(answer.body) if answer.status == 409 else {}
    return document if "inclusionProof" in document else None


def _created(answer: Response, who: str) -> dict[str, Any]:
    if answer.status not in (200, 201):
        raise ServiceUnavailable(f"the {who} refused", got=f"status {answer.status} {_message(answer)}")
    return json_or_empty(answer.body)


def _member(document: Any, *path: str) -> Any:
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document or []


def _message(answer: Response) -> str:
    return str(json_or_empty(answer.body).get("message") or answer.body[:200].decode(errors="replace"))


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
