"""Personal data in answers: found by Presidio's pattern recognizers, then masked or the answer withheld.

Only what has a form is found: addresses of e-mail and machines, card, bank, telephone and social security numbers, as
they stand and in a plain form (NFKC, plain digits, dashes and spaces, no invisible characters). Names, places and
numbers that are not written as text pass; so does what is encoded (base64, "at" in words) or spread over several
fields. No language model is loaded, so an answer without text costs nothing and one with text little.
"""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mlseal.errors import Refusal, ServiceUnavailable
from mlseal.stages.base import require

if TYPE_CHECKING:
    from presidio_analyzer import EntityRecognizer

KINDS = ("CREDIT_CARD", "EMAIL_ADDRESS", "IBAN_CODE", "IP_ADDRESS", "PHONE_NUMBER", "US_SSN")
LONGEST = 100_000
"""Characters that are searched in one answer if nobody says otherwise; the slowest digits take 0.14 ms each."""
_SHORT, _KNOWN = 256, 4096
_SCORE = 0.4  # what Presidio gives a telephone number without words around it that speak for one


class Withheld(Refusal):
    """The answer holds personal data and the settings say to withhold it."""


class Unsearched(ServiceUnavailable):
    """The answer is too long to be searched for personal data."""

    http_status = 502


class Output:
    """Looks at every text of an answer. Thread-safe.

    Short texts in which nothing was found are known again by a keyed digest, for most models answer in a few words; no
    text is kept, with personal data or without.

    Args:
        action: ``mask``, ``refuse`` or ``off``.
    """

    def __init__(self, action: str) -> None:
        self._action = action
        self._recognizers = _recognizers() if action != "off" else ()
        self._key, self._clean = secrets.token_bytes(16), set[bytes]()

    def filtered(self, answer: Any, longest: int = LONGEST) -> tuple[Any, int]:
        """`answer` without personal data, and how many pieces were masked.

        Raises `Withheld`, and `Unsearched` if the answer's texts have more than `longest` characters.
        """
        if self._action == "off":
            return answer, 0
        if (length := _length(answer)) > longest:
            kind = Withheld if self._action == "refuse" else Unsearched
            raise kind("the answer is too long to be searched", got=f"{length} characters", expected=f"{longest}")
        made, count = self._walk(answer)
        if count and self._action == "refuse":
            raise Withheld("the answer holds personal data", got=f"{count} pieces", remedy="ask the model's operator")
        return made, count

    def _walk(self, value: Any) -> tuple[Any, int]:
        if isinstance(value, str):
            return self._masked(value)
        if isinstance(value, dict):
            parts = {key: (self._masked(key), self._walk(part)) for key, part in value.items()}
            made = {key[0]: part[0] for key, part in parts.values()}
            if len(made) != len(value):
                raise Withheld("masked, two keys of the answer would be the same", remedy="ask the model's operator")
            return made, sum(key[1] + part[1] for key, part in parts.values())
        if isinstance(value, list):
            parts_ = [self._walk(part) for part in value]
            return [part for part, _ in parts_], sum(count for _, count in parts_)
        return value, 0

    def _masked(self, text: str) -> tuple[str, int]:
        if len(text) > _SHORT:
            return self._mask(text)
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=16).digest()
        if digest in self._clean:
            return text, 0
        made, count = self._mask(text)
        if not count:
            if len(self._clean) >= _KNOWN:
                self._clean = set()
            self._clean.add(digest)
        return made, count

    def _mask(self, text: str) -> tuple[str, int]:
        """As it stands, then in its plain form, which is what is passed on if more is found there."""
        made, count = self._replaced(text)
        if not made.isascii() and (plain := "".join(map(_plain, unicodedata.normalize("NFKC", made)))) != made:
            again, more = self._replaced(plain)
            if more:
                return again, count + more
        return made, count

    def _replaced(self, text: str) -> tuple[str, int]:
        spans: list[tuple[int, int, str]] = []
        for recognizer in self._recognizers:
            found = recognizer.analyze(text, recognizer.supported_entities, None) or []
            spans += [(hit.start, hit.end, hit.entity_type) for hit in found if hit.score >= _SCORE]
        made, end, count = [], 0, 0
        for start, stop, kind in sorted(spans):
            if start >= end:
                made += [text[end:start], f"<{kind}>"]
                count += 1
            end = max(end, stop)
        return "".join([*made, text[end:]]), count


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(len(key) + _length(part) for key, part in value.items())
    return sum(map(_length, value)) if isinstance(value, list) else 0


def _plain(character: str) -> str:
    """A digit, dash or space of any script as the recognizers know it; nothing for what is invisible."""
    kind = "" if character.isascii() else unicodedata.category(character)
    if kind == "Nd":
        return str(unicodedata.decimal(character))
    return {"Cf": "", "Pd": "-", "Zs": " "}.get(kind, character)


@lru_cache(maxsize=1)
def _recognizers() -> tuple[EntityRecognizer, ...]:
    require("presidio_analyzer", "pii")
    from presidio_analyzer import predefined_recognizers as predefined

    # Presidio's own check of the domain asks the network for a list of public suffixes, and would let an address
    # inside an organisation (…@hospital.local) pass for none.
    email = predefined.EmailRecognizer()
    email.validate_result = lambda _: None

    return (
        predefined.CreditCardRecognizer(),
        email,
        predefined.IbanRecognizer(),
        predefined.IpRecognizer(),
        predefined.PhoneRecognizer(),
        predefined.UsSsnRecognizer(),
    )
