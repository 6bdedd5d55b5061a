"""`training.run`: a script that prints and copies the data that it reads."""

from mlseal.errors import Unchecked, Unreadable
from tests.stages_cases import Bad, Case, World

SCRIPT = """
import argparse, pathlib
p = argparse.ArgumentParser(); p.add_argument("--data"); p.add_argument("--out"); p.add_argument("--param", action="append")
a = p.parse_args(); out = pathlib.Path(a.out); out.mkdir()
text = (pathlib.Path(a.data) / "rows.csv").read_text()
print(text[:200])
(out / "model.bin").write_text(str(len(text.splitlines())) + str(max(float(l.split(",")[1]) for l in text.splitlines()[1:])))
"""


def make(world: World):
    data = world.path("data")
    data.mkdir()
    (data / "rows.csv").write_text("name,need\n" + "".join(f"{world.canary}-{i},{i % 2}\n" for i in range(40)))
    script = world.path("train.py")
    script.write_text(SCRIPT)
    return {"script": script, "data": data, "parameters": '{"rate": "0.1"}'}


def emptied(world, arguments):
    (arguments["data"] / "rows.csv").write_text("")


def no_files(world, arguments):
    (arguments["data"] / "rows.csv").unlink()


def no_numbers(world, arguments):
    (arguments["data"] / "rows.csv").write_text(f"name,need\n{world.canary},{'x'}\n")


def no_column(world, arguments):
    (arguments["data"] / "rows.csv").write_text(f"name\n{world.canary}\n")


def binary(world, arguments):
    (arguments["data"] / "rows.csv").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")


CASE = Case(
    make=make,
    bad={
        "empty": Bad(emptied, Unreadable, "holds no content"),
        "no files": Bad(no_files, Unreadable, "holds no content"),
        "nan": "the script decides what it makes of its data",
        "wrong shape": Bad(no_numbers, Unchecked, "train.py failed"),
        "missing column": Bad(no_column, Unchecked, "train.py failed"),
        "wrong type": Bad(binary, Unchecked, "train.py failed"),
    },
    shows="the lines of the training script are what the person who waits wants to see",
)
