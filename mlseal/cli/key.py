"""``mlseal key``: make a signing key, show what a policy calls it, let its entries into the log."""

from __future__ import annotations

import os
from pathlib import Path

import click

from mlseal.cli.evidence import JSON, say
from mlseal.cli.group import WholeSentences
from mlseal.errors import DuplicateName, Misuse, Unreadable

_PATH = click.Path(path_type=Path)
_LEAST = 8  # characters of a passphrase


@click.group(cls=WholeSentences)
def key() -> None:
    """Make a signing key, show what a policy calls it, let its entries into the log."""


@key.command("new")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@JSON
def new(file: Path, as_json: bool) -> None:
    """Write a new signing key (ECDSA P-256, encrypted PEM, mode 0600) to FILE, outside of any working tree.

    The passphrase is read from MLSEAL_KEY_PASSPHRASE, from the file that MLSEAL_KEY_PASSPHRASE_FILE names, or from the
    terminal. Nothing is overwritten.

    \b
    Example: mlseal key new ~/keys/release.pem
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    from mlseal.evidence import publickey
    from mlseal.evidence.signing import keyuri

    _require_outside(file)
    secret = keyuri.passphrase(f"new passphrase of {file}")
    if len(secret) < _LEAST:
        raise Misuse("the passphrase is too short", got=f"{len(secret)} characters", expected=f"at least {_LEAST}")
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(secret))
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise DuplicateName(f"{file} exists", expected="a new file", remedy="choose another name") from None
    except OSError as error:
        raise Unreadable(f"cannot write {file}", got=error.strerror, remedy="check the path") from error
    with os.fdopen(handle, "wb") as opened:
        opened.write(pem)
        opened.flush()
        os.fsync(handle)
    fingerprint = publickey.fingerprint(private.public_key())
    say(
        as_json,
        {"uri": f"file2:{file}", "fingerprint": fingerprint},
        f"wrote {file}, which opens as file2:{file}\nfingerprint {fingerprint}",
    )


@key.command("show")
@click.argument("which", metavar="URI|FILE")
@click.option("-o", "--output", type=_PATH, help="Also write the public key (PEM) there, for stock verifiers.")
@JSON
def show(which: str, output: Path | None, as_json: bool) -> None:
    """Show the fingerprint of the key at a URI, or of a public key in a PEM FILE, and the line for a policy.

    \b
    Example: mlseal key show file2:$HOME/keys/release.pem
             mlseal key show awskms:alias/release -o release.pub
             mlseal key show release.pub
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from mlseal.evidence import publickey
    from mlseal.evidence.bundle import write_atomic
    from mlseal.evidence.signing import keyuri

    by_uri = which.partition(":")[0] in keyuri.SCHEMES
    public = keyuri.open_key(which).public if by_uri else publickey.from_pem(_read(Path(which)))
    fingerprint, pem = publickey.fingerprint(public), publickey.pem(public)
    if output is not None:
        write_atomic(output, pem)
    by = f'by: [{{key: "{fingerprint}"}}]'
    facts = {"fingerprint": fingerprint, "by": by, "hint": publickey.hints(public)[0], "publicKey": pem.decode()}
    say(as_json, facts, f"fingerprint  {fingerprint}\nin a policy  {by}")


@key.command("allow")
@click.argument("fingerprint", required=False)
@click.option("--revoke", is_flag=True, help="Strike the key off instead; what it logged stays.")
@click.option("--state", type=_PATH, help="The trust service's directory; default: by the trust root in force.")
@JSON
def allow(fingerprint: str | None, revoke: bool, state: Path | None, as_json: bool) -> None:
    """Let entries that the key with FINGERPRINT signs into the log of this machine's trust service; or list such keys.

    The owner's own entries, through the unix socket, need no list. Run by the owner of the service. List a key in one
    log only, and strike a stolen one off at once: no policy undoes what it logs.
    """
    from mlseal.services import setup
    from mlseal.services.allowed import AllowedKeys

    keys = AllowedKeys(setup.authority_of(state).directory / "keys.json")
    if fingerprint is None:
        if revoke:
            raise Misuse("name the key to strike off", remedy="mlseal key allow --revoke sha256:…")
        listed = keys.read()
    else:
        listed = keys.remove(fingerprint) if revoke else keys.add(fingerprint)
    say(as_json, {"keys": listed}, "\n".join(listed) or "the log takes entries of no key, but the owner's")


def _require_outside(file: Path) -> None:
    """Keys in a working tree would be committed, copied and mounted with it."""
    for folder in Path(os.path.realpath(file)).parents:
        project = (folder / ".mlseal").exists() and folder != Path.home()
        if project or any((folder / name).exists() for name in (".git", ".dvc")):
            raise Misuse(
                f"{file} lies in the working tree {folder}",
                expected="a place that is not committed, copied or mounted with a project",
                remedy="choose a path outside of it, such as ~/keys/release.pem",
            )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(64 * 1024)
    except OSError as error:
        raise Unreadable(
            f"cannot read {path}", got=error.strerror, expected="a public key in PEM, or a URI such as file2:PATH"
        ) from error
