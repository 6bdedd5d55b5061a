"""One signing path for every deployment; only the trust configuration differs.

The steps of `Signer.sign`, performed under these numbers:

1. Credential: an ephemeral P-256 key, certified by the CA against an identity token and reused until the certificate
   nears its end; or a key that somebody keeps, and then the statement says when it is signed.
2. Signature: ECDSA over the DSSE pre-authentication encoding of the statement's frozen bytes.
3. Time: RFC 3161 over the signature. Before the log, because a log entry without a time can never be verified once the
   certificate has expired and would stay an orphan.
4. Journal: what is about to be logged is written down, so that a crash after step 5 loses nothing.
5. Log: append the entry; a repeated append of the same signature gives the same entry.
6. Assemble the bundle.
7. Self-verification, with the verifier that everyone else uses. What does not verify is not published.
8. Publish to the store, if one was given, and clear the journal.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlseal.errors import Error, MalformedEvidence, Misuse, UntrustedSigner, Withheld
from mlseal.evidence import canonical, keyholder, logrecord, predicates
from mlseal.evidence.bundle import MEDIA_TYPE, Bundle, unbase64
from mlseal.evidence.clock import Clock, utcnow
from mlseal.evidence.identity import Identity, IdentityMatcher
from mlseal.evidence.leaves import parse_leaf
from mlseal.evidence.signing import embedded, journal
from mlseal.evidence.signing.credentials import Certified, Credential, Credentials, Kept, SigningKey
from mlseal.evidence.signing.journal import Journal
from mlseal.evidence.signing.remote import Remote
from mlseal.evidence.signing.tokens import TokenSource
from mlseal.evidence.statement import PAYLOAD_TYPE, Statement, pae
from mlseal.evidence.store import BundleStore
from mlseal.evidence.trust import Trust

_UNPUBLISHED = {journal.VERIFIER, journal.ASKED}


class Signer:
    """Signs statements as the identity that `token` proves, or as the holder of `key`.

    Args:
        trust: root and endpoints; a root without endpoints cannot sign.
        token: where the identity token comes from; asked again for each certificate. None with a `key`.
        key: signs in place of a certified key; may not sign decisions (`mlseal.evidence.keyholder`).
        store: where finished bundles are published; without one the caller keeps them.
        deadline: seconds for each remote call.
        verify: turn off only where the caller verifies at once itself (benchmarks of the parts).

    Thread-safe. Every failure is a `mlseal.errors.Error`; nothing is published then.
    """

    def __init__(
        self,
        trust: Trust,
        token: TokenSource | None = None,
        *,
        key: SigningKey | None = None,
        store: BundleStore | None = None,
        deadline: float = 10.0,
        clock: Clock = utcnow,
        verify: bool = True,
    ) -> None:
        endpoints = trust.require_services()
        self.trust, self.store = trust, store
        self._clock, self._verify = clock, verify
        remote = self._remote = Remote(endpoints, deadline, retired=trust.retired_logs())
        self._credentials: Credentials
        if token is not None and key is None:
            self._credentials = Certified(lambda fresh: remote.certificate(fresh, token()), clock)
        elif key is not None and token is None:
            self._credentials = Kept(key, clock)
        else:
            raise Misuse("a signer signs with a token or with a key", got="both" if key else "neither")
        self._journal = Journal(trust)

    def sign(self, statement: Statement) -> Bundle:
        """The verified bundle of `statement`; see the module for the steps.

        Raises `MalformedEvidence` for a predicate of a known type with a field that its schema does not have, and
        `UntrustedSigner` for a decision that a key is to sign.
        """
        if statement.predicate_type in predicates.MODELS:
            predicates.check_own(statement.predicate_type, statement.predicate)
        embedded.ensure_running(self.trust)
        waiting = self._journal.find(statement.evidence_id, self._credentials.owns)
        if waiting is not None:  # a crash came between: the signature made then is the one that the log may hold
            return self._finish(waiting, waited=True)
        if self.store is not None:
            self.store.require_answering()  # before the log: an entry whose bundle nobody keeps stops every judge
        credential = self._credentials.current()  # (1)
        keyholder.require_work(credential.identity, statement.predicate_type)
        payload = self._credentials.prepare(statement).payload
        signature = credential.sign(pae(payload))  # (2)
        timestamp = self._remote.timestamp(signature)  # (3)
        draft = _draft(payload, signature, credential, timestamp)
        return self._finish(self._journal.write(statement.evidence_id, draft), draft, waited=False)  # (4) to (8)

    def identity(self) -> Identity:
        """Who this signer is, as the CA certified it; or its key."""
        embedded.ensure_running(self.trust)
        return self._credentials.current().identity

    def recover(self, by: Sequence[IdentityMatcher] | None = None) -> list[Bundle]:
        """Finish what a crash interrupted between steps 4 and 8; returns the bundles published now.

        With `by`, only what one of these identities signed: what others of this user wait for may belong elsewhere.
        Raises the first error after trying every entry; entries that failed stay in the journal.
        """
        done: list[Bundle] = []
        failed: Error | None = None
        for file in self._journal.files():
            try:
                if by is not None and not any(matcher.matches(journal.signer_of(file)) for matcher in by):
                    continue
                embedded.ensure_running(self.trust)
                done.append(self._finish(file, waited=True))
            except FileNotFoundError:  # another process finished it meanwhile
                continue
            except Error as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return done

    def _finish(self, journal_file: Path, draft: dict[str, Any] | None = None, *, waited: bool) -> Bundle:
        """Steps 5 to 8 for what stands in the journal; a second writer of the same entry finds it done.

        What `waited` may be in a log that a rotation retired since; those are asked first, so that it is logged once.
        """
        draft = draft or journal.read(journal_file)  # what was written just now may be finished by another already
        try:
            bundle = self._log(draft, waited=waited)  # (5) (6)
        except Withheld:
            # The log will never take these words from us; keeping them helps nobody.
            journal_file.unlink(missing_ok=True)
            raise
        except UntrustedSigner:
            if not waited:  # nothing was logged; what waited may have been, and is kept
                journal_file.unlink(missing_ok=True)
            raise
        return self._publish(bundle, journal_file)  # (7) (8)

    def _log(self, draft: dict[str, Any], *, waited: bool) -> Bundle:
        signature = unbase64(draft["dsseEnvelope"]["signatures"][0]["sig"], "signature")
        digest = hashlib.sha256(pae(unbase64(draft["dsseEnvelope"]["payload"], "payload"))).digest()
        entry, existed = self._remote.append(
            digest, signature, journal.verifier_of(draft), asked=draft.get(journal.ASKED), ask_retired=waited
        )
        if existed and _signature_of(entry) != signature:
            return self._signed_before(digest.hex(), entry, journal.identity_of(draft))
        draft["verificationMaterial"]["tlogEntries"] = [entry]
        return Bundle(canonical.dumps({name: value for name, value in draft.items() if name not in _UNPUBLISHED}))

    def _signed_before(self, evidence_id: str, entry: dict[str, Any], own: Identity) -> Bundle:
        """The bundle of the same words signed before, if by the same identity; the log keeps one entry per statement.

        Never the bundle of somebody else: returning that would let whoever says the words first speak for us.
        """
        leaf = parse_leaf("log", 0, unbase64(entry.get("canonicalizedBody"), "log entry"))
        if leaf.identity == own and self.store is not None and self.store.has(evidence_id):
            return self.store.get(evidence_id)
        raise Withheld(
            "the log holds this very statement already",
            got=f"leaf {entry.get('logIndex')} signed by {leaf.identity.san}",
            expected=f"a statement that only {own.san} makes",
            remedy="put a run id or nonce into the claim and sign again",
        )

    def _publish(self, bundle: Bundle, journal_file: Path) -> Bundle:
        if self._verify:
            from mlseal.evidence.verifying import self_verify

            self_verify(bundle, self.trust, clock=self._clock)
        if self.store is not None:
            self.store.put(bundle)
        journal_file.unlink(missing_ok=True)
        return bundle


def _draft(payload: bytes, signature: bytes, credential: Credential, timestamp: bytes) -> dict[str, Any]:
    """The bundle v0.3 document (sigstore/protobuf-specs, bundle.proto) without its log entry; with the key, if one."""
    of_key = {}
    if "publicKey" in credential.material:
        asked = credential.sign(logrecord.asked(hashlib.sha256(pae(payload)).digest()))
        of_key = {journal.VERIFIER: credential.verifier, journal.ASKED: _b64(asked)}
    return {
        **of_key,
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {
            **credential.material,
            "tlogEntries": [],
            "timestampVerificationData": {"rfc3161Timestamps": [{"signedTimestamp": _b64(timestamp)}]},
        },
        "dsseEnvelope": {
            "payload": _b64(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": _b64(signature)}],
        },
    }


def _signature_of(entry: dict[str, Any]) -> bytes:
    record = canonical.parse(unbase64(entry.get("canonicalizedBody"), "log entry"), what="log entry")
    try:
        return unbase64(record["spec"]["hashedRekordV002"]["signature"]["content"], "logged signature")
    except (KeyError, TypeError) as error:
        raise MalformedEvidence("the log answered with an entry of another kind") from error


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
