"""Who is behind a pseudonym: the one place of an authority that knows it, and can forget it.

What a certificate says lies in an append-only log for ever, so it names nobody: a person is ``p-`` and 26 letters.
Who that is stands in ``STATE/people.db`` (0600) and nowhere else. A pseudonym is HMAC-SHA256 of issuer and subject
under 32 random bytes of this person alone; both lie in one row. Once the row is erased, neither the log nor somebody
who guesses the name can say who it was, and the same login gets a pseudonym that has nothing to do with the old one.

Erased means: not in the bytes of any file here. SQLite overwrites what it deletes (``secure_delete``), the file is then
rewritten (``VACUUM``), there is no write-ahead log, and the rollback journal ends with its transaction. Copies that
others made (backups, snapshots of the disk) are beyond that, and so are blocks that the file system freed.
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path

from mlseal.errors import MalformedEvidence, Misuse, Refusal, UnknownName, Unreadable
from mlseal.evidence import canonical
from mlseal.evidence.clock import Clock, rfc3339, utcnow
from mlseal.evidence.identity import PSEUDONYM, person_uri
from mlseal.services import files

FILE = "people.db"
_BUSY_SECONDS = 10.0
_SCHEMA = """CREATE TABLE IF NOT EXISTS people (pseudonym TEXT PRIMARY KEY, issuer TEXT NOT NULL, subject TEXT NOT NULL,
 login TEXT NOT NULL, domain TEXT NOT NULL, name TEXT NOT NULL, added TEXT NOT NULL, salt BLOB NOT NULL,
 UNIQUE (issuer, subject)) WITHOUT ROWID"""
# EXTRA: the end of the journal is on disk before a pseudonym is used, or a name is called erased.
_SETTINGS = ("secure_delete = ON", "journal_mode = DELETE", "synchronous = EXTRA", "temp_store = MEMORY")
# One connection at a time in this process: closing any handle of a file drops the locks that SQLite holds on it.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Person:
    """One row, without its salt.

    Attributes:
        pseudonym: what certificates say.
        issuer: who vouches for the login.
        subject: the login as the issuer knows it; never changes.
        login: what the person types: the subject, or the address of the newest token.
        domain: of that address, where the identity keeps it; else empty.
        name: for people to read; the owner of the authority may set it.
        added: when the pseudonym was made.
    """

    pseudonym: str
    issuer: str
    subject: str
    login: str
    domain: str
    name: str
    added: str


def uri(authority: str, person: Person, role: str) -> str:
    """The SAN of `person` in certificates of `authority`: in `role` for its own people, else as the provider says."""
    if person.issuer == f"https://{authority}/issuer":
        return f"https://{authority}/roles/{role}/{person.pseudonym}"
    return person_uri(authority, person.pseudonym, person.domain)


_COLUMNS = ", ".join(field.name for field in fields(Person))


class People:
    """The people of the authority in `directory`; the file is made when the first one is added.

    Every call opens, uses and closes it, so that nothing of an erased person stays in a process. Safe between threads
    and processes. All raise `Refusal` if others can open the file, `Unreadable` if it cannot be used and
    `MalformedEvidence` if it is not what it should be.
    """

    def __init__(self, directory: Path, *, clock: Clock = utcnow) -> None:
        self.path, self._clock = directory / FILE, clock

    def pseudonym_of(self, issuer: str, subject: str, *, login: str | None = None, domain: str = "") -> str:
        """The pseudonym of `subject` at `issuer`, made if there is none; `login` and `domain` are kept up to date."""
        login = login or subject
        with self._open() as database:
            with _transaction(database):
                known = _one(database, "issuer = ? AND subject = ?", issuer, subject)
                if known is None:
                    return _added(database, Person("", issuer, subject, login, domain, login, rfc3339(self._clock())))
                if (known.login, known.domain) == (login, domain):
                    return known.pseudonym
                name = login if known.name == known.login else known.name
                change = "UPDATE people SET login = ?, domain = ?, name = ? WHERE pseudonym = ?"
                database.execute(change, (login, domain, name, known.pseudonym))
            _rewrite(database)  # the address of before is gone too
            return known.pseudonym

    def get(self, pseudonym: str) -> Person | None:
        """Who has exactly this pseudonym; None if nobody has, or has any more."""
        if not self.path.exists():
            return None
        with self._open() as database:
            return _one(database, "pseudonym = ?", pseudonym)

    def find(self, text: str) -> Person:
        """The person with pseudonym, login, subject or display name `text`, or with the SAN that ends in the pseudonym.

        Raises `UnknownName` if nobody has it, `Misuse` if several do.
        """
        last = text.rpartition("/")[2]
        if PSEUDONYM.fullmatch(last) and (exact := self.get(last)):
            return exact
        found = [person for person in self.all() if text in {person.login, person.subject, person.name}]
        if len(found) == 1:
            return found[0]
        if found:
            told = ", ".join(person.pseudonym for person in found)
            raise Misuse(f"{len(found)} people go by that name", got=told, remedy="use the pseudonym")
        raise UnknownName("nobody goes by that name here", got=text[:100], remedy="mlseal trust people")

    def all(self) -> list[Person]:
        """Everybody, in the order in which they were added."""
        if not self.path.exists():
            return []
        with self._open() as database:
            rows = database.execute(f"SELECT {_COLUMNS} FROM people ORDER BY added, pseudonym")  # noqa: S608 - constant
            return [Person(*row) for row in rows]

    def call(self, text: str, name: str) -> Person:
        """Set the display name of the person whom `find` finds. Raises `Misuse` for a name that no line can hold."""
        if not name.strip() or not name.isprintable() or len(name) > 200:
            raise Misuse("not a name to show", got=f"{len(name)} characters", expected="1 to 200 printable ones")
        person = self.find(text)
        with self._open() as database:
            with _transaction(database):
                database.execute("UPDATE people SET name = ? WHERE pseudonym = ?", (name, person.pseudonym))
            _rewrite(database)
        return self.find(person.pseudonym)

    def erase(self, text: str) -> Person:
        """Forget the person whom `find` finds; returns what was known. When it returns, no file here holds it."""
        person = self.find(text)
        with self._open() as database:
            with _transaction(database):
                database.execute("DELETE FROM people WHERE pseudonym = ?", (person.pseudonym,))
            _rewrite(database)
        return person

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with _one_at_a_time:
            _require_private(self.path)
            try:
                with closing(sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)) as database:
                    for setting in _SETTINGS:
                        database.execute(f"PRAGMA {setting}")
                    database.execute(_SCHEMA)
                    yield database
            except sqlite3.OperationalError as error:
                remedy = "check free space and permissions, then try again"
                raise Unreadable(f"cannot use {self.path}", got=error, remedy=remedy) from error
            except sqlite3.DatabaseError as error:
                remedy = "restore it from a backup; without it old pseudonyms stand for nobody, new ones are made"
                raise MalformedEvidence(f"{self.path} is damaged", got=error, remedy=remedy) from error


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")  # before reading: two that look for one person must not both make one
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise


def _one(database: sqlite3.Connection, condition: str, *values: str) -> Person | None:
    row = database.execute(f"SELECT {_COLUMNS} FROM people WHERE {condition}", values).fetchone()  # noqa: S608 - constant
    return Person(*row) if row else None


def _added(database: sqlite3.Connection, person: Person) -> str:
    salt = secrets.token_bytes(32)
    digest = hmac.digest(salt, canonical.dumps([person.issuer, person.subject]), "sha256")
    pseudonym = "p-" + base64.b32encode(digest).decode().lower()[:26]
    rest = [getattr(person, field.name) for field in fields(Person)[1:]]
    database.execute("INSERT INTO people VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (pseudonym, *rest, salt))
    return pseudonym


def _rewrite(database: sqlite3.Connection) -> None:
    """A fresh file from the rows that are left: freed space inside pages goes too."""
    database.execute("VACUUM")


def _require_private(path: Path) -> None:
    """Make the file if there is none; it, and hence its journal, is this user's alone from the first moment."""
    try:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, files.PRIVATE))
        facts = path.lstat()
    except OSError as error:
        raise Unreadable(f"cannot use {path}", got=error.strerror, remedy="run as the owner of the service") from error
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) & 0o077:
        raise Refusal(
            f"{path} is open to others",
            got=f"owner {facts.st_uid}, mode {stat.S_IMODE(facts.st_mode):04o}",
            expected=f"a file of owner {os.geteuid()}, mode 0600",
            remedy=f"run as its owner, or 'chmod 0600 {path}' and tell those whose names it holds",
        )
