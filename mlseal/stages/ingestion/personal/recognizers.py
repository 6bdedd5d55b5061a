"""What is looked for, and by what: Presidio's recognizers for identifiers of people in the United States, and ours.

Presidio knows no medical record number, no street address and no date of birth, and its small model misses many names.
The recognizers here go by what stands around in clinical writing: "MRN", "born", "Dr.", a street's suffix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

DATE_OF_BIRTH = "DATE_OF_BIRTH"
RECORD = "MEDICAL_RECORD_NUMBER"
ADDRESS = "STREET_ADDRESS"
KINDS = (
    "CREDIT_CARD",
    DATE_OF_BIRTH,
    "EMAIL_ADDRESS",
    "IBAN_CODE",
    "IP_ADDRESS",
    "LOCATION",
    RECORD,
    "PERSON",
    "PHONE_NUMBER",
    ADDRESS,
    "US_DRIVER_LICENSE",
    "US_PASSPORT",
    "US_SSN",
)
"""The kinds that are looked for, by Presidio's names and three of ours."""

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec)[a-z]*\.?"
_DATE = (
    r"(?:\d{1,2}[/.-]\d{1,2}[/.-](?:19|20)?\d{2}|(?:19|20)\d{2}[/.-]\d{1,2}[/.-]\d{1,2}"
    rf"|{_MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?,?\s+(?:19|20)\d{{2}}|\d{{1,2}}(?:st|nd|rd|th)?\s+{_MONTH},?\s+(?:19|20)\d{{2}})"
)
_BIRTH = r"(?:d\.?\s?o\.?\s?b\.?|date of birth|birth\s?date|birthday|born(?: on)?)"
_SUFFIX = (
    r"(?:street|st|avenue|ave|road|rd|boulevard|blvd|drive|dr|lane|ln|court|ct|place|pl|terrace|ter|way|circle|cir"
    r"|parkway|pkwy|highway|hwy|square|sq|trail|trl|alley|row|loop)"
)
_UNIT = r"(?:,?\s*(?:apt|apartment|suite|ste|unit|floor|fl|room|rm|#)\.?\s*#?\s*[\w-]{1,6})?"
_TOWN = r"(?:,\s*[a-z][a-z .'\u2019-]{1,30})?(?:,\s*[a-z]{2})?(?:\s+\d{5}(?:-\d{4})?)?"
_LABEL = (
    r"(?:MRN|M\.R\.N\.|medical record(?: number| no\.?| #)?|record (?:number|no\.?)|chart(?: number| no\.?| #)"
    r"|patient (?:id|number|no\.?)|hospital (?:id|number|no\.?))"
)
_WORD = r"\p{Lu}[\p{L}'\u2019-]+"
_NAME = rf"(?:{_WORD},\s+)?{_WORD}(?:\s+\p{{Lu}}\.)?(?:\s+{_WORD}){{0,3}}"
_BEFORE = (
    r"(?:[Pp]atient|[Pp]t\.?|[Nn]ame|[Aa]ttending|[Mm]other|[Ff]ather|[Ww]ife|[Hh]usband|[Dd]aughter|[Ss]on|[Ss]ister"
    r"|[Bb]rother|[Ss]pouse|[Pp]artner|[Ee]mergency contact|[Ss]igned(?: by)?|[Rr]eferred by|[Ss]een by|[Cc]alled"
    r"|[Nn]urse)"
)
_RECORDS = {
    "labelled": (rf"(?<=\b{_LABEL}\s?(?:is|:|#|-)?\s{{0,2}}#?)[a-z]{{0,3}}-?\d{{4,10}}(?:-\d{{1,4}})?\b", 0.9),
    "bare": (r"\b[a-z]{0,3}-?\d{6,10}\b", 0.1),
}
_BIRTHS = {
    "labelled": (rf"(?<=\b{_BIRTH}\s?(?::|is|was|-)?\s{{0,2}}){_DATE}\b", 0.9),
    "bare": (rf"\b{_DATE}\b", 0.1),
}
_ADDRESSES = {
    "street": (rf"\b\d{{1,6}}[a-z]?\s+(?:[\w.'\u2019-]+\s+){{1,4}}?{_SUFFIX}\b\.?{_UNIT}{_TOWN}", 0.6),
    "box": (rf"\bp\.?\s?o\.?\s+box\s+\d+{_TOWN}", 0.7),
}
_PHONES = {"american": (r"(?<![\d-])(?:\+?1[-. ])?(?:\(\d{3}\)\s?|\d{3}[-. ])\d{3}[-. ]\d{4}(?!\d)", 0.5)}
_PERSONS = {
    "title": (rf"(?<=\b(?:Dr|Mr|Mrs|Ms|Miss|Prof|Nurse|Sister)\.?\s){_NAME}", 0.7),
    "role": (rf"(?<=\b{_BEFORE}(?::|,|\sis|\swas)?\s){_NAME}", 0.5),
}
"""Pattern → regular expression and score; a bare number or date counts only where the words around it support it."""


@cache
def build() -> tuple[Any, ...]:
    """The recognizers, in a fixed order, once a process."""
    from presidio_analyzer import predefined_recognizers as stock

    loose = re.IGNORECASE | re.MULTILINE
    return (
        stock.SpacyRecognizer(supported_entities=["PERSON", "LOCATION"]),
        stock.CreditCardRecognizer(),
        _offline_email(),
        stock.IbanRecognizer(),
        stock.IpRecognizer(),
        stock.PhoneRecognizer(),
        stock.UsLicenseRecognizer(),
        stock.UsPassportRecognizer(),
        stock.UsSsnRecognizer(),
        _ours(RECORD, _RECORDS, ["mrn", "record", "chart", "patient id", "hospital number"], loose),
        _ours(DATE_OF_BIRTH, _BIRTHS, ["dob", "birth", "born", "birthday"], loose),
        _ours(ADDRESS, _ADDRESSES, ["address", "lives", "resides", "street"], loose),
        _ours("PHONE_NUMBER", _PHONES, [], loose),
        _ours("PERSON", _PERSONS, [], re.MULTILINE),
    )


def _ours(kind: str, patterns: Mapping[str, tuple[str, float]], context: list[str], flags: int) -> Any:
    from presidio_analyzer import Pattern, PatternRecognizer

    listed = [Pattern(name, regex, score) for name, (regex, score) in patterns.items()]
    return PatternRecognizer(kind, name=f"mlseal {kind}", patterns=listed, context=context, global_regex_flags=flags)


def _offline_email() -> Any:
    """Presidio's recognizer, without the list of suffixes that it would fetch from the network."""
    import tldextract
    from presidio_analyzer.predefined_recognizers import EmailRecognizer

    suffixes = tldextract.TLDExtract(cache_dir=None, suffix_list_urls=())

    class OfflineEmail(EmailRecognizer):
        """Asks the list that tldextract ships."""

        def validate_result(self, pattern_text: str) -> bool:
            """Whether the address ends in a registered domain."""
            return bool(suffixes(pattern_text).fqdn)

    return OfflineEmail()


_DIGITS = {
    "CreditCardRecognizer": 12,
    "IbanRecognizer": 2,
    "PhoneRecognizer": 7,
    "UsLicenseRecognizer": 1,
    "UsPassportRecognizer": 8,
    "UsSsnRecognizer": 9,
    f"mlseal {RECORD}": 4,
    f"mlseal {DATE_OF_BIRTH}": 3,
    f"mlseal {ADDRESS}": 1,
    "mlseal PHONE_NUMBER": 10,
}
"""Recognizer → the fewest digits that anything it finds has; a test compares findings with and without."""


_WORDS = {
    f"mlseal {RECORD}": "mrn|m\\.r\\.n|record|chart|patient|hospital",
    f"mlseal {DATE_OF_BIRTH}": "birth|born|d\\.?\\s?o\\.?\\s?b",
    f"mlseal {ADDRESS}": rf"\b{_SUFFIX}\b|\bbox\b",
    "mlseal PERSON": rf"\b(?:dr|mr|mrs|ms|miss|prof|nurse|sister)\b|\b{_BEFORE}",
}
"""Recognizer → what stands in every text in which it finds something, whatever the case; its context words included."""


def worth(recognizer: Any, context: Sequence[str]) -> Callable[[str, int, bool], bool]:
    """Whether a text (itself, its number of digits, whether it has a letter) can hold what `recognizer` finds."""
    name = recognizer.name
    fewest = _DIGITS.get(name, 0)
    if name in _WORDS:
        found = re.compile(_WORDS[name], re.IGNORECASE).search
        supported = any(word in beside.lower() for beside in context for word in recognizer.context or ())
        return lambda text, digits, letters: digits >= fewest and (supported or (letters and found(text) is not None))
    if name in _DIGITS:
        return lambda _, digits, __: digits >= fewest
    if name == "IpRecognizer":
        return lambda text, _, __: ":" in text or text.count(".") >= 3
    if isinstance(recognizer, _email_class()):
        return lambda text, _, __: "@" in text
    return lambda _, __, letters: letters


def _email_class() -> Any:
    from presidio_analyzer.predefined_recognizers import EmailRecognizer

    return EmailRecognizer
