"""A policy's ``emailDomain`` means addresses, and pseudonyms below exactly that domain; nothing that looks like them."""

import pytest

from mlseal.evidence.identity import EmailDomain, Identity, is_person_uri, person_uri

LOGIN, PSEUDONYM = "https://login.example", "p-" + "a2" * 13
EXPECTED = EmailDomain(LOGIN, "hospital.example")


@pytest.mark.parametrize(
    "san",
    [
        "ana@hospital.example",
        "ana@HOSPITAL.example",
        person_uri("team.example", PSEUDONYM, "hospital.example"),
        person_uri("team.example", PSEUDONYM, "Hospital.Example"),
    ],
)
def test_who_is_of_a_domain(san):
    assert EXPECTED.matches(Identity(LOGIN, san))
    assert not EXPECTED.matches(Identity("https://other.example", san))
    assert not EmailDomain(LOGIN, "example").matches(Identity(LOGIN, san))


@pytest.mark.parametrize(
    "san",
    [
        person_uri("team.example", PSEUDONYM),
        person_uri("team.example", PSEUDONYM, "x.hospital.example"),
        person_uri("team.example", PSEUDONYM, "hospital.example.evil.example"),
        f"https://hospital.example/people/{PSEUDONYM}",
        f"https://hospital.example/people/evil.example/{PSEUDONYM}",
        f"https://team.example/people/hospital.example/{PSEUDONYM}/x",
        f"https://team.example/x/people/hospital.example/{PSEUDONYM}",
        f"https://team.example/people/x/hospital.example/{PSEUDONYM}",
        f"https://team.example/roles/hospital.example/{PSEUDONYM}",
        f"http://team.example/people/hospital.example/{PSEUDONYM}",
        f"https://team.example/people/hospital.example/{PSEUDONYM}\n",
        f"https://team.example/people/hospital.example/{PSEUDONYM[:-1]}",
        f"https://team.example/people/hospital.example/{PSEUDONYM}a",
        f"https://team.example/people/hospital.example/{PSEUDONYM.upper()}",
        "https://team.example/people/hospital.example/ana",
        f"https://team.example:1@x/people/hospital.example/{PSEUDONYM}",
        f"https://ana@team.example/people/hospital.example/{PSEUDONYM}",
        "a@b@hospital.example",
        "@hospital.example",
        "https://x/ana@hospital.example",
    ],
)
def test_who_is_not(san):
    assert not EXPECTED.matches(Identity(LOGIN, san))


def test_the_form_of_a_person():
    assert person_uri("team.example", PSEUDONYM, "a.example") == f"https://team.example/people/a.example/{PSEUDONYM}"
    assert person_uri("team.example", PSEUDONYM) == f"https://team.example/people/{PSEUDONYM}"
    assert is_person_uri(person_uri("team.example", PSEUDONYM))
    assert not is_person_uri(f"https://team.example/roles/reviewer/{PSEUDONYM}")
