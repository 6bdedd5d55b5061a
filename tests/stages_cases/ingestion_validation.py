"""`ingestion.validation`: a suite that the marked table breaks, so that every path that could quote a value is taken."""

import json

import pandas as pd

from mlseal.errors import Misuse, Unreadable
from tests.stages_cases import Bad, Case, World


def make(world: World):
    table, suite = world.path("people.csv"), world.path("suite.json")
    pd.DataFrame({"name": [f"{world.canary}-{i}" for i in range(40)], "age": range(40)}).to_csv(table, index=False)
    expected = [
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "name", "value_set": ["nobody"]}},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "name", "min_value": 0}},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "age", "min_value": 0}},
    ]
    suite.write_text(json.dumps({"name": "people", "expectations": expected}))
    return {"dataset": table, "suite": suite}


def emptied(world, arguments):
    arguments["dataset"].write_text("name,age\n")


def no_suite(world, arguments):
    arguments["suite"].write_text(json.dumps({"name": world.canary, "expectations": []}))


def unknown(world, arguments):
    arguments["suite"].write_text(json.dumps({"name": "s", "expectations": [{"type": "expect_x", "kwargs": {}}]}))


def picture(world, arguments):
    arguments["dataset"].write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe" + world.canary.encode())


CASE = Case(
    make=make,
    bad={
        "empty": Bad(emptied, Unreadable, "no rows"),
        "an empty suite": Bad(no_suite, Misuse, "no expectations"),
        "nan": "a missing value is what expectations judge; a column of nothing else has failed (test_validation.py)",
        "wrong shape": Bad(unknown, Misuse, "cannot be built"),
        "missing column": "is a failed test of signed evidence, as the suite's author needs it (test_validation.py)",
        "wrong type": Bad(picture, Unreadable, "cannot be read"),
    },
    slow=True,
)
