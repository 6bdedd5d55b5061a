"""`ingestion.source`: the provenance of a table, signed by its producer."""

from mlseal.errors import Misuse, NoEvidence, Unreadable
from mlseal.evidence import statement
from mlseal.evidence.digest import measure
from mlseal.evidence.predicates import data_provenance
from tests.stages_cases import Bad, Case, World
from tests.unit.stages.test_source import CLAIM


def make(world: World):
    table = world.path("people.csv")
    table.write_text("name\n" + "".join(f"{world.canary}-{world.root.name}-{i}\n" for i in range(40)))
    claim = {**CLAIM, "remote": world.root.name}
    world.authority.signer("producer").sign(statement.make(measure(table).subjects, data_provenance.URI, claim))
    return {"dataset": table, "issuer": world.authority.issuer, "san": world.authority.san("producer")}


def emptied(world, arguments):
    arguments["dataset"].write_text("")


def changed(world, arguments):
    arguments["dataset"].write_text(f"{world.canary} was never signed")


def no_directory(world, arguments):
    arguments["dataset"].unlink()


def a_directory(world, arguments):
    arguments["dataset"].unlink()
    arguments["dataset"].mkdir()


def another_type(world, arguments):
    return {**arguments, "method": "sigstore-bundle"}


CASE = Case(
    make=make,
    bad={
        "empty": Bad(emptied, Unreadable, "empty"),
        "empty directory": Bad(a_directory, Unreadable, "holds no content"),
        "absent": Bad(no_directory, Unreadable, "does not exist"),
        "nan": "bytes are compared, numbers are not read",
        "wrong shape": Bad(changed, NoEvidence, "evidence"),
        "missing column": "columns are not read",
        "wrong type": Bad(another_type, Misuse, "signature"),
    },
)
