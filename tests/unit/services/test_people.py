"""Who is behind a pseudonym: found again, never made twice, obtained by nobody else, and forgotten when asked."""

import json
import stat
import subprocess
import sys
import time
from datetime import timedelta

import jwt
import pytest

from mlseal.errors import MalformedEvidence, Misuse, Refusal, UnknownName, Unreadable, UntrustedSigner
from mlseal.evidence.clock import utcnow
from mlseal.evidence.identity import PSEUDONYM
from mlseal.services import keys, people
from mlseal.services.issuer import LIFETIME, Grants, LocalIssuer
from mlseal.services.people import People

NAME = "lab.mlseal.local"
ISSUER, LOGIN = f"https://{NAME}/issuer", "https://login.example"
NOBODY = "p-" + "a" * 26


@pytest.fixture
def known(tmp_path):
    directory = tmp_path / "state"
    directory.mkdir()
    return People(directory)


def test_a_person_keeps_the_pseudonym_and_nobody_else_has_it(known):
    alice = known.pseudonym_of(ISSUER, "alice")
    assert PSEUDONYM.fullmatch(alice)
    assert known.pseudonym_of(ISSUER, "alice") == alice
    others = {known.pseudonym_of(ISSUER, "bob"), known.pseudonym_of(LOGIN, "alice")}
    assert len({alice, *others}) == 3
    assert [person.subject for person in known.all() if person.issuer == LOGIN] == ["alice"]


def test_the_name_alone_does_not_give_the_pseudonym(tmp_path):
    """Two authorities, or one that forgot, know the same person under pseudonyms that have nothing in common."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    assert People(one).pseudonym_of(ISSUER, "alice") != People(two).pseudonym_of(ISSUER, "alice")


def test_finding(known):
    alice = known.pseudonym_of(ISSUER, "alice")
    ana = known.pseudonym_of(LOGIN, "u1", login="ana@hospital.example", domain="hospital.example")
    for text, wanted in (
        (alice, alice), ("alice", alice), (f"https://{NAME}/roles/reviewer/{alice}", alice), ("u1", ana), ("ana@hospital.example", ana),
    ):  # fmt: skip
        assert known.find(text).pseudonym == wanted
    known.call("alice", "Alice of the ward")
    assert known.find("Alice of the ward").pseudonym == alice
    known.pseudonym_of(LOGIN, alice)  # whoever calls himself by another's pseudonym is not found in her place
    assert known.find(alice).subject == "alice"
    known.call(ana, "alice")
    with pytest.raises(Misuse, match="2 people"):
        known.find("alice")
    for text in ("nobody", "", NOBODY, "ali%"):
        with pytest.raises(UnknownName):
            known.find(text)
    for bad in ("", " ", "a\nb", "x" * 201):
        with pytest.raises(Misuse):
            known.call(alice, bad)


def test_a_new_address_replaces_the_old_one_and_a_chosen_name_stays(known):
    ana = known.pseudonym_of(LOGIN, "u1", login="canary-old@a.example", domain="a.example")
    assert known.pseudonym_of(LOGIN, "u1", login="ana@b.example", domain="b.example") == ana
    person = known.find(ana)
    assert (person.login, person.domain, person.name) == ("ana@b.example", "b.example", "ana@b.example")
    assert b"canary" not in known.path.read_bytes()
    known.call(ana, "Ana")
    known.pseudonym_of(LOGIN, "u1", login="ana@c.example", domain="c.example")
    assert known.find(ana).name == "Ana"
    assert people.uri("team.example", known.find(ana), "reviewer") == f"https://team.example/people/c.example/{ana}"


def test_erased_is_in_no_file_and_the_same_login_is_somebody_new(known):
    first = known.pseudonym_of(ISSUER, "canary-alice")
    known.call(first, "Canary Persona")
    for number in range(60):  # so that pages fill, split and are freed
        known.pseudonym_of(ISSUER, f"filler-{number}")
        known.pseudonym_of(LOGIN, f"canary-{number}", login=f"canary-{number}@hospital.example")
    mark = known.path.read_bytes()
    assert b"canary-alice" in mark and b"Canary Persona" in mark
    for number in range(60):
        known.erase(f"canary-{number}@hospital.example")
    assert known.erase("Canary Persona").subject == "canary-alice"
    for path in known.path.parent.iterdir():
        assert b"canary" not in path.read_bytes().lower(), path
        assert first.encode() not in path.read_bytes()
    assert known.get(first) is None
    assert len(known.all()) == 60
    assert known.pseudonym_of(ISSUER, "canary-alice") != first
    with pytest.raises(UnknownName):
        known.erase(first)


def test_only_the_owner_can_open_it_from_the_first_moment(known):
    alice = known.pseudonym_of(ISSUER, "alice")
    with known._open() as database, people._transaction(database):
        database.execute("DELETE FROM people")
        beside = [path for path in known.path.parent.iterdir() if path != known.path]
        assert [path.name for path in beside] == ["people.db-journal"]
        assert {stat.S_IMODE(path.stat().st_mode) for path in (known.path, *beside)} == {0o600}
        database.execute("ROLLBACK")
        database.execute("BEGIN")
    assert known.get(alice) is not None
    assert [path.name for path in known.path.parent.iterdir()] == ["people.db"]
    known.path.chmod(0o640)
    for call in (known.all, lambda: known.pseudonym_of(ISSUER, "bob"), lambda: known.erase(alice)):
        with pytest.raises(Refusal, match="open to others"):
            call()


def test_files_that_are_no_store(known, tmp_path):
    known.path.write_bytes(b"not a database" * 100)
    known.path.chmod(0o600)
    with pytest.raises(MalformedEvidence, match="damaged"):
        known.pseudonym_of(ISSUER, "alice")
    known.path.unlink()
    known.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refusal):
        known.pseudonym_of(ISSUER, "alice")
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(Unreadable):
        People(tmp_path / "nowhere").pseudonym_of(ISSUER, "alice")


ADD = """
import json, sys, time
from pathlib import Path
from mlseal.services.people import People
directory = Path(sys.argv[1])
(directory / f"ready-{sys.argv[2]}").touch()
while not (directory / "go").exists():
    time.sleep(0.001)
print(json.dumps([People(directory).pseudonym_of("https://x.example", f"s{n}") for n in range(15)]))
"""


def test_processes_that_ask_at_once_get_one_pseudonym(known):
    directory = known.path.parent
    started = [
        subprocess.Popen([sys.executable, "-c", ADD, str(directory), str(n)], stdout=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    end = time.monotonic() + 60
    while len(list(directory.glob("ready-*"))) < 3:
        assert time.monotonic() < end
        time.sleep(0.01)
    (directory / "go").touch()
    told = [json.loads(process.communicate(timeout=60)[0]) for process in started]
    assert told[0] == told[1] == told[2]
    assert len(known.all()) == len(set(told[0])) == 15


def test_threads_that_ask_at_once_get_one_pseudonym(known):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: People(known.path.parent).pseudonym_of(ISSUER, f"s{n % 4}"), range(64)))
    assert len(set(made)) == len(known.all()) == 4


# --- the authority's own issuer ---------------------------------------------------------------------------------------


@pytest.fixture
def issuer(tmp_path, known):
    made = keys.generate(NAME, 1, utcnow(), utcnow() + timedelta(days=1))
    path = tmp_path / "grants.json"
    path.write_text("{}")
    path.chmod(0o600)
    return LocalIssuer(NAME, made.issuer, Grants(path), 1000, known)


def sub(text):
    claims = jwt.decode(text, options={"verify_signature": False})
    assert "alice" not in json.dumps(claims)
    return claims["sub"].removeprefix(f"https://{NAME}/")


def test_a_person_is_certified_by_pseudonym_and_a_role_as_it_is(issuer, known):
    assert sub(issuer.token("roles/producer", 1000)) == "roles/producer"
    assert not known.path.exists()
    asked = sub(issuer.token("roles/reviewer/alice", 1000))
    alice = known.find("alice").pseudonym
    assert asked == f"roles/reviewer/{alice}"
    assert sub(issuer.token("roles/owner/alice", 1000)) == f"roles/owner/{alice}"
    assert sub(issuer.token(asked, 1000)) == asked
    assert len(known.all()) == 1


def test_a_pseudonym_of_nobody_here_is_not_given_out(issuer, known):
    outside = known.pseudonym_of(LOGIN, "u1")
    for pseudonym in (NOBODY, outside):
        with pytest.raises(UntrustedSigner, match="stands for nobody"):
            issuer.token(f"roles/reviewer/{pseudonym}", 1000)
    assert len(known.all()) == 1


@pytest.mark.parametrize(
    ("glob", "alice", "by_pseudonym", "bob"),
    [
        ("roles/reviewer/alice", True, True, False),
        ("roles/reviewer/*", True, True, True),
        ("roles/reviewer/a*", True, True, False),
        ("roles/reviewer/p*", False, False, False),  # fits the text of every pseudonym, and is a grant for none
        ("roles/reviewer/p-*", False, False, False),
        ("roles/reviewer/{alice}", False, True, False),
        ("roles/owner/alice", False, False, False),
        ("roles/reviewer", False, False, False),
    ],
)
def test_nobody_obtains_the_pseudonym_of_another(issuer, known, glob, alice, by_pseudonym, bob):
    one, two = known.pseudonym_of(ISSUER, "alice"), known.pseudonym_of(ISSUER, "bob")
    issuer._grants.add(7, [glob.format(alice=one)])
    for asked, allowed in (("alice", alice), (one, by_pseudonym), ("bob", bob), (two, bob)):
        if allowed:
            assert sub(issuer.token(f"roles/reviewer/{asked}", 7)).endswith(one if asked in {"alice", one} else two)
        else:
            with pytest.raises(UntrustedSigner, match="may not act as") as caught:
                issuer.token(f"roles/reviewer/{asked}", 7)
            assert asked in {"alice", "bob"} or not {"alice", "bob"} & set(str(caught.value).split("/"))


def test_who_is_refused_is_not_written_down(issuer, known):
    with pytest.raises(UntrustedSigner):
        issuer.token("roles/reviewer/alice", 7)
    assert known.all() == []


def test_after_erasing_the_same_login_is_somebody_new(issuer, known):
    before = sub(issuer.token("roles/reviewer/alice", 1000))
    issuer._grants.add(7, ["roles/reviewer/alice", "roles/gate", before])
    issuer._grants.add(8, ["roles/reviewer/a*", before])
    gone = known.erase("alice")
    assert issuer._grants.forget([gone.pseudonym, gone.subject]) == sorted([before, "roles/reviewer/alice"])
    assert issuer._grants.read() == {"7": ["roles/gate"], "8": ["roles/reviewer/a*"]}
    assert sub(issuer.token("roles/reviewer/alice", 8)) not in {before, "roles/reviewer/alice"}
    for uid in (8, 1000):
        with pytest.raises(UntrustedSigner):
            issuer.token(before, uid)


def test_the_authority_certifies_no_name_even_if_a_token_of_its_own_holds_one(issuer):
    for subject in ("roles/reviewer/alice", "roles/reviewer/p-x"):
        with pytest.raises(UntrustedSigner, match="names a person"):
            issuer.san({"sub": f"https://{NAME}/{subject}"})
    for subject in ("roles/gate", f"roles/reviewer/{NOBODY}"):
        assert issuer.san({"sub": f"https://{NAME}/{subject}"})
    assert timedelta(minutes=10) >= LIFETIME  # how long a token of an erased person may live on


# --- the commands -----------------------------------------------------------------------------------------------------


def told(lab, *args):
    return json.loads(lab.mlseal("trust", "people", *args, "--json").stdout)


def test_the_commands(lab):
    lab.init()
    assert not (lab.state / "people.db").exists()
    assert "nobody yet" in lab.mlseal("trust", "people").stdout
    assert told(lab) == {"people": []}
    added = told(lab, "add", "alice")
    assert added["san"] == f"https://{NAME}/roles/reviewer/{added['pseudonym']}"
    assert added["issuer"] == ISSUER
    assert told(lab, "add", "alice") == added
    assert told(lab, "show", "alice", "--role", "owner")["san"] == f"https://{NAME}/roles/owner/{added['pseudonym']}"
    assert told(lab, "name", added["pseudonym"], "Alice Example")["name"] == "Alice Example"
    assert "Alice Example" in lab.mlseal("trust", "people").stdout
    assert told(lab)["people"][0]["login"] == "alice"
    lab.mlseal("trust", "grant", "--uid", "7", "roles/reviewer/alice")
    unsure = lab.mlseal("trust", "people", "erase", "alice", ok=False)
    assert unsure.returncode == 2 and "--yes" in unsure.stderr
    assert len(told(lab)["people"]) == 1
    erased = lab.mlseal("trust", "people", "erase", "Alice Example", "--yes").stdout
    assert added["pseudonym"] in erased and "log entries" in erased and "link" in erased
    assert told(lab) == {"people": []}
    assert json.loads((lab.state / "grants.json").read_text()) == {}


@pytest.mark.parametrize(
    "args",
    [
        ("add", NOBODY), ("add", "Alice"), ("add", "a/b"), ("show", "nobody"), ("show", "nobody", "--role", "root"), ("name", "nobody", "x"),
        ("erase", "nobody", "--yes"), ("--json", "show", "alice"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_calls(lab, args):
    lab.init()
    done = lab.mlseal("trust", "people", *args, ok=False)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (lab.state / "people.db").exists()


def test_only_the_owner_is_told(lab):
    lab.init()
    lab.mlseal("trust", "people", "add", "alice")
    lab.state.chmod(0o777)
    for args in ((), ("show", "alice"), ("erase", "alice", "--yes")):
        done = lab.mlseal("trust", "people", *args, ok=False)
        assert done.returncode == 10 and "alone" in done.stderr
