"""Encrypted scoring on handwritten digits: right, fast in batches, and the server cannot read what it is sent."""

import json
import socket
import threading

import numpy as np
import pandas as pd
import pytest

from mlseal.errors import MalformedEvidence, Misuse, Refusal, Unchecked, Unreadable
from mlseal.evidence import predicates
from mlseal.evidence.digest import measure
from mlseal.stages import dense
from mlseal.stages.training import encrypted_client, encrypted_server, wire

PIXELS = [f"p{i}" for i in range(64)]


@pytest.fixture(scope="module")
def digits():
    """1,797 handwritten digits of 64 pixels, and a plain logistic regression that tells a zero."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    pixels, digit = load_digits(return_X_y=True)
    fitted = LogisticRegression(max_iter=300).fit(pixels / 8 - 1, digit == 0)
    layer = dense.Layer(fitted.coef_, fitted.intercept_)
    model = dense.Dense(tuple(PIXELS), {name: (0.0, 16.0) for name in PIXELS}, (layer,))
    return pd.DataFrame(pixels, columns=PIXELS), model, digit == 0


@pytest.fixture
def scored(perform, tmp_path, digits):
    """Scores the digits, or what is given instead."""

    def go(frame=None, model=None, data=None, **changes):
        if data is None:
            data = tmp_path / "digits.parquet"
            (digits[0] if frame is None else frame).to_parquet(data, index=False)
        place = tmp_path / "model"
        if not place.exists():
            (model or digits[1]).write(place)
        return perform("training.encrypted_scoring", model=place, dataset=data, out=tmp_path / "scores.csv", **changes)

    return go


def stopped(scored, tmp_path, error, words, **changes):
    with pytest.raises(error, match=words) as caught:
        scored(**changes)
    assert "\n" not in str(caught.value)
    assert not [p for p in tmp_path.iterdir() if "scores" in p.name]


def test_scores_are_those_of_the_model_and_a_batch_is_cheap(scored, tmp_path, digits):
    frame, model, zero = digits
    lines = []
    made = scored(log=lines.append)
    said = made.predicate
    plain, found = model.decision_function(frame), pd.read_csv(tmp_path / "scores.csv").logit.to_numpy()
    assert np.abs(plain - found).max() == pytest.approx(said["maximumError"], rel=1e-6)
    assert 0 < said["maximumError"] < 1e-4 == float(said["errorBound"])
    assert ((found > 0) == zero).mean() > 0.98
    assert said["rows"] == 1797 and said["features"] == 64 and said["batches"] == 1
    # Ratio, not time: the machine may be busy. One row alone costs about what the whole batch does.
    assert said["amortizedMilliseconds"] < said["singleMilliseconds"] / 50
    assert any("ms a score in batches of 4096" in line for line in lines)
    assert made.subjects == (*measure(tmp_path / "model").subjects, *measure(tmp_path / "scores.csv").subjects)
    assert predicates.check(made.predicate_type, dict(said))


def test_a_model_and_scores_of_one_name_are_told_apart(perform, tmp_path, digits):
    """In a pipeline both are called by their port, as it happens ``out``."""
    digits[0].iloc[:5].to_parquet(tmp_path / "t.parquet", index=False)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    digits[1].write(tmp_path / "one" / "out")
    told = {"model": tmp_path / "one" / "out", "dataset": tmp_path / "t.parquet", "out": tmp_path / "two" / "out"}
    made = perform("training.encrypted_scoring", **told)
    assert [s.name for s in made.subjects] == ["out", "out#manifest", "out (out)"]
    assert made.subjects[-1].sha256 == measure(tmp_path / "two" / "out").sha256


def test_more_rows_than_slots_go_in_batches(scored, tmp_path, digits):
    frame, model, _ = digits
    many = pd.concat([frame] * 2, ignore_index=True).iloc[:, :2]
    small = dense.Dense(tuple(PIXELS[:2]), {}, (dense.Layer(np.array([[0.5, -0.25]]), np.array([1.0])),))
    said = scored(many, small, degree=4096, modulus_bits="40,25,40", scale_bits=25, error_bound="0.1").predicate
    assert said["batches"] == 2 and said["rowsPerCiphertext"] == 2048
    found = pd.read_csv(tmp_path / "scores.csv").logit.to_numpy()
    assert np.abs(found - small.decision_function(many)).max() < 0.1


# --- what the server can see -----------------------------------------------------------------------------------------


@pytest.fixture
def server(digits):
    """The server's own code on one end of a socket pair; everything that it receives is kept."""
    ours, theirs = socket.socketpair()
    received, ended = [], []
    take = wire.receive

    class Recording:
        @staticmethod
        def receive(peer):
            frame = take(peer)
            received.append(frame)
            return frame

        send = staticmethod(wire.send)

    def run():
        try:
            encrypted_server.serve(theirs, digits[1])
            ended.append("")
        except (SystemExit, ConnectionError) as error:
            ended.append(str(error))

    thread = threading.Thread(target=run, daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encrypted_server, "wire", Recording)
        thread.start()
        ours.settimeout(60)
        yield ours, received, ended, thread
        ours.close()
        thread.join(timeout=60)
        theirs.close()


def keys():
    import tenseal

    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, -1, [60, 40, 60])
    context.global_scale = 2**40
    return context


def test_what_the_server_receives_holds_no_key_and_cannot_be_read(server, digits):
    import tenseal

    peer, received, ended, thread = server
    context = keys()
    client = encrypted_client.Client(context, peer, 4096)
    client.open()
    rows = digits[1].scaled(digits[0])[:20]
    scores = client.score(rows)
    wire.send(peer, b"")
    thread.join(timeout=60)
    assert ended == [""]
    assert np.allclose(scores, rows @ digits[1].layers[0].weight[0] + digits[1].layers[0].bias[0], atol=1e-4)
    theirs = tenseal.context_from(received[0])
    assert not theirs.is_private() and not theirs.has_secret_key()
    columns = received[2:66]
    assert len(received) == 67 and received[1] == b"20"  # context, rows, 64 columns, end
    for column in columns[:2]:
        with pytest.raises(ValueError, match="secret_key"):
            tenseal.ckks_vector_from(theirs, column).decrypt()
    readable = tenseal.ckks_vector_from(context, columns[20]).decrypt()  # with the key they are what was encrypted
    assert readable == pytest.approx(rows[:, 20].tolist(), abs=1e-4)


def test_a_client_that_sends_its_key_is_refused(server):
    peer, received, ended, thread = server
    client = encrypted_client.Client(keys(), peer, 4096)
    serialize = client.context.serialize
    client.context = type("Careless", (), {"serialize": lambda _, **__: serialize(save_secret_key=True)})()
    with pytest.raises(Refusal, match="not hold just the public context"):
        client.open()
    thread.join(timeout=60)
    assert ended == ["the client sent its secret key; nothing was computed"]


def test_a_server_that_could_read_is_refused(digits):
    """One that says so, and one that says it received other bytes."""
    for answers in ([{"sha256": "0" * 64, "secretKey": False}], [None, {"decrypted": True}]):
        ours, theirs = socket.socketpair()
        client = encrypted_client.Client(keys(), ours, 4096)

        def answer(theirs=theirs, answers=answers):
            import hashlib

            first = wire.receive(theirs)
            said = answers[0] or {"sha256": hashlib.sha256(first).hexdigest(), "secretKey": False}
            wire.send(theirs, json.dumps(said).encode())
            if len(answers) > 1:
                wire.receive(theirs), wire.receive(theirs)
                wire.send(theirs, json.dumps(answers[1]).encode())

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(Refusal, match="just the public context|could decrypt"):
            client.open()
            client.score(np.ones((1, 1)))
        thread.join(timeout=30)
        ours.close()
        theirs.close()


# --- what it refuses -------------------------------------------------------------------------------------------------

WEAK = [
    ({"modulus_bits": "60,60,60,60"}, "128 bits of security allow 218"),
    ({"degree": 4096, "modulus_bits": "40,40,40"}, "128 bits of security allow 109"),
    ({"degree": 2048, "modulus_bits": "20,20,20"}, "degree 2048 is none of"),
    ({"modulus_bits": "60,60"}, "hold no multiplication"),
    ({"modulus_bits": "60,10,60"}, "hold no multiplication"),
    ({"scale_bits": 61}, "hold no multiplication"),
    ({"modulus_bits": "a,b"}, "hold no multiplication"),
    ({"error_bound": "0"}, "no positive decimal"),
    ({"error_bound": "nan"}, "no positive decimal"),
]


@pytest.mark.parametrize(("change", "words"), WEAK, ids=str)
def test_weak_or_senseless_parameters_are_refused_before_a_key_is_made(scored, tmp_path, change, words):
    stopped(scored, tmp_path, Misuse, words, **change)


def test_an_error_over_the_bound_gives_no_scores(scored, tmp_path):
    stopped(scored, tmp_path, Unchecked, "not those of the model", error_bound="0.000000000001")


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lambda f: f.iloc[:0], Unreadable, "no rows"),
        (lambda f: f.assign(p3=np.nan), Misuse, "missing"),
        (lambda f: f.assign(p3="dark"), Misuse, "does not hold numbers"),
        (lambda f: f.drop(columns="p3"), Misuse, "no p3"),
    ],
    ids=["empty", "nan", "text", "column"],
)
def test_bad_tables_are_one_sentence(scored, tmp_path, digits, spoil, error, words):
    stopped(scored, tmp_path, error, words, frame=spoil(digits[0]))


def test_what_is_no_table_or_no_linear_model_is_refused(scored, tmp_path, digits):
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\xff\xfe\x00")
    stopped(scored, tmp_path, Unreadable, "cannot be read|no rows", data=tmp_path / "picture.csv")
    (tmp_path / "model" / dense.WEIGHTS).write_text("{}")
    stopped(scored, tmp_path, Unreadable, "no model of plain numbers")
    first = dense.Layer(np.ones((2, 64)), np.zeros(2))
    deep = dense.Dense(tuple(PIXELS), {}, (first, dense.Layer(np.ones((1, 2)), np.zeros(1))))
    for file in (tmp_path / "model").iterdir():
        file.unlink()
    (tmp_path / "model").rmdir()
    deep.write(tmp_path / "model")
    stopped(scored, tmp_path, Misuse, "only a linear model", model=deep)


def test_a_server_that_dies_is_one_sentence(scored, tmp_path, monkeypatch):
    broken = tmp_path / "server.py"
    broken.write_text("raise SystemExit('no memory')")
    monkeypatch.setattr(encrypted_client, "SERVER", broken)
    stopped(scored, tmp_path, Unchecked, "no memory")
    broken.write_text("import time; time.sleep(600)")
    stopped(scored, tmp_path, Unchecked, "no end after 1 s", timeout=1)


def test_a_reader_refuses_weak_parameters_and_errors_over_their_bound(scored, digits):
    said = dict(scored(digits[0].iloc[:5]).predicate)
    assert predicates.check("he-computation", said)
    for change in (
        {"coefficientModulusBits": [60, 60, 60, 60]},
        {"polyModulusDegree": 4096},
        {"maximumError": 0.01},
        {"serverHeldSecretKey": True},
        {"serverCouldDecrypt": True},
        {"processes": "one-process"},
        {"securityBits": 80},
    ):
        with pytest.raises(MalformedEvidence):
            predicates.check("he-computation", said | change)


def test_a_socket_may_lie_deeper_than_its_address_is_long(tmp_path):
    import socket

    from mlseal.stages.training import wire

    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as peer:
        with wire.address(deep / "s") as near:
            listener.bind(near)
        listener.listen(1)
        with wire.address(deep / "s") as near:
            peer.connect(near)
        wire.send(listener.accept()[0], b"here")
        assert wire.receive(peer) == b"here"
