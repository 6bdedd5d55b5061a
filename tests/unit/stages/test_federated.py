"""Federated training: real Flower processes over TLS, a client that drops out, one whose owner forbids, and the chain."""

import json
import os
import signal
import socket
import ssl
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlseal.errors import MalformedEvidence, Misuse, NotInitialised, Unchecked, Unreadable
from mlseal.evidence import predicates, statement
from mlseal.evidence.digest import measure
from mlseal.evidence.planning import Asking, Cleared
from mlseal.evidence.predicates import data_policy
from mlseal.evidence.predicates.federated_training import receipt_of
from mlseal.policy.preflight import Preflight
from mlseal.stages import dense, runner
from mlseal.stages.training import federation, rounds
from mlseal.stages.training.federation import Federation

CLIENTS = ("east.csv", "north.csv", "west.csv")
MARK = "Wilhelmina-0231"
ASKED = {"outcome": "need", "features": "signal,age", "ranges": '{"age": "0:90"}', "rounds_wanted": "3"}


def table(seed, n=200, salt=0):
    """Need goes with signal, and each client has its own share of it."""
    rng = np.random.default_rng([seed, salt])
    need = (rng.random(n) < 0.3 + 0.15 * seed).astype(int)
    return pd.DataFrame({"need": need, "signal": need - 0.5 + 0.2 * rng.normal(size=n), "age": rng.integers(0, 90, n)})


@pytest.fixture
def sites(tmp_path):
    folder = tmp_path / "sites"
    folder.mkdir()
    salt = int.from_bytes(os.urandom(4))  # the tests of a module share a log: each has data of its own
    for seed, name in enumerate(CLIENTS):
        table(seed, salt=salt).to_csv(folder / name, index=False)
    return folder


@pytest.fixture
def train(authority, sites, tmp_path, monkeypatch):
    """Trains on the sites with a real signer; returns the predicate."""
    monkeypatch.setenv("MLSEAL_TRUST", str(authority.trust_config))

    def go(purpose="training", watch=lambda _: None, cancellation=None, **changes):
        arguments = {**ASKED, "dataset": str(sites), "out": str(tmp_path / "model"), **changes}
        if watch is not None:
            monkeypatch.setattr(runner.Progress, "step", lambda _, done, total, what: watch((done, what)), raising=True)
            monkeypatch.setattr(runner.Progress, "log", lambda _, line: watch(line), raising=True)
        made = runner.run(
            "training.federated",
            {k: str(v) for k, v in arguments.items()},
            signer=authority.signer("producer"),
            store=authority.store,
            quiet=True,
            purpose=purpose,
            preflight=Preflight(()),
            cancellation=cancellation,
        )
        return made.statement.predicate

    return go


def owner_allows(authority, path, *purposes):
    """The owner of one client's table says what for."""
    said = {
        "purposes": list(purposes),
        "expires": "2999-01-01T00:00:00Z",
        "notProven": ["anything"],
        "nonce": os.urandom(16).hex(),
    }
    made = statement.make(measure(path).subjects, data_policy.URI, said)
    return authority.signer("owner").sign(made).evidence_id


def of_round(said, number, what):
    return {c if isinstance(c, str) else c["client"] for c in said["rounds"][number - 1][what]}


# --- processes -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_over_tls_with_a_drop_and_a_refusal(authority, train, sites, tmp_path, monkeypatch):
    """One client's owner forbids training, another's SuperNode is killed after the first round."""
    for name in CLIENTS:
        pd.read_csv(sites / name).assign(name=MARK).to_csv(sites / name, index=False)
    owner_allows(authority, sites / "west.csv", "care")
    allowed = owner_allows(authority, sites / "north.csv", "training")
    nodes, seen, shown, logs = {}, {}, [], {}
    stop = Federation.stop

    def stopped(session):
        stop(session)
        logs.update({file.name: file.read_text() for file in session.home.glob("*.log")})

    monkeypatch.setattr(Federation, "stop", stopped)

    def watch(told):
        shown.append(str(told))
        if isinstance(told, str) and "SuperNode is process" in told:
            node = nodes[told.split()[1].rstrip(":")] = int(told.split()[-1])
            seen.update(env=environment(node), home=session_of(node), tls=tls_only(session_of(node)))
        elif told == (1, "rounds"):
            os.kill(nodes["east.csv"], signal.SIGKILL)

    said = train(watch=watch, minimum_clients="1", round_timeout="90", rounds_wanted="3")
    no_row_is_logged(logs, shown, sites)
    assert said["topology"] == "processes" and said["transport"] == "tls-loopback" and said["authority"]
    assert "east.csv" in of_round(said, 1, "participants") and of_round(said, 3, "dropped") == {"east.csv"}
    for number in (1, 2, 3):
        assert of_round(said, number, "refused") == {"west.csv"}
        assert said["rounds"][number - 1]["refused"][0]["reason"] == "data-policy:purpose"
        assert "north.csv" in of_round(said, number, "participants")
    north = next(p for p in said["rounds"][0]["participants"] if p["client"] == "north.csv")
    assert north["dataPolicies"] == [allowed] and north["dataSha256"] == measure(sites / "north.csv").sha256
    assert dense.read(tmp_path / "model").features == ("signal", "age")
    assert predicates.check("federated-training", dict(said))
    assert seen["tls"] and len(nodes) == 3
    assert {"FLWR_TELEMETRY_ENABLED=0", "FLWR_DISABLE_UPDATE_CHECK=1"} <= seen["env"]
    assert inside(seen["home"]) == [] and not [p for p in nodes.values() if Path(f"/proc/{p}").exists()]


def no_row_is_logged(logs, shown, sites):
    """By no process: the SuperLink with its server, three SuperNodes with their clients, and the run that waits."""
    assert all(MARK in (sites / name).read_text() for name in CLIENTS), "every client read marked rows"
    assert len(logs) == 4 and all(logs.values()), f"all of them wrote something: {sorted(logs)}"
    assert "train message" in "".join(logs.values()), "the last look came after they had trained"
    assert MARK not in "".join([*logs.values(), *shown])


def environment(pid):
    return set(Path(f"/proc/{pid}/environ").read_text().split("\0"))


def session_of(pid):
    (home,) = [Path(word.removeprefix("HOME=")) for word in environment(pid) if word.startswith("HOME=")]
    return home


def inside(root):
    from mlseal.stages import workspace

    return list(workspace._inside(os.fsencode(root)))


def tls_only(home):
    """The SuperLink's port shows a certificate of the session's own CA, and plain HTTP gets no answer."""
    (line,) = [part for part in (home / "flwr" / "config.toml").read_text().splitlines() if part.startswith("address")]
    port = int(line.rsplit(":", 1)[1].strip('"'))
    context = ssl.create_default_context(cafile=str(home / "ca.pem"))
    with socket.create_connection(("127.0.0.1", port), 20) as raw:
        with context.wrap_socket(raw, server_hostname="127.0.0.1") as wrapped:
            trusted = bool(wrapped.getpeercert())
    with socket.create_connection(("127.0.0.1", port), 20) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        plain.settimeout(20)
        try:
            answer = plain.recv(4)
        except OSError:
            answer = b""
    return trusted and answer != b"HTTP"


def test_a_session_ends_its_processes_and_one_that_cannot_listen_is_a_sentence(tmp_path, monkeypatch):
    with Federation(tmp_path / "one") as session:
        monkeypatch.setattr(federation, "_beside", lambda _: "/bin/sleep")
        monkeypatch.setattr(Federation, "_wait", lambda *_: None)
        session._program("left", ["600"])
        assert len(inside(tmp_path)) == 1
    assert inside(tmp_path) == []
    monkeypatch.undo()
    monkeypatch.setattr(federation, "_beside", lambda _: "/bin/false")
    with Federation(tmp_path / "two") as session, pytest.raises(Unchecked, match="SuperLink ended"):
        session.start({}, lambda: None)


# --- a simulation ----------------------------------------------------------------------------------------------------


def test_a_simulation_learns_and_says_that_it_is_one(train, sites, tmp_path):
    rounds_seen = []
    said = train(topology="simulation", watch=rounds_seen.append, rounds_wanted="5")
    assert said["topology"] == "simulation" and said["transport"] == "none" and "authority" not in said
    assert {p["process"] for r in said["rounds"] for p in r["participants"]} == {os.getpid()} == {said["serverProcess"]}
    assert any("one process" in text for text in said["notProven"])
    assert [n for n, what in rounds_seen if what == "rounds"] == [1, 2, 3, 4, 5]
    model, fresh = dense.read(tmp_path / "model"), table(9)
    assert ((model.decision_function(fresh) > 0) == fresh.need).mean() > 0.9
    kept = model.layers[0]
    assert said["finalModel"] == rounds.digest_of([kept.weight[0], kept.bias]) == said["rounds"][-1]["modelAfter"]


def test_the_mean_is_the_one_worked_out_by_hand(sites):
    """Two clients, one local step from zero: the mean of the updates, weighted by rows."""
    learning = rounds.Learning("need", ["signal", "age"], {"age": (0, 90)}, 1, 0.5)
    allow = Asking(lambda *_: Cleared(), lambda: None)
    places = [rounds.Site(name, str(sites / name), "r", learning) for name in CLIENTS[:2]]
    grid = rounds.OneProcess([lambda m, s=s: rounds.answer(m, s, allow, lambda: None) for s in places])
    course = rounds.Course(list(CLIENTS[:2]), 1, 2, 1.0, 2)
    receipts = []
    found = rounds.run(grid, course, receipts.append)
    parts = [rounds.load(site) for site in places]
    gradient = [x.T @ (y - 0.5) for x, y in parts]
    assert np.allclose(found[0], 0.5 * sum(gradient) / sum(len(y) for _, y in parts))
    assert [p["rows"] for p in receipts[0]["participants"]] == [len(y) for _, y in parts]


def test_an_owner_who_forbids_is_obeyed_and_too_few_clients_stop_the_run(authority, train, sites, tmp_path):
    owner_allows(authority, sites / "west.csv", "care")
    said = train(topology="simulation")
    assert of_round(said, 1, "refused") == {"west.csv"} and of_round(said, 1, "dropped") == set()
    (tmp_path / "model").rename(tmp_path / "first")
    owner_allows(authority, sites / "east.csv", "research")
    with pytest.raises(Unchecked, match=r"too few clients.*data-policy:purpose"):
        train(topology="simulation")
    assert not (tmp_path / "model").exists()


def test_a_client_that_cannot_ask_refuses(sites):
    learning = rounds.Learning("need", ["signal"], {}, 1, 0.5)
    site = rounds.Site("east.csv", str(sites / "east.csv"), "r", learning)

    def archive():
        raise NotInitialised("no trust here")

    grid = rounds.OneProcess([lambda m: rounds.answer(m, site, Asking(), archive)])
    with pytest.raises(Unchecked, match=r"east.csv refused \(NotInitialised\)"):
        rounds.run(grid, rounds.Course(["east.csv"], 1, 1, 1.0, 1), lambda _: None)


def test_a_client_under_anothers_name_stops_the_run(sites):
    learning = rounds.Learning("need", ["signal"], {}, 1, 0.5)
    allow = Asking(lambda *_: Cleared(), lambda: None)
    for names in (["east.csv", "east.csv"], ["east.csv", "mallory.csv"]):
        places = [rounds.Site(name, str(sites / CLIENTS[0]), "r", learning) for name in names]
        grid = rounds.OneProcess([lambda m, s=s: rounds.answer(m, s, allow, lambda: None) for s in places])
        with pytest.raises(Unchecked, match="names that are not theirs"):
            rounds.run(grid, rounds.Course(["east.csv", "west.csv"], 1, 1, 1.0, 1), lambda _: None)


# --- what a reader refuses -------------------------------------------------------------------------------------------


def rechained(said):
    """The rounds with receipts that fit their fields again, as somebody would forge them."""
    previous = "0" * 64
    for one in said["rounds"]:
        one["previous"] = previous
        previous = one["receipt"] = receipt_of(one)
    return said


def test_a_broken_chain_or_a_simulation_in_disguise_is_refused(train):
    said = json.loads(json.dumps(dict(train(topology="simulation"))))
    assert predicates.check("federated-training", said)

    def refused(change, words, *, mend=False):
        forged = json.loads(json.dumps(said))
        change(forged)
        with pytest.raises(MalformedEvidence, match=words):
            predicates.check("federated-training", rechained(forged) if mend else forged)

    refused(lambda s: s["rounds"][1]["participants"].pop(), "receipt of round 2")
    refused(lambda s: s["rounds"].pop(0), "round 1 does not follow")
    refused(lambda s: s["rounds"].pop(), "not the one that the last round made")
    refused(lambda s: s.update(finalModel="1" * 64), "not the one that the last round made")
    refused(lambda s: s["rounds"][0]["participants"].pop(), "name every client once", mend=True)
    refused(lambda s: s["rounds"][0]["dropped"].append("east.csv"), "name every client once", mend=True)
    refused(lambda s: s["rounds"][0]["participants"][0].update(dataSha256="2" * 64), "other data", mend=True)
    refused(lambda s: s["rounds"][1].update(modelBefore="3" * 64), "does not follow", mend=True)
    refused(lambda s: s.update(topology="processes", transport="tls-loopback"), "not those of a topology")
    refused(lambda s: s.update(transport="tls-loopback"), "has no transport")
    refused(lambda s: s.update(minimumClients=4), "fewer clients than the minimum")


# --- what it refuses to start with -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "changes", "error", "words"),
    [
        (lambda d: [p.unlink() for p in list(d.iterdir())[1:]], {}, Misuse, "a table for each client"),
        (lambda d: (d / "east.csv").write_text("need,signal,age\n"), {}, Unreadable, "no rows"),
        (lambda d: (d / "east.csv").write_text("need,signal,age\n1,,3\n"), {}, Misuse, "missing values"),
        (lambda d: (d / "east.csv").write_text("need,signal\n1,2\n"), {}, Misuse, "no age"),
        (lambda d: (d / "east.csv").write_text("need,signal,age\n7,2,3\n"), {}, Misuse, "must be 0 and 1"),
        (lambda d: (d / "east.csv").write_bytes(b"\x89PNG\xff"), {}, Unreadable, "cannot be read"),
        (lambda d: None, {"topology": "cloud"}, Misuse, "topology is unknown"),
        (lambda d: None, {"minimum_clients": "4"}, Misuse, "out of range"),
        (lambda d: None, {"rounds_wanted": "0"}, Misuse, "out of range"),
        (lambda d: None, {"rounds_wanted": "30"}, Misuse, "do not fit a statement"),
    ],
    ids=["alone", "empty", "nan", "column", "labels", "picture", "topology", "minimum", "rounds", "many"],
)
def test_bad_input_is_one_sentence_before_anything_starts(
    train, sites, tmp_path, monkeypatch, spoil, changes, error, words
):
    monkeypatch.setattr(federation.subprocess, "Popen", None)
    spoil(sites)
    with pytest.raises(error, match=words) as caught:
        train(**changes)
    assert "\n" not in str(caught.value) and not (tmp_path / "model").exists()


def test_a_key_of_the_caller_and_its_passphrase_stay_here():
    told = [
        name for name in ("MLSEAL_TRUST", "MLSEAL_KEY", "MLSEAL_KEY_PASSPHRASE", "AWS_KEY") if federation._is_told(name)
    ]
    assert told == ["MLSEAL_TRUST"]
