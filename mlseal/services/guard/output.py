"""Personal data in answers: found by Presidio's pattern recognizers, then masked or the answer withheld.

Only what has a form is found: addresses of e-mail and machines, card, bank, telephone and social security numbers.
Names, places and numbers that are not written as text pass. No language model is loaded, so an answer without text
costs nothing and one with text little.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mlseal.errors import Refusal
from mlseal.stages.base import require

if TYPE_CHECKING:
    from presidio_analyzer import EntityRecognizer

KINDS = ("CREDIT_CARD", "EMAIL_ADDRESS", "IBAN_CODE", "IP_ADDRESS", "PHONE_NUMBER", "US_SSN")
_SCORE = 0.4  # what Presidio gives a telephone number without words around it that speak for one


class Withheld(Refusal):
    """The answer holds personal data and the settings say to withhold it."""


class Output:
    """Looks at every text of an answer.

    Args:
        action: ``mask``, ``refuse`` or ``off``.
    """

    def __init__(self, action: str) -> None:
        self._action = action
        self._recognizers = _recognizers() if action != "off" else ()
        self._masked = lru_cache(maxsize=4096)(self._mask)

    def filtered(self, answer: Any) -> tuple[Any, int]:
        """`answer` without personal data, and how many pieces were masked. Raises `Withheld`."""
        if self._action == "off":
            return answer, 0
        made, count = self._walk(answer)
        if count and self._action == "refuse":
            raise Withheld("the answer holds personal data", got=f"{count} pieces", remedy="ask the model's operator")
        return made, count

    def _walk(self, value: Any) -> tuple[Any, int]:
        if isinstance(value, str):
            return self._masked(value)
        if isinstance(value, dict):
            parts = {key: (self._masked(key), self._walk(part)) for key, part in value.items()}
            count = sum(key[1] + part[1] for key, part in parts.values())
            return {key[0]: part[0] for key, part in parts.values()}, count
        if isinstance(value, list):
            parts_ = [self._walk(part) for part in value]
            return [part for part, _ in parts_], sum(count for _, count in parts_)
        return value, 0

    def _mask(self, text: str) -> tuple[str, int]:
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
