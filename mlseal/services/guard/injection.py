"""Texts that look like instructions to a language model. A signal with known holes, not a defence.

The text is brought to a plain form first (NFKC, no accents or invisible characters, controls and underscores as
spaces; also with line breaks as spaces, spaced letters joined, base64 runs read), then split into sentences, and each
is held against a few rules. What is said in other words, in another language, in letters of another script that look
alike or in a picture passes; texts *about* such instructions are caught. How often either happens on your traffic is
for `inference.guard` to measure.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterator

_TARGET = r"(?:instruction|prompt|rule|message|direction|guideline|context|command)s?"
_EARLIER = r"(?:previous|prior|above|earlier|preceding|foregoing|former|system|initial|original)"
RULES: dict[str, re.Pattern[str]] = {
    "override": re.compile(
        rf"\b(?:ignore|disregard|forget|skip|override|drop)\b.{{0,40}}\b(?:{_EARLIER}\b.{{0,20}}\b{_TARGET}|"
        rf"(?:all|your|any|every|these|those) (?:of )?(?:your |the |these )?{_TARGET})\b"
    ),
    "reveal": re.compile(
        r"\b(?:reveal|show|print|repeat|output|display|tell me|give me|leak|what (?:is|are))\b.{0,30}"
        rf"\b(?:system|hidden|secret|initial|developer|original)\b.{{0,12}}\b{_TARGET}\b"
    ),
    "persona": re.compile(
        r"\b(?:you are now|act as|pretend (?:to be|you are)|roleplay as|from now on you)\b.{0,60}"
        r"\b(?:dan|jailbroken|unrestricted|unfiltered|uncensored|evil|developer mode|no (?:rules|restrictions|limits)|"
        r"without (?:any )?(?:rules|restrictions|filters|limits))\b"
    ),
    "mode": re.compile(r"\b(?:do anything now|developer mode (?:enabled|on)|jailbreak(?:ed)? mode|god mode enabled)\b"),
    "safety": re.compile(
        r"\b(?:bypass|disable|turn off|circumvent|switch off)\b.{0,30}"
        r"\b(?:safety|content|security|moderation)?\s?(?:filter|guardrail|guideline|restriction|polic(?:y|ie)|check)s?\b"
    ),
    "markers": re.compile(
        r"<\|(?:im[_ ]start|im[_ ]end|system|endoftext)\|>|\[/?inst\]|<<sys>>|(?:^|\n) ?#{0,3} ?(?:system|assistant) ?:"
    ),
    "exfiltration": re.compile(
        r"\b(?:send|post|forward|e-?mail|upload|exfiltrate)\b.{0,60}\b(?:password|credential|api key|secret|token|"
        r"conversation|patient record)s?\b.{0,60}(?:https?://|@)|!\[[^\]]{0,60}\]\(https?://[^)]{0,200}\?"
    ),
}
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n{2,}")
_SPACED = re.compile(r"\b(?:\w[ .\-*]){4,60}\w\b")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{24,4096}={0,2}")
_ASCII = {code: " " for code in (*range(32), 127, ord("_")) if code != ord("\n")}
LONGEST = 200_000
"""Characters of a text that are looked at; a longer one fires, for its end would be read by the model alone."""
TOO_LONG = "too long"
_PIECE, _OVERLAP = 8192, 512  # no rule reaches further than the overlap, and no search holds the interpreter for long


def rule_of(text: str) -> str | None:
    """The first rule that a sentence of `text` fits, `TOO_LONG` for a text that is not read to its end, else None.

    Takes time in proportion to the length: each rule has bounded repetitions only.
    """
    if len(text) > LONGEST:
        return TOO_LONG
    for form in _forms(text):
        if len(form) > 2 * LONGEST:  # a character of U+FDFA makes 18 of it
            return TOO_LONG
        for piece in _pieces(form):
            for name, rule in RULES.items():
                if rule.search(piece):
                    return name
    return None


def _pieces(form: str) -> Iterator[str]:
    """The sentences, and the beginning as a whole; long ones in parts that overlap."""
    for sentence in (*_SENTENCE.split(form), form[:2000]):
        yield from (sentence[start : start + _PIECE] for start in range(0, len(sentence), _PIECE - _OVERLAP))


def _forms(text: str) -> Iterator[str]:
    plain = _plain(text)
    yield plain
    if not text.isascii() and (apart := _plain(text, invisible=" ")) != plain:
        yield apart
    flat = re.sub(r"\s+", " ", plain)
    if flat != plain:
        yield flat
    joined = _SPACED.sub(lambda match: re.sub(r"[ .\-*]", "", match[0]), flat)
    if joined != flat:
        yield joined
    for match in _BASE64.finditer(text):
        run = match[0]
        try:
            read = base64.b64decode(run + "=" * (-len(run) % 4), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            continue
        yield _plain(read)


def _plain(text: str, invisible: str = "") -> str:
    """Lower case without accents; controls and underscores are spaces, runs of them one; `invisible` for what is so."""
    spaced = text.replace("\r\n", "\n").replace("\r", "\n").translate(_ASCII)
    if not spaced.isascii():
        folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", spaced).casefold())
        spaced = "".join(_kept(character, invisible) for character in folded)
    return re.sub(r"[^\S\n]+", " ", spaced.lower())


def _kept(character: str, invisible: str) -> str:
    kind = "" if character.isascii() else unicodedata.category(character)
    if kind == "Cf":
        return invisible
    return {"Cc": " ", "Mn": "", "Me": ""}.get(kind, character)
