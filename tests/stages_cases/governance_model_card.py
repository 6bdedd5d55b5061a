"""`governance.model_card`: evidence about a marked model, signed for it beforehand."""

import json
import secrets

from mlseal.errors import Misuse, NoEvidence, Unreadable
from mlseal.evidence import statement
from mlseal.evidence.digest import measure
from mlseal.evidence.naming import PLAIN
from mlseal.evidence.predicates import test_result
from tests.stages_cases import Bad, Case, World


def make(world: World):
    model = world.path("model.bin")
    model.write_bytes(f"{world.canary} {secrets.token_hex(8)}".encode())
    said = {"result": "PASSED", "configuration": [], "passedTests": ["tried"]}
    names = [subject.__class__("model", subject.sha256) for subject in measure(model).subjects]
    world.authority.signer("evaluator").sign(statement.make(names, test_result.URI, said, names=PLAIN))
    stated = world.path("stated.json")
    stated.write_text(json.dumps({"uses": ["outreach"]}))
    signers = json.dumps({world.authority.san("evaluator"): world.authority.issuer})
    return {"model": model, "signers": signers, "name": "risk", "stated": stated}


def stated(text):
    def spoil(_, arguments):
        arguments["stated"].write_text(text)

    return spoil


def another(_, arguments):
    arguments["model"].write_bytes(secrets.token_bytes(8))


CASE = Case(
    make=make,
    bad={
        "empty": Bad(stated(""), Unreadable, "empty"),
        "nan": Bad(stated('{"uses": [NaN]}'), Misuse, "stated"),
        "wrong shape": Bad(stated('{"uses": "all"}'), Misuse, "lists of texts"),
        "missing column": "it reads evidence, not tables",
        "wrong type": Bad(stated("\x89PNG"), Misuse, "stated"),
        "no evidence": Bad(another, NoEvidence, "no listed identity"),
    },
    repeats="the card is itself evidence about the model, so the next one lists it",
)
