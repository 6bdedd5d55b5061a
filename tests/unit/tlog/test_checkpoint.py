"""Checkpoints: what is signed opens, and nothing else does."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mlseal.errors import ForgedEvidence, MalformedEvidence, Misuse, UntrustedSigner
from mlseal.tlog.checkpoint import ED25519, Checkpoint, key_id, open_note, parse_note, sign
from mlseal.tlog.hashing import EMPTY_ROOT

ROOT = bytes(range(32))
DASH = "\u2014"


def raw_sign(key, text, name, *, id_of=None):
    """A note over any text under any name, by a key that need not belong to it."""
    short_id = key_id(id_of or name, ED25519, key.public_key().public_bytes_raw())[:4]
    return f"{text}\n{DASH} {name} {base64.b64encode(short_id + key.sign(text.encode())).decode()}\n"


@pytest.fixture
def checkpoint(origin):
    return Checkpoint(origin, 42, ROOT)


@pytest.fixture
def note(key, checkpoint):
    return sign(key, checkpoint)


def test_what_is_signed_opens(note, origin, raw_key, checkpoint):
    assert open_note(note, origin, raw_key) == checkpoint
    parsed, [(name, short_id, signature)] = parse_note(note)
    assert (parsed, name, len(signature)) == (checkpoint, origin, 64)
    assert short_id == key_id(origin, ED25519, raw_key)[:4]


def test_witness_lines_before_and_after_change_nothing(note, origin, raw_key, checkpoint):
    witness = Ed25519PrivateKey.generate()
    line = raw_sign(witness, checkpoint.body(), "witness.example").rpartition("\n\n")[2]
    same_name = raw_sign(witness, checkpoint.body(), origin).rpartition("\n\n")[2]
    text, _, ours = note.rpartition("\n\n")
    for lines in (line + ours, ours + line, ours + same_name):
        assert open_note(f"{text}\n\n{lines}", origin, raw_key) == checkpoint


def test_extension_lines_are_signed_and_otherwise_ignored(key, origin, raw_key, checkpoint):
    extended = raw_sign(key, checkpoint.body() + "extension 1\n", origin)
    assert open_note(extended, origin, raw_key) == checkpoint
    with pytest.raises(ForgedEvidence):
        open_note(extended.replace("extension 1", "extension 2"), origin, raw_key)


def test_an_empty_log_has_the_empty_root(key, origin, raw_key):
    assert open_note(sign(key, Checkpoint(origin, 0, EMPTY_ROOT)), origin, raw_key).size == 0
    with pytest.raises(MalformedEvidence):
        open_note(sign(key, Checkpoint(origin, 0, ROOT)), origin, raw_key)


@pytest.mark.parametrize("old, new", [("42", "43"), ("AAEC", "AAED")])
def test_altered_text_is_forged(note, origin, raw_key, old, new):
    with pytest.raises(ForgedEvidence):
        open_note(note.replace(old, new), origin, raw_key)


def test_an_altered_signature_is_forged(note, origin, raw_key):
    text, _, line = note.rpartition("\n\n")
    blob = bytearray(base64.b64decode(line.split(" ")[2]))
    blob[20] ^= 1
    with pytest.raises(ForgedEvidence):
        open_note(f"{text}\n\n{DASH} {origin} {base64.b64encode(blob).decode()}\n", origin, raw_key)


def test_stock_verifiers_accept_these_and_we_do_not(key, origin, raw_key, checkpoint, note):
    elsewhere = Checkpoint("other.example", 42, ROOT).body()
    text, _, ours = note.rpartition("\n\n")
    wrong_name = raw_sign(key, checkpoint.body(), "other.example", id_of=origin)
    for bad in (
        raw_sign(key, elsewhere, origin),  # signed by the log's key, speaks for another log
        wrong_name,  # signed by the log's key, under another name
        f"{text}\n\n{ours}{wrong_name.rpartition(chr(10) * 2)[2]}",  # both
        f"{text}\n\n{ours}{ours}",  # which of the two counts?
        raw_sign(Ed25519PrivateKey.generate(), checkpoint.body(), origin),  # the name, another key
    ):
        with pytest.raises(UntrustedSigner):
            open_note(bad, origin, raw_key)


@pytest.mark.parametrize(
    "text",
    [
        "log.example.org\n42\n",
        "log.example.org\n042\n{root}\n",
        "log.example.org\n+42\n{root}\n",
        "log.example.org\n-1\n{root}\n",
        "log.example.org\n\u0664\u0662\n{root}\n",
        "log.example.org\n9223372036854775808\n{root}\n",
        "log.example.org\n42\n{root}=\n",
        "log.example.org\n42\nAAAA\n",
        "log.example.org\n42\n{loose}\n",
        "log.example.org\n42\n {root}\n",
        "log.example.org\n42\n{root}\n\nafter a blank line\n",
        "log.example.org\r\n42\n{root}\n",
        "\n42\n{root}\n",
    ],
)
def test_malformed_checkpoints_are_refused_though_signed(key, origin, raw_key, text):
    root = base64.b64encode(ROOT).decode()
    text = text.format(root=root, loose=root[:-2] + chr(ord(root[-2]) + 1) + "=")
    with pytest.raises(MalformedEvidence):
        open_note(raw_sign(key, text, origin), origin, raw_key)


@pytest.mark.parametrize(
    "change",
    [
        lambda note: "",
        lambda note: note[:-1],
        lambda note: note + "\n",
        lambda note: note.replace("\n\n", "\n"),
        lambda note: note.replace(DASH, "-"),
        lambda note: note.replace(f"{DASH} ", f"{DASH}  "),
        lambda note: note + note.rpartition("\n\n")[2].replace("=\n", "\n"),
        lambda note: note + f"{DASH} short AAAA\n",
        lambda note: note + f"{DASH} name+plus AAAAAAAA\n",
        lambda note: note + f"{DASH} sp\u00a0ace AAAAAAAA\n",
        lambda note: note + f"{DASH} w AAAAAAAA\n" * 100,
        lambda note: note + f"{DASH} w {'A' * 70_000}\n",
        lambda note: "\ud800" + note,
        lambda note: "\x07" + note,
    ],
)
def test_malformed_notes_are_refused(note, origin, raw_key, change):
    with pytest.raises(MalformedEvidence):
        open_note(change(note), origin, raw_key)


def test_what_cannot_be_a_checkpoint_is_not_signed(key):
    for bad in (
        Checkpoint("two words", 1, ROOT),
        Checkpoint("a+b", 1, ROOT),
        Checkpoint("", 1, ROOT),
        Checkpoint("line\nbreak", 1, ROOT),
        Checkpoint("log", -1, ROOT),
        Checkpoint("log", 1 << 63, ROOT),
        Checkpoint("log", 1, ROOT[:31]),
    ):
        with pytest.raises(Misuse):
            sign(key, bad)


def test_a_key_of_another_kind_is_the_callers_mistake(note, origin):
    raw = b"short"
    short_id = key_id(origin, ED25519, raw)[:4]
    text = note.rpartition("\n\n")[0]
    with pytest.raises(Misuse):
        open_note(f"{text}\n\n{DASH} {origin} {base64.b64encode(short_id + bytes(64)).decode()}\n", origin, raw)
