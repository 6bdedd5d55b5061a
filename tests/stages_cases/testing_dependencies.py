"""`testing.dependencies` for the tests that every stage passes."""

import json

from mlseal.errors import Misuse, Unreadable
from tests.stages_cases import Bad, Case, World

ENTRY = {
    "id": "PYSEC-2021-142",
    "modified": "2026-03-01T10:20:30Z",
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "pyyaml"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "5.4"}]}],
        }
    ],
}


def make(world: World) -> dict[str, object]:
    """A requirements file with the canary in its comments, and one advisory whose details hold it."""
    advisories = world.path("advisories")
    advisories.mkdir()
    (advisories / "a.json").write_text(json.dumps({**ENTRY, "details": world.canary}))
    requirements = world.path("requirements.txt")
    requirements.write_text(f"# {world.canary}\npyyaml==5.3  # {world.canary}\nnumpy==2.1.0\n")
    return {"requirements": requirements, "advisories": advisories}


def truncated(_: World, arguments: dict[str, object]) -> None:
    file = arguments["advisories"] / "a.json"  # type: ignore[operator]
    file.write_text(file.read_text()[:80])


def asking(world: World) -> dict[str, object]:
    """Offline nothing of the extra is needed; a service is asked through pip-audit."""
    return {"requirements": make(world)["requirements"], "service": "http://127.0.0.1:9/v1/query"}


CASE = Case(
    make=make,
    varies=("metadata",),
    extra_case=asking,
    bad={
        "empty": Bad(
            lambda _, given: given["requirements"].write_text("# none\n") and None, Unreadable, "no dependency"
        ),
        "nan": "versions are no numbers",
        "wrong shape": Bad(truncated, Unreadable, "cannot be read"),
        "missing column": Bad(lambda _, given: {"advisories": given["advisories"]}, Misuse, "one thing is audited"),
        "wrong type": Bad(
            lambda _, given: given["requirements"].write_bytes(b"\x89PNG\r\n\x1a\n") and None,
            Unreadable,
            "cannot be read",
        ),
    },
)
