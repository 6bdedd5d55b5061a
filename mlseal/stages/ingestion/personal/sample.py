"""Texts in which we know what is personal, made anew from a seed: on these the recall of a scan is measured.

No clinical notes may be shipped, so the sentences are ours and the people made up. A third of the names is chosen to be
hard (names that a model trained on American newspapers seldom saw, small letters, initials), addresses, records and
dates come in several spellings, and some sentences give no hint that a name follows. Recall on other texts differs; the
evidence says so, and names the digest of exactly this sample.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from mlseal.evidence import canonical
from mlseal.stages.ingestion.personal.recognizers import ADDRESS, DATE_OF_BIRTH, RECORD
from mlseal.stages.ingestion.personal.scanner import Span


def _words(text: str) -> list[str]:
    return text.split()


_FIRST = _words(
    "James Mary Robert Linda Michael Susan David Karen Thomas Nancy Daniel Helen Kevin Laura Brian Amy George "
    "Emma Peter Olivia Priya Xiomara Oluwaseun Nguyet Siobhan Thandiwe Rajesh Yusuf Ekaterina Hyun-woo Kwabena "
    "Zofia Mehmet Aaliyah Dmitri Lakshmi Bjorn Itzel Ngozi Saoirse"
)
_LAST = _words(
    "Smith Johnson Brown Miller Davis Wilson Anderson Taylor Moore Clark Lewis Walker Hall Young King Wright "
    "Hill Green Baker Carter Raghunathan Okonkwo Quispe O'Shaughnessy Nguyen Mbeki Venkataraman Kowalczyk "
    "Yilmaz Papadopoulos Abdulrahman Fernandez-Ortiz Szymanski Tsosie Kealoha Begay Adeyemi Thorvaldsen Xiong "
    "Eze"
)
_STREETS = _words(
    "Maple Oak Washington Lakeview Cedar Hill Martin Luther King Jr Sunset Second Old Mill Chestnut Ridge"
)
_ENDINGS = _words("Street St Ave Avenue Road Rd Blvd Drive Lane Court Way Terrace")
_MONTHS = _words("January February March April May June July August September October November December")
_TOWNS = ("Springfield, IL", "Dayton, OH", "Boise, ID", "Macon, GA", "El Paso, TX", "Albany, NY", "Tucson, AZ")
_CITIES = ("Philadelphia", "Chicago", "Houston", "Seattle", "Denver", "Nairobi", "Oaxaca", "Lagos", "Minneapolis")
_HOSTS = ("mail.com", "gmail.com", "hospital.org", "yahoo.com", "clinic.net")

_TEMPLATES = (
    "Patient: {PERSON}, MRN {MEDICAL_RECORD_NUMBER}, DOB {DATE_OF_BIRTH}. Admitted with chest pain, troponin negative.",
    "{PERSON} is a 67-year-old woman with type 2 diabetes who presents with dyspnea on exertion.",
    "Discharge summary for {PERSON}. Medical record number: {MEDICAL_RECORD_NUMBER}. Follow up in two weeks.",
    "Pt seen today by Dr. {PERSON}; blood pressure 142/88, continue lisinopril 10 mg daily.",
    "Called {PERSON} at {PHONE_NUMBER} about the potassium of 5.9; will repeat tomorrow.",
    "Lives alone at {STREET_ADDRESS}. Daughter {PERSON} helps with medication.",
    "Home address {STREET_ADDRESS}, phone {PHONE_NUMBER}, email {EMAIL_ADDRESS}.",
    "Patient born {DATE_OF_BIRTH}, transferred from {LOCATION} for valve replacement.",
    "Spoke with {PERSON} (sister), {PHONE_NUMBER}, who confirms the allergy to penicillin.",
    "Records faxed to {PHONE_NUMBER}, attention {PERSON}.",
    "Insurance verified, SSN {US_SSN}, card on file {CREDIT_CARD}.",
    "mri knee left, {PERSON}, mrn {MEDICAL_RECORD_NUMBER}, no meniscal tear",
    "Social: moved from {LOCATION} last year, works nights, smokes half a pack a day.",
    "Portal message from {EMAIL_ADDRESS}: refill of metformin requested.",
    "Chart no. {MEDICAL_RECORD_NUMBER} reviewed with {PERSON} and the family; comfort measures only.",
    "Date of birth: {DATE_OF_BIRTH}. Weight 81.4 kg, height 172 cm, BMI 27.5.",
    "Login to the portal from {IP_ADDRESS} by {PERSON} at night.",
    "Consent signed by {PERSON}. Witness: {PERSON}.",
    "Please mail the results to {STREET_ADDRESS}.",
    "Thank you for referring {PERSON}, whose echo shows an ejection fraction of 35 percent.",
    "Hemoglobin 9.2, transfused 2 units on 03/14, no reaction; discharge tomorrow if stable.",
    "Follow-up colonoscopy in 5 years. No family history. Vital signs stable, afebrile.",
)


@dataclass(frozen=True)
class Labelled:
    """A made-up text with the spans that are personal in it."""

    text: str
    spans: tuple[Span, ...]


def make(documents: int, seed: int) -> list[Labelled]:
    """`documents` texts, the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311 - made-up people, nothing secret
    return [_fill(rng.choice(_TEMPLATES), rng) for _ in range(documents)]


def digest(labelled: list[Labelled]) -> str:
    """SHA-256 of the RFC 8785 bytes of the texts with their spans."""
    plain = [[one.text, [[s.start, s.end, s.kind] for s in one.spans]] for one in labelled]
    return hashlib.sha256(canonical.dumps(plain)).hexdigest()


def _fill(template: str, rng: random.Random) -> Labelled:
    text, spans = "", []
    rest = template
    while "{" in rest:
        before, _, after = rest.partition("{")
        kind, _, rest = after.partition("}")
        value = _MAKERS[kind](rng)
        spans.append(Span(len(text + before), len(text + before + value), kind))
        text += before + value
    return Labelled(text + rest, tuple(spans))


def _person(rng: random.Random) -> str:
    first, last = rng.choice(_FIRST), rng.choice(_LAST)
    forms = (f"{first} {last}",) * 6 + (f"{last}, {first}", f"{first} {rng.choice('ABCDEGHJKLMNPRST')}. {last}", last)
    name = rng.choice(forms)
    return name.lower() if rng.random() < 0.04 else name.upper() if rng.random() < 0.04 else name


def _record(rng: random.Random) -> str:
    number = rng.randrange(10**5, 10**8)
    return rng.choice((f"{number}", f"{number:08d}", f"H{number}", f"{number:08d}-{rng.randrange(1, 9)}"))


def _date(rng: random.Random) -> str:
    year, month, day = rng.randrange(1928, 2020), rng.randrange(1, 13), rng.randrange(1, 29)
    name = _MONTHS[month - 1]
    return rng.choice(
        (
            f"{month:02d}/{day:02d}/{year}",
            f"{year}-{month:02d}-{day:02d}",
            f"{name} {day}, {year}",
            f"{day} {name[:3]} {year}",
            f"{month}/{day}/{year % 100:02d}",
        )
    )


def _address(rng: random.Random) -> str:
    street = (
        f"{rng.randrange(1, 9999)} {rng.choice(('', '', 'N ', 'West '))}{rng.choice(_STREETS)} {rng.choice(_ENDINGS)}"
    )
    unit = rng.choice(("", "", f", Apt {rng.randrange(1, 40)}", f" #{rng.randrange(1, 40)}"))
    return street + unit + rng.choice(("", f", {rng.choice(_TOWNS)} {rng.randrange(10001, 99999)}"))


def _phone(rng: random.Random) -> str:
    area, middle, end = rng.randrange(201, 989), rng.randrange(200, 999), rng.randrange(10**4)
    return rng.choice(("({}) {}-{:04d}", "{}-{}-{:04d}", "{}.{}.{:04d}", "+1 {} {} {:04d}")).format(area, middle, end)


def _card(rng: random.Random) -> str:
    digits = [4, *(rng.randrange(10) for _ in range(14))]
    total = sum(d if i % 2 else sum(divmod(d * 2, 10)) for i, d in enumerate(digits))
    number = "".join(map(str, [*digits, -total % 10]))
    return rng.choice((number, " ".join(number[i : i + 4] for i in range(0, 16, 4))))


def _ssn(rng: random.Random) -> str:
    return f"{rng.randrange(101, 665):03d}-{rng.randrange(11, 99):02d}-{rng.randrange(1001, 9999):04d}"


def _email(rng: random.Random) -> str:
    return f"{rng.choice(_FIRST)}.{rng.choice(_LAST)}@{rng.choice(_HOSTS)}".lower().replace("'", "")


_MAKERS: dict[str, Callable[[random.Random], str]] = {
    "PERSON": _person,
    RECORD: _record,
    DATE_OF_BIRTH: _date,
    ADDRESS: _address,
    "PHONE_NUMBER": _phone,
    "LOCATION": lambda rng: rng.choice(_CITIES),
    "EMAIL_ADDRESS": _email,
    "US_SSN": _ssn,
    "CREDIT_CARD": _card,
    "IP_ADDRESS": lambda rng: ".".join(str(rng.randrange(1, 255)) for _ in range(4)),
}
