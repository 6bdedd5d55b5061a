"""New keys and a new log, while the service runs: what was signed before stays true, what comes after is by the new."""

import base64
import json
import os
import threading
from pathlib import Path

import stock

from mlseal.tlog import checkpoint

NAME = "lab.mlseal.local"
ISSUER = f"https://{NAME}/issuer"
SAN = f"https://{NAME}/roles/producer"


def fingerprint(lab):
    return json.loads(lab.mlseal("trust", "show", "--json").stdout)["fingerprint"]


def test_rotation_with_overlap(service):
    lab = service
    old_root = lab.trusted_root.read_text()
    old = fingerprint(lab)
    before = lab.bundle(1)
    old_size = lab.size("log", 1)
    told = json.loads(lab.mlseal("trust", "rotate", "--overlap", "12h", "--json").stdout)
    assert told["log"] == f"log2.{NAME}"
    after = lab.bundle(2)  # the same process, without a restart
    new_root = lab.trusted_root.read_text()
    for bundle in (before, after):
        assert stock.sigstore_python(bundle, new_root, SAN, ISSUER)
        assert stock.sigstore_js(bundle, new_root, SAN, ISSUER)
    assert stock.sigstore_python(before, old_root, SAN, ISSUER)
    for verify in (stock.sigstore_python, stock.sigstore_js):
        try:
            verify(after, old_root, SAN, ISSUER)
        except stock.Rejected:
            continue
        raise AssertionError("a root believes keys that it does not know")
    # Both logs are read; the old one takes nothing more.
    for log in json.loads(new_root)["tlogs"]:
        origin = log["baseUrl"].removeprefix("https://")
        note = lab.call("GET", f"/log/{origin}/checkpoint")[1].decode()
        assert checkpoint.open_note(note, origin, base64.b64decode(log["publicKey"]["rawBytes"])[-32:]).size >= 1
    status, document = lab.append(json.loads("{}"), origin=f"log1.{NAME}")
    assert (status, document["code"]) == (410, 410)
    assert lab.size("log", 1) == old_size
    # The user's default is the new root; the old one stays pinned, and both lead to the same service.
    new = fingerprint(lab)
    assert new == told["fingerprint"] != old
    pinned = {
        row["fingerprint"]: row["default"] for row in json.loads(lab.mlseal("trust", "list", "--json").stdout)["roots"]
    }
    assert pinned == {new: True, old: False}
    services = json.loads((Path(lab.env["HOME"]) / ".config/mlseal/services.json").read_text())
    assert services == {old: {"state": str(lab.state)}, new: {"state": str(lab.state)}}
    config = json.loads((lab.project / ".mlseal" / "trust_config.json").read_text())
    assert config["signingConfig"]["rekorTlogUrls"][0]["url"].endswith(f"/log/log2.{NAME}")


def test_ends_of_the_old_and_the_new(lab):
    lab.init()
    first = json.loads(lab.trusted_root.read_text())
    lab.mlseal("trust", "rotate", "--overlap", "2h", "--lifetime", "100d")
    second = json.loads(lab.trusted_root.read_text())
    lab.mlseal("trust", "rotate", "--overlap", "3h")
    third = json.loads(lab.trusted_root.read_text())

    def end(entry):
        return (entry.get("validFor") or entry["publicKey"]["validFor"])["end"]

    for group in ("tlogs", "ctlogs", "certificateAuthorities", "timestampAuthorities"):
        assert [len(root[group]) for root in (first, second, third)] == [1, 2, 3]
        assert end(second[group][0]) < end(first[group][0])
        assert end(third[group][0]) == end(second[group][0]), "an end that is drawn in does not move out again"
        assert end(third[group][0]) < end(third[group][1]) < end(third[group][2])
    ids = [entry["logId"]["keyId"] for entry in third["tlogs"]]
    assert len(set(ids)) == 3
    assert lab.mlseal("trust", "rotate", "--overlap", "nonsense", ok=False).returncode == 2


def test_certificate_in_flight_is_still_logged(service):
    """Certified before, logged after the rotation: the new log knows the old authority until its end."""
    import hashlib

    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    lab = service
    certificate, key = lab.leaf(lab.token())
    lab.mlseal("trust", "rotate")
    digest = hashlib.sha256(b"in flight").digest()
    signature = key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    assert lab.append(lab.entry_request(digest, signature, certificate), origin=f"log2.{NAME}")[0] == 201


def test_tokens_of_the_old_issuer_key_end(service):
    lab = service
    token = lab.token()
    lab.mlseal("trust", "rotate")
    before = lab.size("ct", 2)
    assert lab.certificate(token)[0] == 401
    assert lab.size("ct", 2) == before


def test_crash_between_keys_and_record(service):
    """Keys of a generation that the record does not name are nothing, and do not hinder the next rotation."""
    lab = service
    left = lab.state / "keys" / "2"
    left.mkdir(mode=0o700)
    (left / "ca.pem").write_bytes(b"half a k")
    assert lab.bundle(1)
    lab.mlseal("trust", "rotate")
    assert lab.bundle(2)


def test_two_rotations_at_once_are_two_generations(lab):
    lab.create()
    threads = [threading.Thread(target=lab.mlseal, args=("trust", "rotate", "--state", lab.state)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lab.newest() == 3
    assert sorted(os.listdir(lab.state / "keys")) == ["1", "2", "3"]
    lab.start()
    assert lab.bundle()


def test_rotating_under_load_loses_nothing(service):
    lab = service
    failures, done, stop = [], [], threading.Event()

    def sign(worker):
        number = worker * 10_000
        while not stop.is_set():
            number += 1
            try:
                done.append(lab.bundle(number))
            except AssertionError as error:
                failures.append(str(error))

    workers = [threading.Thread(target=sign, args=(n,)) for n in range(1, 4)]
    for worker in workers:
        worker.start()
    lab.mlseal("trust", "rotate")
    stop.wait(0.3)
    stop.set()
    for worker in workers:
        worker.join()
    root = lab.trusted_root.read_text()
    assert all(
        not isinstance(o, stock.Rejected) for o in stock.sigstore_js_many([(b, SAN, ISSUER) for b in done], root)
    )
    assert done
    # A client that was between two calls may be told that the log was retired or its token is by the old key.
    assert all("takes no entries" in f or "not signed by its issuer" in f or "log2" in f for f in failures), failures


def test_others_pin_the_new_root_by_its_fingerprint(lab, tmp_path):
    lab.init()
    lab.mlseal("trust", "rotate")
    handed = tmp_path / "handed"
    told = json.loads(lab.mlseal("trust", "export", handed, "--json").stdout)
    assert sorted(p.name for p in handed.iterdir()) == ["trust_config.json", "trusted_root.json"]
    lab.env["HOME"] = str(tmp_path / "second")
    lab.mlseal("trust", "add", handed / "trusted_root.json", "--fingerprint", told["fingerprint"])
    assert fingerprint(lab) == told["fingerprint"]
    refused = lab.mlseal("trust", "add", handed / "trusted_root.json", "--fingerprint", "sha256:" + "0" * 64, ok=False)
    assert refused.returncode == 10
    assert "not the one announced" in refused.stderr
