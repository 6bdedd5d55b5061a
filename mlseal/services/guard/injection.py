"""Texts that look like instructions to a language model. A signal with known holes, not a defence.

The text is brought to a plain form first (NFKC, no invisible characters, spaced letters joined, base64 runs read), then
split into sentences, and each is held against a few rules. What is said in other words, in another language or in a
picture passes; texts *about* such instructions are caught. How often either happens on your traffic is for
`inference.guard` to measure.
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
        r"<\|(?:im_start|im_end|system|endoftext)\|>|\[/?inst\]|<<sys>>|(?:^|\n)\s*#{0,3}\s*(?:system|assistant)\s*:"
    ),
    "exfiltration": re.compile(
        r"\b(?:send|post|forward|e-?mail|upload|exfiltrate)\b.{0,60}\b(?:password|credential|api key|secret|token|"
        r"conversation|patient record)s?\b.{0,60}(?:https?://|@)|!\[[^\]]{0,60}\]\(https?://[^)]{0,200}\?"
    ),
}
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n{2,}")
_SPACED = re.compile(r"\b(?:\w[ .\-_*]){4,60}\w\b")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{24,4096}={0,2}")
_LONGEST = 200_000


def rule_of(text: str) -> str | None:
    """The first rule that a sentence of `text` fits; None if none does."""
    for form in _forms(text[:_LONGEST]):
        for name, rule in RULES.items():
            if any(rule.search(sentence) for sentence in (*_SENTENCE.split(form), form[:2000])):
                return name
    return None


def _forms(text: str) -> Iterator[str]:
    plain = _plain(text)
    yield plain
    joined = _SPACED.sub(lambda match: re.sub(r"[ .\-_*]", "", match[0]), plain)
    if joined != plain:
        yield joined
    for match in _BASE64.finditer(text):
        run = match[0]
        try:
            read = base64.b64decode(run + "=" * (-len(run) % 4), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            continue
        yield _plain(read)


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(c for c in folded if c == "\n" or unicodedata.category(c) not in {"Cf", "Cc", "Mn"})
    return re.sub(r"[^\S\n]+", " ", kept)
