"""Two people as two users of the machine, who share the public root and nothing else that is secret."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from adapters.dvc.conftest import Templates
from adapters.dvc.people import policy_text
from adapters.dvc.test_gateway import write_certificate
from adapters.dvc.two_people import ANN
from cryptography.hazmat.primitives.asymmetric import ec

from mlseal.evidence.clock import utcnow

ROOT = Path(__file__).parents[3]
LOGIN = "https://login.example"


def remote(url: str, *more: str) -> str:
    return "\n".join(["[core]", "    remote = store", "['remote \"store\"']", f"    url = {url}", *more]) + "\n"


@pytest.fixture
def public(new_authority: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """An authority where Ann may sign as producer and Ben as nobody; its public root where each can read it."""
    authority = new_authority()
    done = authority.run("trust", "grant", "--uid", str(ANN), "roles/producer")
    assert done.returncode == 0, done.stderr
    base = authority.state.parent / "people"
    base.mkdir()
    base.chmod(0o755)
    for name in ("trusted_root.json", "trust_config.json"):
        (base / name).write_bytes((authority.dir / name).read_bytes())
    (base / "policy.yaml").write_text(policy_text(authority.issuer, authority.san("producer")))
    for file in base.iterdir():
        file.chmod(0o644)
    return authority, base


def play(authority: Any, base: Path, templates: Templates, python: Path, **scene: Any) -> dict[str, Any]:
    scene |= {"base": str(base), "template": str(templates.repo), "policy": str(base / "policy.yaml")}
    scene |= {"root": str(base / "trusted_root.json"), "config": str(base / "trust_config.json")}
    env = authority.env | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "DVC_SITE_CACHE_DIR": str(base / "site")}
    done = subprocess.run(
        [python, "-m", "adapters.dvc.two_people"],
        input=json.dumps(scene),
        env=env,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def require(answers: dict[str, Any]) -> None:
    """What must have happened whatever the remote is."""
    ann, ben = answers["ann"].get("value"), answers["ben"].get("value")
    assert ann, answers["ann"]
    assert ann["pushed"]["code"] == 0, ann
    assert "signed 2 outputs" in ann["pushed"]["said"]
    assert ben, answers["ben"]
    assert ben["pulled"]["code"] == 0, ben
    assert "verified 2 outputs" in ben["pulled"]["said"]
    assert ben["data"] == ann["data"]
    forged = answers["forged"]["value"]
    assert forged["code"] != 0
    assert "no services to sign with" in forged["said"], "the public root signs nothing"
    assert answers["swapped"] >= 3
    after = answers["after"]["value"]
    assert after["pulled"]["code"] != 0
    assert "not the signed ones" in after["pulled"]["said"]
    assert after["found"] == {"data.csv": False, "imgs/a": False}


@pytest.mark.slow
def test_over_a_directory(public: tuple[Any, Path], templates: Templates, interpreters: dict[str, Path]) -> None:
    authority, base = public
    shared, warm = base / "remote", base / "warm-remote"
    shared.mkdir()
    shared.chmod(0o777)
    settings = remote(str(shared))
    answers = play(
        authority,
        base,
        templates,
        interpreters["auto"],
        warm=remote(str(warm)),
        ann=settings,
        ben=settings,
        store=str(shared),
        forbidden={"the service": str(authority.state)},
    )
    require(answers)
    assert {answers[f"{who} writes the service"]["error"] for who in ("ann", "ben")} == {"PermissionError"}


@pytest.fixture
def gateway(public: tuple[Any, Path], interpreters: dict[str, Path], tmp_path: Path) -> Iterator[dict[str, str]]:
    """A gateway of a third user (root) over a store that only it can open; people show tokens of a login outside."""
    authority, base = public
    store = base / "store"
    store.mkdir(mode=0o700)
    certificate = base / "cert.pem"
    write_certificate(certificate, tmp_path / "key.pem")
    certificate.chmod(0o644)
    key = ec.generate_private_key(ec.SECP256R1())
    public_key = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())) | {"kid": "k", "use": "sig"}
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [public_key]}))
    entry = {"issuer": LOGIN, "audience": "gateway", "jwks": str(tmp_path / "jwks.json"), "san": f"{LOGIN}/{{user}}"}
    (tmp_path / "issuers.json").write_text(json.dumps({"issuers": [entry]}))
    who = {name: f'{{issuer: "{LOGIN}", san: "{LOGIN}/{name}"}}' for name in ("ann", "ben")}
    (tmp_path / "access.yaml").write_text(f"read: [{who['ann']}, {who['ben']}]\nwrite: [{who['ann']}]\n")
    command = [interpreters["auto"], "-m", "mlseal", "dvc", "gateway", "--listen", "127.0.0.1:0", "--upstream", store]
    command += ["--cert", certificate, "--key", tmp_path / "key.pem", "--state", tmp_path / "state"]
    command += ["--trust", base / "trusted_root.json", "--policy", base / "policy.yaml"]
    command += ["--access", tmp_path / "access.yaml", "--external-issuer", tmp_path / "issuers.json"]

    def settings(url: str, user: str) -> str:
        now = int(utcnow().timestamp())
        claims = {"iss": LOGIN, "aud": "gateway", "sub": user, "user": user, "iat": now, "exp": now + 3600}
        token = jwt.encode(claims, key, algorithm="ES256", headers={"kid": "k"})
        return remote(
            url, "    auth = basic", f"    user = {user}", f"    password = {token}", f"    ssl_verify = {certificate}"
        )

    with subprocess.Popen(
        [str(word) for word in command], env=authority.env, cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        url = process.stdout.readline().split(" in front of")[0]
        assert url
        yield {"ann": settings(url, "ann"), "ben": settings(url, "ben"), "store": str(store)}
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.slow
def test_over_the_gateway(
    public: tuple[Any, Path], gateway: dict[str, str], templates: Templates, interpreters: dict[str, Path]
) -> None:
    authority, base = public
    answers = play(
        authority,
        base,
        templates,
        interpreters["auto"],
        warm=gateway["ann"],
        ann=gateway["ann"],
        ben=gateway["ben"],
        store=gateway["store"],
        forbidden={"the store": gateway["store"]},
    )
    require(answers)
    assert {answers[f"{who} writes the store"]["error"] for who in ("ann", "ben")} == {"PermissionError"}
