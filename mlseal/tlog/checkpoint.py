"""Checkpoints: what a log signs about its tree (https://c2sp.org/tlog-checkpoint over https://c2sp.org/signed-note).

    log1.example.org                                   origin, also the name on the log's signature line
    20852163                                           entries
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=       root
                                                       (extension lines may follow; signed, and ignored here)
    — log1.example.org Az3grlgtzPICa5OS8npVmf1M…       base64 of key id and signature; witnesses add lines

`open_note` is stricter than stock verifiers, which accept a checkpoint of another origin, or under another name,
as long as the log's key signed it.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mlseal.errors import ForgedEvidence, MalformedEvidence, Misuse, UntrustedSigner
from mlseal.tlog.hashing import EMPTY_ROOT, HASH_SIZE

ED25519 = 0x01
"""Signature type of an Ed25519 log key (signed-note); 0x04 and 0x06 are those of witnesses."""

KEY_ID_SIZE = 4
"""Leading bytes of `key_id` that stand on a signature line."""

MAX_NOTE = 1 << 16
"""Largest note that is parsed, in characters: room for a hundred signatures of any type, not for a flood."""

MAX_SIGNATURES = 100
"""Most signature lines in a note; the bound of the reference implementation."""

MAX_SIZE = (1 << 63) - 1
"""Largest tree size (tlog-checkpoint)."""

NoteSignature = tuple[str, bytes, bytes]
"""Name, four-byte key id and signature of one line."""

_DASH = "\u2014"
_NAME = re.compile(r"[^\s+\x00-\x1f\x7f]+")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_UNWRITABLE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Checkpoint:
    """A log's claim that its first `size` entries make the tree with `root`."""

    origin: str
    """Name of the log, unique in the world and never reused with another key."""
    size: int
    root: bytes

    def body(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def key_id(name: str, sigtype: int, raw_key: bytes) -> bytes:
    """Full 32-byte id of a key (Rekor's ``logId.keyId``); its first four bytes stand on signature lines."""
    return sha256(name.encode() + b"\n" + bytes([sigtype]) + raw_key).digest()


def sign(key: Ed25519PrivateKey, checkpoint: Checkpoint) -> str:
    """The checkpoint as a note signed by the log's key under the log's origin.

    Raises:
        Misuse: the origin cannot stand on a signature line, or size or root cannot stand in a checkpoint.
    """
    if _NAME.fullmatch(checkpoint.origin) is None:
        raise Misuse("log origin cannot name a key", got=repr(checkpoint.origin), expected="no spaces, no plus sign")
    if not 0 <= checkpoint.size <= MAX_SIZE or len(checkpoint.root) != HASH_SIZE:
        raise Misuse("not a checkpoint", got=checkpoint, expected=f"size up to {MAX_SIZE}, root of {HASH_SIZE} bytes")
    body = checkpoint.body()
    short_id = key_id(checkpoint.origin, ED25519, key.public_key().public_bytes_raw())[:KEY_ID_SIZE]
    signature = base64.b64encode(short_id + key.sign(body.encode())).decode()
    return f"{body}\n{_DASH} {checkpoint.origin} {signature}\n"


def open_note(note: str, origin: str, raw_public_key: bytes) -> Checkpoint:
    """The checkpoint in `note`, accepted once all of these hold.

    1. the note and its checkpoint keep their formats;
    2. exactly one line is by the log's key, and it carries the log's name; no other name uses that key's id;
    3. its signature is over this text;
    4. the text speaks for `origin`.

    Lines by other keys, such as witnesses, are left alone.

    Raises:
        MalformedEvidence: (1) fails.
        UntrustedSigner: (2) or (4) fails: the note is not, or not clearly, this log's.
        ForgedEvidence: (3) fails.
        Misuse: the key is not an Ed25519 key.
    """
    # (1): formats
    text, signatures = split_note(note)
    checkpoint = _parse_body(text)
    # (2): one line, ours by name and by key
    short_id = key_id(origin, ED25519, raw_public_key)[:KEY_ID_SIZE]
    ours = [(name, signature) for name, line_id, signature in signatures if line_id == short_id]
    if [name for name, _ in ours] != [origin]:
        raise UntrustedSigner(
            "checkpoint is not signed by exactly this log",
            got=", ".join(f"{name} {line_id.hex()}" for name, line_id, _ in signatures),
            expected=f"one line of {origin} {short_id.hex()}",
        )
    # (3): the signature
    try:
        _public_key(raw_public_key).verify(ours[0][1], text.encode())
    except InvalidSignature as error:
        raise ForgedEvidence("the log's signature does not cover this checkpoint", got=_first_line(text)) from error
    # (4): the origin
    if checkpoint.origin != origin:
        raise UntrustedSigner("checkpoint speaks for another log", got=checkpoint.origin, expected=origin)
    return checkpoint


def parse_note(note: str) -> tuple[Checkpoint, list[NoteSignature]]:
    """The checkpoint and signature lines of a note, none of them verified.

    Raises:
        MalformedEvidence: the note or its checkpoint breaks its format.
    """
    text, signatures = split_note(note)
    return _parse_body(text), signatures


def split_note(note: str) -> tuple[str, list[NoteSignature]]:
    """Text and signature lines of any signed note, unverified; the last blank line parts them.

    Raises:
        MalformedEvidence: not a signed note.
    """
    text, blank, lines = note.rpartition("\n\n")
    if not blank or not text or not lines.endswith("\n") or len(note) > MAX_NOTE or _UNWRITABLE.search(note):
        raise MalformedEvidence("not a signed note", got=_first_line(note), expected="text, a blank line, signatures")
    signatures = lines[:-1].split("\n")
    if len(signatures) > MAX_SIGNATURES:
        raise MalformedEvidence(
            "note has too many signatures", got=len(signatures), expected=f"at most {MAX_SIGNATURES}"
        )
    return text + "\n", [_parse_signature(line) for line in signatures]


def _parse_signature(line: str) -> NoteSignature:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    blob = _decode(encoded)
    if dash != _DASH or _NAME.fullmatch(name) is None or blob is None or len(blob) <= KEY_ID_SIZE:
        raise MalformedEvidence("malformed signature line in a note", got=_first_line(line))
    return name, blob[:KEY_ID_SIZE], blob[KEY_ID_SIZE:]


def _parse_body(text: str) -> Checkpoint:
    origin, *rest = text[:-1].split("\n")
    if not origin or len(rest) < 2 or "" in rest:  # size and root
        raise MalformedEvidence("not a checkpoint", got=_first_line(text), expected="origin, size and root lines")
    root = _decode(rest[1])
    if _SIZE.fullmatch(rest[0]) is None or int(rest[0]) > MAX_SIZE:
        raise MalformedEvidence("checkpoint has a malformed size", got=rest[0][:40], expected=f"0 to {MAX_SIZE}")
    if root is None or len(root) != HASH_SIZE:
        raise MalformedEvidence("checkpoint has a malformed root", got=rest[1][:100], expected="base64 of 32 bytes")
    size = int(rest[0])
    if size == 0 and root != EMPTY_ROOT:
        raise MalformedEvidence(
            "checkpoint of an empty log has a wrong root", got=root.hex(), expected=EMPTY_ROOT.hex()
        )
    return Checkpoint(origin, size, root)


def _public_key(raw: bytes) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(raw)
    except ValueError as error:
        raise Misuse("log key is not a raw Ed25519 key", got=f"{len(raw)} bytes", expected="32 bytes") from error


def _decode(encoded: str) -> bytes | None:
    """Bytes of canonical base64, else None: one value must have one spelling."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode() == encoded else None


def _first_line(text: str) -> str:
    return repr(text.partition("\n")[0][:100])
