"""Who asks, from a login application or a login proxy; whoever only says so is nobody, or refused."""

from __future__ import annotations

import http.client
import json
import socket
import urllib.parse
from types import SimpleNamespace

import flask
import pytest
from mlseal_mlflow import requester
from mlseal_mlflow.requester import OIDC, OIDC_KEY, PROXY, Asking, Proxy, Requester

from mlseal.errors import Misuse, Refusal

HEADER = "X-Forwarded-User"
LOCAL = Proxy(HEADER, frozenset({"127.0.0.1"}))


def asks(asking, *, headers=None, address="127.0.0.1", environ=None):
    """Who that is, for a request as the web server hands it on."""
    app = flask.Flask(__name__)
    with app.test_request_context(headers=headers, environ_base={"REMOTE_ADDR": address, **(environ or {})}):
        return asking.current()


def test_the_user_of_mlflow_oidc_auth():
    context = SimpleNamespace(username="ana@hospital.example", is_admin=False, workspace=None)
    for asking in (Asking(), Asking(required=True, proxy=LOCAL)):
        assert asks(asking, environ={OIDC_KEY: context}) == Requester(OIDC, "ana@hospital.example")


@pytest.mark.parametrize("context", [None, SimpleNamespace(username=None), SimpleNamespace(username=""), object()])
def test_no_user_of_mlflow_oidc_auth(context):
    assert asks(Asking(), environ={OIDC_KEY: context}).name is None
    with pytest.raises(Refusal, match="only for a user whom a login vouches for"):
        asks(Asking(required=True), environ={OIDC_KEY: context})


def test_a_client_cannot_send_what_mlflow_oidc_auth_leaves():
    headers = {OIDC_KEY: "ana", "mlflow-oidc-auth": "ana", f"HTTP_{OIDC_KEY}": "ana"}
    assert asks(Asking(proxy=LOCAL), headers=headers).name is None


def test_a_header_counts_only_where_the_operator_said_so():
    assert asks(Asking(), headers={HEADER: "ana"}).name is None
    assert asks(Asking(proxy=LOCAL), headers={"Remote-User": "ana"}).name is None
    assert asks(Asking(proxy=LOCAL), headers={HEADER: "ana"}) == Requester(PROXY, "ana")


@pytest.mark.parametrize("address", ["10.1.2.3", "127.0.0.2", "::1", ""])
def test_the_header_from_another_address_is_refused(address):
    with pytest.raises(Refusal, match="nothing shows that the login proxy set it"):
        asks(Asking(proxy=LOCAL), headers={HEADER: "ana"}, address=address)


@pytest.mark.parametrize("value", ["ana,boss", "ana, boss", "ana boss", "", " ", "ana;boss", "ana\tboss"])
def test_a_value_that_two_may_have_written_is_refused(value):
    with pytest.raises(Refusal, match="one name without spaces"):
        asks(Asking(proxy=LOCAL), environ={"HTTP_X_FORWARDED_USER": value})


def test_an_address_that_may_be_claimed_is_refused(monkeypatch):
    """uvicorn takes the client's address from X-Forwarded-For, where it trusts who connects."""
    headers = {HEADER: "ana", "X-Forwarded-For": "127.0.0.1"}
    for value in (None, "127.0.0.1", "*"):
        monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
        if value:
            monkeypatch.setenv("FORWARDED_ALLOW_IPS", value)
        with pytest.raises(Refusal, match="FORWARDED_ALLOW_IPS=none"):
            asks(Asking(proxy=LOCAL), headers=headers)
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "none")
    assert asks(Asking(proxy=LOCAL), headers=headers).name == "ana"
    monkeypatch.delenv("FORWARDED_ALLOW_IPS")  # gunicorn takes no address from a header, and does not start with "none"
    assert asks(Asking(proxy=LOCAL), headers=headers, environ={"SERVER_SOFTWARE": "gunicorn/26.2.0"}).name == "ana"
    with pytest.raises(Refusal, match="FORWARDED_ALLOW_IPS=none"):
        asks(Asking(proxy=LOCAL), headers=headers | {"Server-Software": "gunicorn", "SERVER_SOFTWARE": "gunicorn"})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MLSEAL_MLFLOW_IDENTITY", "yes"),
        ("MLSEAL_MLFLOW_PROXY", ""),
        ("MLSEAL_MLFLOW_PROXY", "X-Forwarded-User"),
        ("MLSEAL_MLFLOW_PROXY", "X-Forwarded-User *"),
        ("MLSEAL_MLFLOW_PROXY", "X-Forwarded-User 0.0.0.0/0"),
        ("MLSEAL_MLFLOW_PROXY", "X_Forwarded_User 127.0.0.1"),
        ("MLSEAL_MLFLOW_PROXY", "127.0.0.1"),
    ],
)
def test_what_cannot_be_read_stops_the_start(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(Misuse, match=variable):
        requester.configured()


TRUSTED, STRANGER = "127.0.0.1", "127.0.0.2"


def send(shop, name, *headers, peer=TRUSTED):
    """A promotion from `peer` with these header lines, as any client may write them; status and body."""
    where = urllib.parse.urlsplit(shop.url)
    body = json.dumps({"name": name, "alias": "champion", "version": "1"})
    lines = ["POST /api/2.0/mlflow/registered-models/alias HTTP/1.1", f"Host: {where.netloc}", "Connection: close"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    with socket.create_connection((where.hostname, where.port), 60, source_address=(peer, 0)) as connection:
        connection.sendall("\r\n".join([*lines, "", body]).encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read().decode()


OF_STRANGERS = (
    ("X-Forwarded-User: ana",),
    ("x-forwarded-user: ana",),
    ("X_Forwarded_User: ana",),
    ("X-Forwarded_User: ana",),
    ("X-Forwarded-User : ana",),
    ("X-Forwarded-User:  ana  ",),
    ("X-Forwarded-User: ana", "X-Forwarded-User: ana"),
    ("X-Forwarded-User: x", " ana"),
    ("X-Forwarded-User: ana", "X-Forwarded-For: 127.0.0.1"),
    ("X-Forwarded-User: ana", "X_Forwarded_For: 127.0.0.1", "X-Real-IP: 127.0.0.1", "Forwarded: for=127.0.0.1"),
    ("X-Forwarded-User: ana", "Remote-Addr: 127.0.0.1", "REMOTE_ADDR: 127.0.0.1", "Client-IP: 127.0.0.1"),
    ("X-Forwarded-User: ana", "Connection: X-Forwarded-User"),
)
"""What somebody who is not the proxy may write."""

THROUGH_THE_PROXY = (
    (),
    ("Remote-User: ana",),
    ("X-Forwarded-User: ana", "X-Forwarded-User: boss"),
    ("X-Forwarded-User: ana", "x-forwarded-user: ana"),
    ("X-Forwarded-User: ana", "X_Forwarded_User: boss"),
    ("X_Forwarded_User: boss", "X-Forwarded-User: ana"),
    ("X-Forwarded-User : ana",),
    ("X-Forwarded-User: ana", " boss"),
    ("X-Forwarded-User: ana ",),
    ("X-Forwarded-User:",),
    ("X-Forwarded-User;: ana",),
)
"""What a client may have added to what a proxy sends that replaces one spelling only."""


@pytest.fixture(params=["uvicorn", "gunicorn"])
def behind_proxy(new_shop, request):
    """A server that decides only for users whom the login proxy names."""
    policy_env = {"MLSEAL_MLFLOW_IDENTITY": "required", "MLSEAL_MLFLOW_PROXY": f"{HEADER} {TRUSTED}"}
    gunicorn = request.param == "gunicorn"
    arguments = ("--gunicorn-opts", "--timeout 120") if gunicorn else ()
    shop = new_shop(workers=1, arguments=arguments, FORWARDED_ALLOW_IPS="" if gunicorn else "none", **policy_env)
    shop.headers = {HEADER: "ana"}
    shop.server_program = request.param
    return shop


def test_a_server_that_requires_an_identity(behind_proxy, monkeypatch):
    """Every forged request is refused before anything is judged; the proxy's own goes through, by pseudonym."""
    import requests

    shop = behind_proxy
    files = shop.pyfunc()
    name = shop.fresh()
    url = f"{shop.url}/api/2.0"
    info = shop.post("logged-models", experiment_id="0", name="m").json()["model"]["info"]
    for file, data in files.items():
        shop.overwrite(info["artifact_uri"], file, data)
    shop.post("registered-models/create", name=name)
    body = {"name": name, "source": f"models:/{info['model_id']}", "model_id": info["model_id"]}
    assert requests.post(f"{url}/mlflow/model-versions/create", json=body, timeout=60).status_code == 403
    assert shop.post("model-versions/create", **body).status_code == 200
    shop.prove(files)
    log = shop.authority.home.path / ".local/state/mlseal/mlflow-decisions/decisions.jsonl"
    tried = [(STRANGER, headers) for headers in OF_STRANGERS] + [(TRUSTED, headers) for headers in THROUGH_THE_PROXY]
    for peer, headers in tried:
        status, said = send(shop, name, *headers, peer=peer)
        if status == 200:  # gunicorn leaves out what is spelt with underscores, and spaces: what the proxy said stands
            line = json.loads(log.read_text().splitlines()[-1])
            assert (shop.server_program, peer, line["requester"]) == ("gunicorn", TRUSTED, "ana"), headers
            shop.call("DELETE", "registered-models/alias", {"name": name, "alias": "champion"})
        else:
            assert status in (400, 403), (peer, headers, said)
        assert shop.aliases(name) == {}, (peer, headers)
    status, said = send(shop, name, "x-forwarded-USER:  ana", "X-Forwarded-For: 10.1.2.3")
    assert status == 200, said
    assert shop.aliases(name) == {"champion": "1"}
    lines = [line for line in map(json.loads, log.read_text().splitlines()) if line["action"]["model"] == name]
    assert (lines[-1]["requester"], lines[-1]["source"], lines[-1]["decision"]) == ("ana", "proxy", "allowed")
    assert {line["decision"] for line in lines if line["requester"] is None} == {"refused"}
    shop.headers = {HEADER: "boss"}
    shop.call("DELETE", "registered-models/alias", {"name": name, "alias": "champion"})
    shop.headers = {}  # nobody need be known to stop a model
    assert shop.call("DELETE", "registered-models/delete", {"name": name}).status_code == 200
    lines = [line for line in map(json.loads, log.read_text().splitlines()) if line["action"]["model"] == name]
    ends = [(line["requester"], line["action"]["action"]) for line in lines if line["decision"] == "demoted"]
    assert ends[-2:] == [("boss", "delete-alias"), (None, "delete-model")]
    archive = shop.archive()
    archive.refresh()
    said = [bundle.statement.predicate["mlseal"] for bundle in archive.of_type(["slsa-vsa"])]
    assert {v["requester"]["source"] for v in said} == {"proxy"}
    for path in shop.authority.store.root.rglob("*"):
        assert not path.is_file() or b'"ana"' not in path.read_bytes()
