"""`testing.report`: a SARIF report whose messages and paths are marked."""

import json

from mlseal.errors import Misuse, Unreadable
from tests.stages_cases import Bad, Case, World


def make(world: World):
    code = world.path("service.py")
    code.write_text(f"password = '{world.canary}'\n")
    where = {"physicalLocation": {"artifactLocation": {"uri": f"{world.canary}.py"}, "region": {"startLine": 1}}}
    found = {"ruleId": "B105", "level": "error", "message": {"text": f"password {world.canary}"}, "locations": [where]}
    run = {"tool": {"driver": {"name": "bandit", "version": "1.9"}}, "results": [found]}
    report = world.path("report.sarif")
    report.write_text(json.dumps({"version": "2.1.0", "runs": [run]}))
    return {"report": report, "about": code, "format": "sarif"}


def written(text):
    def spoil(world, arguments):
        arguments["report"].write_text(text.replace("CANARY", world.canary))

    return spoil


def picture(world, arguments):
    arguments["report"].write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff" + world.canary.encode())


def other_format(world, arguments):
    return {**arguments, "format": "cyclonedx"}


CASE = Case(
    make=make,
    bad={
        "empty": Bad(written(""), Unreadable, "is empty"),
        "no run": Bad(written('{"version": "2.1.0", "runs": []}'), Misuse, "no sarif"),
        "nan": Bad(written('{"version": NaN}'), Misuse, "no sarif"),
        "wrong shape": Bad(written('[["CANARY"]]'), Misuse, "no sarif"),
        "missing column": Bad(written('{"version": "2.1.0", "runs": [{"CANARY": 1}]}'), Misuse, "no sarif"),
        "wrong type": Bad(picture, Misuse, "no sarif"),
        "another format": Bad(other_format, Misuse, "no cyclonedx"),
    },
)
