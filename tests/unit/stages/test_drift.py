"""Drift: an alarm where the stream changed, silence where it did not, and no comfort from a detector without power."""

from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import pytest

from mlseal.errors import Misuse, Unchecked
from mlseal.evidence import predicates
from mlseal.stages.monitoring import streams


def table(path, rng, rows, shift_from=None, shift=2.0):
    values = rng.normal(0, 1, (rows, 2))
    if shift_from is not None:
        values[shift_from:, 1] += shift
    lines = ["age,score", *(f"{a:.6f},{b:.6f}" for a, b in values)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def watched(tmp_path):
    rng = np.random.default_rng(7)
    model = tmp_path / "model.bin"
    model.write_bytes(b"a model")
    return {
        "model": model,
        "reference": table(tmp_path / "reference.csv", rng, 3000),
        "still": table(tmp_path / "still.csv", rng, 1500),
        "moved": table(tmp_path / "moved.csv", rng, 1500, shift_from=700),
    }


def run(authority, watched, stream, **more):
    from mlseal.stages import runner

    arguments = {"model": watched["model"], "reference": watched["reference"], "stream": watched[stream]}
    arguments |= {"columns": "age,score", "shift": 1.0, "trials": 20, "minimum_power": 0.6} | more
    arguments.setdefault("maximum_false_alarms", 0.4)
    texts = {name: str(value) for name, value in arguments.items()}
    bundle = runner.run(
        "monitoring.drift", texts, signer=authority.signer("monitor"), store=authority.store, quiet=True
    )
    return bundle, bundle.statement.predicate


@pytest.mark.parametrize("detector", ["adwin", "page-hinkley"])
def test_a_change_is_noticed_and_its_delay_told(authority, watched, detector):
    sensitivity = {"adwin": 0.002, "page-hinkley": 0.02}[detector]
    _, found = run(authority, watched, "moved", known_change=700, detector=detector, sensitivity=sensitivity)
    assert found["alarmed"] and found["sufficient"]
    assert [alarm["column"] for alarm in found["alarms"]] == ["score"]
    assert found["knownChange"]["earlier"] == 0 and 0 <= found["knownChange"]["delay"] < 300
    assert found["power"]["detected"] == 20 and found["power"]["medianDelay"] < 300


def test_a_stream_like_the_reference_is_silent_and_the_silence_means_something(authority, watched):
    _, found = run(authority, watched, "still")
    assert (found["alarmed"], found["alarms"], found["sufficient"]) == (False, [], True)
    assert found["falseAlarms"]["streams"] == 20 and found["falseAlarms"]["high"] < 0.4


def test_a_detector_that_would_not_notice_is_insufficient(authority, watched):
    _, found = run(authority, watched, "still", shift=0.01)
    assert not found["alarmed"] and not found["sufficient"]
    assert found["power"]["low"] < 0.6


@pytest.mark.parametrize("value", ["1e5", "-1e9", "1e200", "1.7e308"])
@pytest.mark.parametrize("detector", streams.DETECTORS)
def test_one_huge_value_does_not_hide_what_comes_after_it(value, detector):
    """Whoever can ask the model can send one; ADWIN keeps a variance, in which every later change is small."""
    rng = np.random.default_rng(5)
    scale = streams.scale_of(rng.normal(50, 10, (2000, 1)), ["age"])
    moved = np.concatenate([[float(value)], rng.normal(50, 10, 300), rng.normal(75, 10, 700)])[:, None]
    (rows,) = streams.alarms(
        scale.apply(moved), streams.factory(detector, 0.02 if detector == "page-hinkley" else 0.002, 1)
    )
    assert any(row > 300 for row in rows)


def test_the_same_seed_finds_the_same(authority, watched):
    first, second = (run(authority, watched, "moved", seed=3)[1] for _ in range(2))
    for name in ("alarms", "falseAlarms", "power"):
        assert first[name] == second[name]


@pytest.mark.parametrize(
    ("more", "kind", "said"),
    [
        ({"columns": "age,weight"}, Misuse, "no column 'weight'"),
        ({"columns": ""}, Misuse, "no columns"),
        ({"detector": "oracle"}, Misuse, "no such detector"),
        ({"trials": 2}, Misuse, "out of range"),
        ({"known_change": 1500}, Misuse, "beyond the stream"),
        ({"minimum_power": 0}, Misuse, "silence would mean nothing"),
        ({"minimum_power": 1}, Misuse, "silence would mean nothing"),
        ({"maximum_false_alarms": 0.9}, Misuse, "silence would mean nothing"),
    ],
)
def test_what_cannot_be_watched_is_said(authority, watched, more, kind, said):
    with pytest.raises(kind, match=said):
        run(authority, watched, "still", **more)


@pytest.mark.parametrize(("cell", "said"), [("", "missing values"), ("inf", "not finite"), ("high", "no numbers")])
def test_cells_that_are_no_numbers_are_refused(authority, watched, cell, said):
    lines = watched["still"].read_text().splitlines()
    watched["still"].write_text("\n".join([*lines[:50], f"0.1,{cell}", *lines[51:]]) + "\n")
    with pytest.raises(Misuse, match=said):
        run(authority, watched, "still")


def test_a_column_that_never_varies_tells_nothing():
    with pytest.raises(Unchecked, match="never varies"):
        streams.scale_of(np.ones((10, 1)), ["age"])


# --- what an alarm does -----------------------------------------------------------------------------------------------


def signed_result(authority, model, tests):
    result = model.parent / "result.json"
    result.write_text(json.dumps({"result": "PASSED", "configuration": [], "passedTests": tests}))
    done = authority.call(
        *("sign", str(model), "--type", "test-result", "--predicate", str(result)),
        *("--store", str(authority.store.root), "--json"),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["evidenceId"]


def act(authority, watched, bundle, *more):
    report = watched["model"].parent / "report.json"
    bundle.write(report)
    return authority.call(
        *("monitor", str(report), "--model", str(watched["model"]), "--withdraw", "test-result"),
        *("--store", str(authority.store.root), "--json", *more),
    )


def revoked(authority):
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.identity import Identity

    archive = Archive.open(authority.trust, authority.store)
    archive.refresh()
    return archive.revocations([Identity(authority.issuer, authority.san("monitor"))])


def test_an_alarm_takes_evidence_back_once(authority, watched):
    watched["model"].write_bytes(b"a model whose stream moves")
    evidence = signed_result(authority, watched["model"], ["tried"])
    bundle, _ = run(authority, watched, "moved")
    done = act(authority, watched, bundle)
    assert done.returncode == 10, done.stderr
    assert json.loads(done.stdout)["withdrawn"] == [evidence]
    known = revoked(authority)
    assert known.of(evidence).reason == "withdrawn" and known.snapshot_time is not None
    assert json.loads(act(authority, watched, bundle).stdout)["withdrawn"] == []


def test_silence_takes_nothing_back(authority, watched):
    watched["model"].write_bytes(b"a model whose stream is still")
    evidence = signed_result(authority, watched["model"], ["tried"])
    done = act(authority, watched, run(authority, watched, "still")[0])
    assert (done.returncode, json.loads(done.stdout)["alarmed"]) == (0, False)
    assert revoked(authority).of(evidence) is None


def test_a_silence_without_power_is_no_answer(authority, watched):
    done = act(authority, watched, run(authority, watched, "still", shift=0.01)[0])
    assert done.returncode == 11 and "would not have noticed" in done.stderr


@pytest.mark.parametrize(
    "claimed", [{"minimumPower": 0.0, "power": {"low": 0.1}}, {"maximumFalseAlarms": 1.0, "falseAlarms": {"high": 0.9}}]
)
def test_thresholds_of_the_report_itself_make_no_power(authority, watched, claimed):
    _, said = run(authority, watched, "still")
    for name, value in claimed.items():
        said[name] = said[name] | value if isinstance(value, dict) else value
    file, report = (watched["model"].parent / name for name in ("claimed.json", "claimed.bundle.json"))
    file.write_text(json.dumps(said | {"sufficient": True}))
    words = ("sign", str(watched["model"]), "--type", "drift", "--predicate", str(file), "--role", "monitor")
    signed = authority.call(*words, "--store", str(authority.store.root), "--json")
    assert signed.returncode == 0, signed.stderr
    bundle = authority.store.get(json.loads(signed.stdout)["evidenceId"])
    bundle.write(report)
    done = act(authority, watched, bundle)
    assert done.returncode == 11 and "would not have noticed" in done.stderr


def test_a_silence_of_long_ago_is_no_answer_and_an_alarm_is(authority, watched):
    from mlseal.evidence import alarms
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.digest import measure
    from mlseal.evidence.identity import Identity

    watched["model"].write_bytes(b"a model of long ago")
    evidence = signed_result(authority, watched["model"], ["tried"])
    archive, signer = Archive.open(authority.trust, authority.store), authority.signer("monitor")

    def acted(stream, hours):
        bundle, _ = run(authority, watched, stream)
        archive.refresh()
        by = Identity(authority.issuer, authority.san("monitor"))
        report = archive.verifier.verify(
            bundle,
            predicate_type="drift",
            identities=[by],
            subjects=[measure(watched["model"]).sha256],
            revocations=archive.revocations([by]),
        )
        types = [predicates.uri_of("test-result")]
        return alarms.answer(report, archive, signer, types, oldest=report.time + timedelta(hours=hours))

    assert acted("still", -1) is None
    with pytest.raises(Unchecked, match="some time ago"):
        acted("still", 1)
    assert acted("moved", 1) == [evidence]


def test_a_report_about_another_model_or_by_another_is_not_acted_on(authority, watched):
    bundle, _ = run(authority, watched, "moved")
    done = act(authority, watched, bundle, "--identity", authority.san("producer"), "--issuer", authority.issuer)
    assert done.returncode == 10 and "UntrustedSigner" in done.stderr
    watched["model"].write_bytes(b"another model")
    done = act(authority, watched, bundle)
    assert done.returncode == 10 and "DigestMismatch" in done.stderr
