"""Which call is what. Every answer that is not a success is one JSON object ``{"code", "message"}``.

=======  ===================================  =====================================================================
GET      /healthz                             name and fingerprint
GET      /authority                           every log with its key; for monitors
POST     /issuer/token                        token for the calling user; unix socket only
GET      /issuer/.well-known/…, /issuer/keys  OpenID Connect discovery and keys
POST     /api/v2/signingCert                  certificate (Fulcio v2)
GET      /api/v2/trustBundle                  CA chain (Fulcio v2)
POST     /api/v1/timestamp                    RFC 3161, as DER or as sigstore-js's JSON
POST     /log/ORIGIN/api/v2/log/entries       append (Rekor v2); 409 with the entry that exists, retired logs too
GET      /log/ORIGIN/checkpoint, /tile/…      read any log of this authority (C2SP tlog-tiles), also below /api/v2
=======  ===================================  =====================================================================
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mlseal.errors import Error, MalformedEvidence, Misuse, StaleEvidence, Unchecked, UntrustedSigner
from mlseal.evidence import canonical
from mlseal.evidence.bundle import unbase64
from mlseal.services import entries, logs, timestamping
from mlseal.services.authority import Authority, Generation

MAX_BODY = 64 * 1024
_JSON, _TEXT, _BINARY = "application/json", "text/plain; charset=utf-8", "application/octet-stream"
_LOG = re.compile(r"/log/([a-z0-9.-]+)/(?:api/v2/)?(.+)")


@dataclass(frozen=True)
class Request:
    """One call. `uid` is the caller's as the kernel reports it, None for a call over the network."""

    method: str
    path: str
    body: bytes
    content_type: str
    authorization: str
    uid: int | None

    def json(self) -> Any:
        """The body as strict JSON. Raises `Misuse`."""
        try:
            return canonical.parse(self.body, what="the request", limit=MAX_BODY)
        except MalformedEvidence as error:
            raise Misuse(error.message, got=error.got) from error


@dataclass(frozen=True)
class Response:
    """What goes back. `note` is what the service's own log says of a failure: without values, which may be names."""

    status: int
    body: bytes
    content_type: str = _JSON
    note: str = ""


def answer(status: int, document: object) -> Response:
    """A JSON answer."""
    return Response(status, json.dumps(document).encode())


def failure(status: int, message: str, *, note: str | None = None) -> Response:
    """The one shape of every refusal."""
    body = json.dumps({"code": status, "message": message}).encode()
    return Response(status, body, note=message if note is None else note)


def dispatch(authority: Authority, request: Request) -> Response:
    """The answer to `request`; never raises one of our own errors."""
    try:
        return _route(authority.current(), request)
    except Error as error:
        ours = isinstance(error, Unchecked) and not isinstance(error, StaleEvidence)
        return failure(503, str(error)) if ours else failure(error.http_status, str(error), note=error.message)


def _route(now: Generation, request: Request) -> Response:
    if handlers := _ROUTES.get(request.path):
        handler = handlers.get(request.method)
        return handler(now, request) if handler else failure(405, f"{request.method} is not for {request.path}")
    if match := _LOG.fullmatch(request.path):
        return _log(now, request, match[1], match[2])
    return failure(404, f"nothing is at {request.path[:100]}")


def _health(now: Generation, _: Request) -> Response:
    return answer(200, {"ok": True, "name": now.state.name, "fingerprint": now.fingerprint})


def _authority(now: Generation, _: Request) -> Response:
    state, logs = now.state, []
    for number, generation in enumerate(state.generations, 1):
        raw = unbase64(generation["log"]["publicKey"]["rawBytes"], "log key")[-32:].hex()
        both = (
            (state.statement_origin(number), "statements", raw),
            (state.issuance_origin(number), "certificates", generation["issuanceKey"]),
        )
        logs += [{"origin": o, "kind": kind, "key": key, "open": number == state.number} for o, kind, key in both]
    return answer(200, {"name": state.name, "fingerprint": now.fingerprint, "logs": logs})


def _token(now: Generation, request: Request) -> Response:
    if request.uid is None:
        return failure(403, "tokens are given on the unix socket only; bring one of your identity provider")
    document = request.json()
    subject = document.get("subject") if isinstance(document, dict) else None
    if not isinstance(subject, str):
        raise Misuse("the request names no subject", expected='{"subject": "roles/…"}')
    return answer(200, {"token": now.issuer.token(subject, request.uid)})


def _discovery(now: Generation, _: Request) -> Response:
    base = now.state.base
    return answer(
        200,
        {
            "issuer": now.issuer.issuer,
            "jwks_uri": f"{base}/issuer/keys",
            "token_endpoint": f"{base}/issuer/token",
            "authorization_endpoint": f"{base}/issuer/auth",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        },
    )


def _certificate(now: Generation, request: Request) -> Response:
    document = request.json()
    if not isinstance(document, dict):
        raise Misuse("not a signing certificate request")
    try:
        caller = now.tokens.verify(_bearer(request, document))
    except UntrustedSigner as error:
        return failure(401, str(error), note=error.message)
    chain = now.certificates.issue(caller, _proven_key(document, caller.subject))
    pem = [certificate.public_bytes(serialization.Encoding.PEM).decode() for certificate in chain]
    return answer(201, {"signedCertificateEmbeddedSct": {"chain": {"certificates": pem}}})


def _bearer(request: Request, document: dict[str, Any]) -> str:
    scheme, _, token = request.authorization.partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    credentials = document.get("credentials")
    inside = credentials.get("oidcIdentityToken") if isinstance(credentials, dict) else None
    if not isinstance(inside, str):
        raise UntrustedSigner("the request brings no identity token", expected="Authorization: Bearer …")
    return inside


def _proven_key(document: dict[str, Any], subject: str) -> ec.EllipticCurvePublicKey:
    """The public key that the caller proved to hold, by a signed CSR or by a signature over the token's subject."""
    public: object
    try:
        if "certificateSigningRequest" in document:
            csr = x509.load_pem_x509_csr(unbase64(document["certificateSigningRequest"], "certificateSigningRequest"))
            public, proven = csr.public_key(), csr.is_signature_valid
        else:
            wanted = document["publicKeyRequest"]
            public = serialization.load_pem_public_key(str(wanted["publicKey"]["content"]).encode())
            proof = unbase64(wanted["proofOfPossession"], "proofOfPossession")
            if proven := isinstance(public, ec.EllipticCurvePublicKey):
                public.verify(proof, subject.encode(), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        proven = False
    except (KeyError, TypeError, ValueError, UnsupportedAlgorithm, MalformedEvidence) as error:
        raise Misuse("the request holds no readable key", got=str(error)[:120], expected="a CSR in PEM") from error
    if not proven or not isinstance(public, ec.EllipticCurvePublicKey):
        raise Misuse("the caller did not prove to hold the key", expected="an ECDSA P-256 key and a valid proof")
    return public


def _trust_bundle(now: Generation, _: Request) -> Response:
    pem = [c.public_bytes(serialization.Encoding.PEM).decode() for c in now.certificates.chain]
    return answer(200, {"chains": [{"certificates": pem}]})


def _timestamp(now: Generation, request: Request) -> Response:
    if request.content_type.split(";")[0].strip() == _JSON:
        query = _json_query(request.json())
    else:
        query = timestamping.parse_query(request.body)
    return Response(201, now.time.respond(query), "application/timestamp-reply")


def _json_query(document: Any) -> timestamping.Query:
    """The JSON form of Sigstore's timestamp-authority, which sigstore-js sends."""
    if not isinstance(document, dict):
        raise Misuse("not a timestamp request")
    nonce = document.get("nonce")
    if nonce is not None and (isinstance(nonce, bool) or not isinstance(nonce, int)):
        raise Misuse("the nonce is not an integer", got=str(nonce)[:40])
    try:
        digest = unbase64(document.get("artifactHash"), "artifactHash")
    except MalformedEvidence as error:
        raise Misuse(error.message) from error
    return timestamping.make_query(
        str(document.get("hashAlgorithm", "")), digest, nonce=nonce, certificate=document.get("certificates") is True
    )


def _log(now: Generation, request: Request, origin: str, path: str) -> Response:
    tiles = now.tiles.get(origin)
    if tiles is None:
        return failure(404, f"no log {origin[:100]} here")
    if path == "log/entries":
        return _append(now, request, origin)
    if request.method not in {"GET", "HEAD"}:
        return failure(405, f"{request.method} is not for {request.path[:100]}")
    try:
        return Response(200, tiles.read(path), _TEXT if path == "checkpoint" else _BINARY)
    except FileNotFoundError:
        return failure(404, f"no {path[:100]} in {origin}")


def _append(now: Generation, request: Request, origin: str) -> Response:
    if request.method != "POST":
        return failure(405, f"{request.method} is not for {request.path[:100]}")
    wanted = request.json()
    if origin == now.state.statement_origin():
        try:
            document, existed = now.log.append(
                wanted, owner=request.uid == os.geteuid(), authorization=request.authorization
            )
            return answer(409 if existed else 201, document)
        except (StaleEvidence, UntrustedSigner):  # a signer no longer taken since its entry was made: it is still there
            known = _known(now, wanted, origin)
            if known is None:
                raise
            return answer(409, known)
    try:
        known = _known(now, wanted, origin)
    except Misuse:  # whatever it asked for, it would not have been taken
        known = None
    if known is not None:
        return answer(409, known)
    newest = now.state.statement_origin()
    return failure(410, f"the log {origin} takes no entries; use the newest trust configuration, with {newest}")


def _known(now: Generation, wanted: object, origin: str) -> dict[str, Any] | None:
    """The entry that a statement log, open or retired, holds for the statement of a request."""
    for number, generation in enumerate(now.state.generations, 1):
        if now.state.statement_origin(number) == origin:
            key = unbase64(generation["log"]["publicKey"]["rawBytes"], "log key")[-32:]
            held = logs.held(now.state.log_directory(origin), origin, key, entries.identity_of)
            found = held.find(entries.parse_request(wanted).digest)
            return entries.document(found, generation["log"]["logId"]["keyId"]) if found else None
    return None


_Handler = Callable[[Generation, Request], Response]

_ROUTES: dict[str, dict[str, _Handler]] = {
    "/healthz": {"GET": _health, "HEAD": _health},
    "/authority": {"GET": _authority},
    "/issuer/token": {"POST": _token},
    "/issuer/.well-known/openid-configuration": {"GET": _discovery},
    "/issuer/keys": {"GET": lambda now, _: answer(200, now.issuer.jwks())},
    "/api/v2/signingCert": {"POST": _certificate},
    "/api/v2/trustBundle": {"GET": _trust_bundle},
    "/api/v1/timestamp": {"POST": _timestamp},
}
