"""Every known way to promote past the gate, one row each, made on any server and judged by what the registry then says.

`WAYS` is the table. A row's ``attempt`` gets a running server (`Shop`), makes the attack as a client, and asserts the
state that another process reads afterwards. How a way ends:

`CLOSED`     the registry store refuses it
`DETECTED`   no registry store is asked; the reconciler finds the result, and ``attested:`` refuses to load it
`NAMED`      outside the registry; the threat model says so

What is not closed must be named in ``docs/threat-model.md`` by the words in ``named`` (tests/contracts/test_ways.py).
"""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLOSED, DETECTED, NAMED = "closed", "detected", "named"
REFUSED = "no test-result evidence"


@dataclass(frozen=True)
class Way:
    """One row: its number, what it is called, how it ends, the words of the threat model if it stays open."""

    row: int
    attempt: Callable[[Any], None]
    ends: str = CLOSED
    named: str = ""

    @property
    def name(self) -> str:
        """For a test's id."""
        return f"{self.row:02d}-{self.attempt.__name__}"


def proven(shop: Any, name: str | None = None) -> tuple[str, str, str]:
    """A registered model with one version that may be promoted."""
    return shop.model(name=name, proven=True)  # type: ignore[no-any-return]


def versions(shop: Any, name: str) -> list[int]:
    return sorted(int(v.version) for v in shop.client.search_model_versions(f"name='{name}'"))


def stage_of(shop: Any, name: str, version: str) -> str:
    return str(shop.client.get_model_version(name, version).current_stage)


def another(shop: Any, name: str, files: dict[str, bytes] | None = None) -> str:
    """One more version of `name`, which nothing proves."""
    source, _ = shop.upload(files or shop.pyfunc())
    made = shop.client.create_model_version(name, source, model_id=source.removeprefix("models:/"))
    return str(made.version)


def champion(shop: Any, name: str, version: str = "1") -> Any:
    return shop.post("registered-models/alias", name=name, alias="champion", version=version)


def found(shop: Any, name: str) -> dict[str, bool]:
    """What the reconciler says of each promotion of `name` in this workspace: alias or stage, and whether it stands."""
    return {finding.value: finding.error is None for finding in findings(shop, name)}


def findings(shop: Any, name: str | None = None, within: tuple[str | None, ...] = (None,)) -> list[Any]:
    """All that the reconciler says of `name`, of everything for None, with the server's policy in force."""
    from mlseal_mlflow import reconcile

    from mlseal.policy import load

    policies = load.in_force([shop.policy])
    client = reconcile.registry(shop.url)
    return list(reconcile.check(client, tracking_uri=shop.url, only=name, within=within, policies=policies))


def unloadable(shop: Any, reference: str) -> None:
    """Whoever loads through ``attested:`` is refused."""
    import mlflow

    shop.refused(lambda: mlflow.artifacts.download_artifacts(f"attested:/{reference}"))


def stages(shop: Any) -> None:
    name, version, _ = proven(shop)
    shop.client.transition_model_version_stage(name, version, "Production")
    other = another(shop, name)
    for stage in ("Production", "PRODUCTION", "staging"):
        answer = shop.post(
            "model-versions/transition-stage", name=name, version=other, stage=stage, archive_existing_versions=True
        )
        assert (answer.status_code, REFUSED in answer.text) == (403, True), answer.text
    assert (stage_of(shop, name, version), stage_of(shop, name, other)) == ("Production", "None")


def aliases(shop: Any) -> None:
    name, version, _ = proven(shop)
    shop.client.set_registered_model_alias(name, "champion", version)
    other = another(shop, name)
    for alias in ("champion", "Champion", "else"):
        shop.refused(lambda alias=alias: shop.client.set_registered_model_alias(name, alias, other))
    assert shop.aliases(name) == {"champion": version}


def client_side_copy(shop: Any) -> None:
    name, version, _ = shop.model()
    target = shop.fresh("risk-{}-prod")
    copy = f"models:/{name}/{version}"  # the client makes a new exception of the server's 403
    shop.refused(lambda: shop.client.copy_model_version(copy, target), REFUSED, status=500)
    assert versions(shop, target) == []


def direct_creation(shop: Any) -> None:
    target = shop.fresh("risk-{}-prod")
    shop.client.create_registered_model(target)
    source, _ = shop.upload(shop.pyfunc())
    for source in (source, "s3://evil-bucket/model", "file:///etc", "mlflow-artifacts:/0/../..", "zz:///x"):
        answer = shop.post("model-versions/create", name=target, source=source)
        assert 400 <= answer.status_code < 500, answer.text
    assert versions(shop, target) == []


def rename(shop: Any) -> None:
    name, version, _ = shop.model(name=shop.fresh("else-{}"))
    shop.client.set_registered_model_alias(name, "scratch", version)
    target = shop.fresh("risk-{}-prod")
    shop.refused(lambda: shop.client.rename_registered_model(name, target), REFUSED)
    assert shop.aliases(name) == {"scratch": version}
    assert shop.call("GET", f"registered-models/get?name={target}", {}).status_code == 404


def delete_and_recreate(shop: Any) -> None:
    name, version, _ = proven(shop)
    shop.client.set_registered_model_alias(name, "champion", version)
    shop.client.delete_registered_model(name)
    shop.model(shop.pyfunc({"evil": True}), name=name)  # number 1 again
    assert champion(shop, name).status_code == 403
    assert shop.aliases(name) == {}


def recreated_between_check_and_write(shop: Any) -> None:
    """Whatever the order, champion never points at what was not proven; a promotion is never answered 5xx."""
    name, version, _ = proven(shop)
    good = shop.client.get_model_version(name, version).source
    evil, place = shop.upload(shop.pyfunc({"evil": True}))
    with asking(lambda: champion(shop, name).status_code, 2) as statuses:
        for source in [evil, good] * 4 + [evil]:
            swap(shop, name, source)
            model = shop.registered(name)
            at = shop.client.get_model_version_download_uri(name, "1")
            assert not (model.get("aliases") and at == place), model
    assert shop.aliases(name) == {}
    assert shop.client.get_model_version_download_uri(name, "1") == place
    assert max(statuses) < 500, sorted(set(statuses))


def swap(shop: Any, name: str, source: str) -> None:
    """Delete the model and create it again with one version made from `source`; tries until nobody interferes."""
    for _ in range(50):  # PostgreSQL ends a transaction of two that wait for each other
        if shop.call("DELETE", "registered-models/delete", {"name": name}).status_code in (200, 404):
            break
    assert shop.post("registered-models/create", name=name).status_code == 200
    body = {"name": name, "source": source, "model_id": source.removeprefix("models:/")}
    assert shop.post("model-versions/create", **body).status_code == 200


@contextmanager
def asking(ask: Callable[[], int], threads: int) -> Iterator[list[int]]:
    """`ask` again and again in `threads` threads meanwhile; the list is what it gave."""
    stop, gave, broken = threading.Event(), [], []

    def work() -> None:
        try:
            while not stop.is_set():
                gave.append(ask())
        except Exception as error:  # noqa: BLE001 - raised below, in the thread that reads it
            broken.append(error)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield gave
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert not broken, broken
    assert gave


def overwritten_after_approval(shop: Any) -> None:
    name, version, place = proven(shop)
    shop.client.set_registered_model_alias(name, "champion", version)
    assert found(shop, name) == {"champion": True}
    shop.overwrite(place, "model.pkl", b"other bytes")
    assert shop.aliases(name) == {"champion": version}
    assert found(shop, name) == {"champion": False}
    unloadable(shop, f"{name}@champion")


def workspace_dissolved(shop: Any) -> None:
    """Models of a deleted workspace move into the default one, aliases included; no registry store is asked.

    An operator's command moves them one by one. The reconciler finds either, and from any workspace what is in another.
    """
    from mlflow.utils.workspace_context import WorkspaceContext
    from mlseal_mlflow import reconcile

    space, before = f"w-{uuid.uuid4().hex[:10]}", (dict(shop.headers), shop.experiment)
    if "X-MLFLOW-WORKSPACE" not in shop.headers:  # nothing to dissolve on this server
        created = rest(shop, "POST", "workspaces", {"name": space})
        assert "without workspaces support" in created.text, created.text
        return
    created = rest(shop, "POST", "workspaces", {"name": space})
    assert created.status_code < 300, created.text
    try:
        shop.headers["X-MLFLOW-WORKSPACE"] = space
        with WorkspaceContext(space):
            shop.experiment = shop.client.create_experiment(space)
            (name, version, _), (moved, _, _) = proven(shop), proven(shop)
            for model in (name, moved):
                shop.client.set_registered_model_alias(model, "champion", version)
            assert found(shop, name) == {"champion": True}
            insert = "insert into registered_model_aliases(workspace, name, alias, version) values(:w, :n, 'evil', 1)"
            assert statement(shop, insert, n=name) == 1
        shop.headers["X-MLFLOW-WORKSPACE"] = "default"
        with WorkspaceContext("default"):
            seen = findings(shop, name, ())
            assert [(f.workspace, f.value, f.error is None) for f in seen] == [
                (space, "champion", True),
                (space, "evil", False),
            ]
            assert reconcile.demote(reconcile.registry(shop.url), seen[1])
            told = json.loads(written(["reconcile", "--tracking-uri", shop.url, "--workspace", space, "--json"]))
            assert {(f["workspace"], f["model"], f["alias"]) for f in told["findings"]} == {
                (space, name, "champion"),
                (space, moved, "champion"),
            }
            move_resources(shop, space, moved)
            assert [(f.workspace, f.error is None) for f in findings(shop, moved, ())] == [("default", False)]
            answer = rest(shop, "DELETE", f"workspaces/{space}?mode=SET_DEFAULT", {})
            assert answer.status_code < 300, answer.text
            for model in (name, moved):
                assert shop.aliases(model) == {"champion": version}  # it went through
                assert found(shop, model) == {"champion": False}
                unloadable(shop, f"{model}@champion")
                shop.client.delete_registered_model(model)
    finally:
        shop.headers.update(before[0])
        shop.experiment = before[1]


def move_resources(shop: Any, space: str, name: str) -> None:
    """``mlflow db move-resources``: one model from `space` to the default workspace, past the server."""
    from click.testing import CliRunner
    from mlflow import db

    arguments = ["--from", space, "--to", "default", "--resource-type", "registered_models", "--name", name, "--yes"]
    done = CliRunner().invoke(db.commands, ["move-resources", shop.database, *arguments])
    assert done.exit_code == 0, done.output


def rest(shop: Any, method: str, route: str, body: dict[str, Any]) -> Any:
    """MLflow's third API, where workspaces are."""
    import requests

    url, more = f"{shop.url}/api/3.0/mlflow/{route}", {"headers": shop.headers, "auth": shop.auth}
    return requests.request(method, url, json=body, timeout=60, **more)


def consumers_that_ask_no_alias(shop: Any) -> None:
    """By number, newest, logged model, run or place: nothing was promoted, stock MLflow gives out what nobody judged.

    ``attested:`` does not, and has no spelling for runs and places.
    """
    import mlflow

    files = shop.pyfunc()
    name, version, place = shop.model(files)
    run = shop.client.create_run(shop.experiment).info
    for file, data in files.items():
        shop.overwrite(f"{run.artifact_uri}/model", file, data)
    logged = shop.client.get_model_version(name, version).source.removeprefix("models:/")
    known = (f"{name}/{version}", f"{name}/latest", logged)
    for uri in (*(f"models:/{reference}" for reference in known), f"runs:/{run.run_id}/model", place):
        got = mlflow.artifacts.download_artifacts(uri)
        assert Path(got, "model.pkl").read_bytes() == files["model.pkl"], uri
        shutil.rmtree(got, ignore_errors=True)
    for reference in known:
        unloadable(shop, reference)
    shop.refused(lambda: mlflow.artifacts.download_artifacts(f"attested:/runs:/{run.run_id}/model"), status=400)
    shop.refused(lambda: mlflow.artifacts.download_artifacts(f"attested:/{place}"), status=400)
    assert shop.aliases(name) == {}


def tags(shop: Any) -> None:
    name, version, _ = shop.model()
    shop.set_tag(name, version, "approved", "true")
    for key in ("mlseal.verdict", " MLSEAL.verdict", "ｍlseal.verdict"):
        shop.refused(lambda key=key: shop.set_tag(name, version, key, "allowed"), "name space")
        shop.refused(lambda key=key: shop.client.set_registered_model_tag(name, key, "allowed"), "name space")
    assert champion(shop, name).status_code == 403
    assert (shop.aliases(name), shop.tags(name, version)) == ({}, {"approved": "true"})


def prompts_rewritten(shop: Any) -> None:
    """Over REST it is refused; by SQL it happens, and the reconciler says so."""
    from mlseal.evidence.digest import measure

    name, text = shop.fresh("prompt-{}"), f"Say {uuid.uuid4().hex}"
    shop.client.register_prompt(name, text)
    shop.refused(lambda: shop.client.set_prompt_alias(name, "live", 1), REFUSED)
    file = shop.base / f"{name}.json"
    written(["prompt", name, "1", "-o", str(file), "--tracking-uri", shop.url])
    shop.prove_subjects(measure(file).subjects)
    shop.client.set_prompt_alias(name, "live", 1)
    shop.refused(lambda: shop.set_tag(name, "1", "mlflow.prompt.text", "Say evil"), "in use")
    assert (shop.tags(name, "1")["mlflow.prompt.text"], shop.aliases(name)) == (text, {"live": "1"})
    assert found(shop, name) == {"live": True}
    rewrite = "update model_version_tags set value='Say evil' where key='mlflow.prompt.text' and name=:n"
    assert statement(shop, rewrite, n=name) == 1
    assert (shop.tags(name, "1")["mlflow.prompt.text"], shop.aliases(name)) == ("Say evil", {"live": "1"})
    assert found(shop, name) == {"live": False}


def written(arguments: list[str]) -> str:
    """What a command of ``mlseal mlflow`` prints in this process; it must succeed."""
    from click.testing import CliRunner

    from mlseal.cli import main

    done = CliRunner().invoke(main, ["mlflow", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return str(done.stdout)


def spellings(shop: Any) -> None:
    name, version, _ = proven(shop)
    for alias in ("ｃhampion", "chаmpion", "champion\u200b"):
        answer = shop.post("registered-models/alias", name=name, alias=alias, version=version)
        assert answer.status_code in (400, 403), answer.text
    for number in ("01", " 1", "１", "+1", "0x1"):
        assert champion(shop, name, number).status_code == 400
    for twin in (name.upper(), name.replace("i", "і"), name + " "):
        assert shop.post("registered-models/create", name=twin).status_code == 400
    assert (shop.aliases(name), stage_of(shop, name, version)) == ({}, "None")
    assert [m.name for m in shop.client.search_registered_models(f"name ILIKE '{name}%'")] == [name]


def sql(shop: Any) -> None:
    """Whoever may write the database: an alias, stages, a version where creation is promotion, one that hides another."""
    name, version, _ = shop.model()
    insert = "insert into registered_model_aliases(workspace, name, alias, version) values(:w, :n, 'champion', :v)"
    assert statement(shop, insert, n=name, v=int(version)) == 1
    assert shop.aliases(name) == {"champion": version}
    assert found(shop, name) == {"champion": False}
    unloadable(shop, f"{name}@champion")

    other, hiding = another(shop, name), another(shop, name)
    both = "update model_versions set current_stage='Production' where workspace=:w and name=:n and version < 3"
    assert statement(shop, both, n=name) == 2
    shop.set_tag(name, hiding, "mlflow.prompt.is_prompt", "true")  # anyone may, and MLflow's search hides the others
    assert versions(shop, name) == []
    assert {(f.version, f.what) for f in findings(shop, name) if f.error is not None} == {
        *((version, what) for what in ("alias", "stage")),
        (other, "stage"),
    }
    assert [stage_of(shop, name, number) for number in (version, other)] == ["Production"] * 2

    target, evil, files = shop.fresh("risk-{}-prod"), shop.model()[0], shop.pyfunc()
    shop.prove(files)
    shop.model(files, name=target)
    assert statement(shop, COPY_ROW, n=evil, t=target) == 1
    assert {(f.version, f.what, f.error is None) for f in findings(shop, target)} == {
        ("1", "create", True),
        ("2", "create", False),
    }
    unloadable(shop, f"{target}/2")
    assert versions(shop, target) == [1, 2]


_COLUMNS = "creation_time, last_updated_time, current_stage, source, status, storage_location"
COPY_ROW = (
    f"insert into model_versions(workspace, name, version, {_COLUMNS}) "
    f"select workspace, :t, 2, {_COLUMNS} from model_versions where workspace=:w and name=:n and version=1"
)
"""Version 1 of ``:n`` becomes version 2 of ``:t`` as well."""


def statement(shop: Any, text: str, **values: Any) -> int:
    """Run SQL past the server, in the client's workspace (``:w``); how many rows it wrote."""
    import sqlalchemy

    values = {"w": shop.headers.get("X-MLFLOW-WORKSPACE", "default"), **values}
    engine = sqlalchemy.create_engine(shop.database)
    try:
        with engine.begin() as connection:
            return int(connection.execute(sqlalchemy.text(text), values).rowcount)
    finally:
        engine.dispose()


def webhooks(shop: Any) -> None:
    def listed() -> set[str]:
        answer = shop.call("GET", "webhooks", {})
        assert answer.status_code == 200, answer.text
        return {hook["name"] for hook in answer.json().get("webhooks", [])}

    name, url = shop.fresh("hook-{}"), "https://elsewhere.example/x"
    event = {"entity": "REGISTERED_MODEL", "action": "CREATED"}
    answer = shop.post("webhooks", name=name, url=url, events=[event])
    assert (answer.status_code, "listed hosts only" in answer.text) == (403, True), answer.text
    assert name not in listed()
    identity, listed_url = uuid.uuid4().hex, "https://listed.example/x"
    insert = (
        "insert into webhooks(workspace, webhook_id, name, url, status, creation_timestamp, last_updated_timestamp) "
        "values(:w, :i, :n, :u, 'DISABLED', 1, 1)"
    )
    assert statement(shop, insert, i=identity, n=name, u=listed_url) == 1
    insert = "insert into webhook_events(webhook_id, entity, action) values(:i, 'registered_model', 'created')"
    assert statement(shop, insert, i=identity) == 1
    answer = shop.call("PATCH", f"webhooks/{identity}", {"url": url, "status": "ACTIVE"})
    assert (answer.status_code, "listed hosts only" in answer.text) == (403, True), answer.text
    hook = shop.call("GET", f"webhooks/{identity}", {}).json()["webhook"]
    assert (hook["url"], hook["status"]) == (listed_url, "DISABLED")
    assert shop.call("DELETE", f"webhooks/{identity}", {}).status_code == 200


def a_method_of_a_later_mlflow(shop: Any) -> None:
    """What nobody examined stops the server at start; see tests/adapters/mlflow/test_surface.py for each kind."""
    import pytest
    from mlflow.store.model_registry.abstract_store import AbstractStore
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
    from mlseal_mlflow import surface
    from mlseal_mlflow.store import SealedStore

    from mlseal.errors import Unchecked

    later = type("Later", (SqlAlchemyStore,), {"promote_everything": lambda self, name: None})
    with pytest.raises(Unchecked, match="new: promote_everything"):
        surface.require_known(later, AbstractStore, type("Sealed", (SealedStore, later), {}))


def tracking_store(shop: Any) -> None:
    """Aliases of MLflow's registry of MCP servers are set without anybody being asked; they point at no model.

    Under gunicorn MLflow does not serve them.
    """
    assert "mlflow.tracking_store" not in registered_plugins()
    name, version = f"io.tests/{uuid.uuid4().hex}", "1.0.0"
    answer = rest(shop, "POST", "mcp-servers", {"name": name})
    if "--gunicorn-opts" in shop.arguments:
        assert answer.status_code in (404, 405), answer.text
        return
    assert answer.status_code == 200, answer.text
    about = {"name": name, "version": version, "description": "nobody looked"}
    answer = rest(shop, "POST", f"mcp-servers/{name}/versions", {"server_json": about})
    assert answer.status_code == 200, answer.text
    answer = rest(shop, "POST", f"mcp-servers/{name}/aliases", {"alias": "champion", "version": version})
    assert answer.status_code == 200, answer.text
    told = rest(shop, "GET", f"mcp-servers/{name}", {}).json()
    assert [(alias["alias"], alias["version"]) for alias in told["aliases"]] == [("champion", version)]


def registered_plugins() -> set[str]:
    """The plugin groups of MLflow in which mlseal stands."""
    from importlib.metadata import distribution

    return {entry.group for entry in distribution("mlseal").entry_points if entry.group.startswith("mlflow.")}


def promoted_while_artifacts_change(shop: Any) -> None:
    """PUTs race with promotions: the gate vouches for proven bytes only, and only those load."""
    import mlflow

    files = shop.pyfunc()
    name, version, place = shop.model(files, proven=True)
    with asking(lambda: champion(shop, name).status_code, 2) as statuses:
        for turn in range(12):
            data = b"evil" if turn % 2 == 0 else files["model.pkl"]
            shop.overwrite(place, "model.pkl", data)
    assert set(statuses) <= {200, 403, 409}, sorted(set(statuses))
    shop.overwrite(place, "model.pkl", b"evil")
    assert champion(shop, name).status_code == 403
    archive = shop.archive()
    archive.refresh()
    evil = shop.measured({**files, "model.pkl": b"evil"}).sha256
    said = [bundle.statement.predicate for bundle in archive.candidates([evil], ["slsa-vsa"])]
    assert {predicate["verificationResult"] for predicate in said} <= {"FAILED"}
    unloadable(shop, f"{name}@champion")
    shop.overwrite(place, "model.pkl", files["model.pkl"])
    assert champion(shop, name).status_code == 200
    got = mlflow.artifacts.download_artifacts(f"attested:/{name}@champion")
    assert Path(got, "model.pkl").read_bytes() == files["model.pkl"]


def two_promotions_at_once(shop: Any) -> None:
    """Two proven versions and one that is not: the alias ends on one that was allowed, each answer is clear."""
    name, version, _ = proven(shop)
    files = shop.pyfunc()
    second = another(shop, name, files)
    shop.prove(files)
    evil = another(shop, name)
    turn = iter(range(10_000))
    with asking(lambda: champion(shop, name, (version, second, evil)[next(turn) % 3]).status_code, 3) as statuses:
        for _ in range(8):
            now = shop.aliases(name)
            assert now.get("champion") in (None, version, second), now
    assert set(statuses) <= {200, 403, 409}, sorted(set(statuses))
    assert {200, 403} <= set(statuses)
    assert shop.aliases(name)["champion"] in (version, second)
    assert found(shop, name) == {"champion": True}


RACES = (recreated_between_check_and_write, promoted_while_artifacts_change, two_promotions_at_once)

WAYS = (
    Way(1, stages),
    Way(2, aliases),
    Way(3, client_side_copy),
    Way(4, direct_creation),
    Way(5, rename),
    Way(6, delete_and_recreate),
    Way(7, recreated_between_check_and_write),
    Way(8, overwritten_after_approval, DETECTED, "artifacts overwritten after promotion"),
    Way(
        9,
        workspace_dissolved,
        DETECTED,
        "a workspace deleted with `SET_DEFAULT` or emptied by `mlflow db move-resources` or "
        "`mlflow db migrate-to-default-workspace`",
    ),
    Way(
        10,
        consumers_that_ask_no_alias,
        NAMED,
        "`models:/NAME/VERSION`, `models:/NAME/latest`, `models:/m-ID`, `runs:/` or a storage path",
    ),
    Way(11, tags),
    Way(12, prompts_rewritten),
    Way(13, spellings),
    Way(14, sql, DETECTED, "writes to MLflow's database, runs `mlflow gc`"),
    Way(15, webhooks),
    Way(16, tracking_store, NAMED, "MCP registry, AI gateway"),
    Way(17, a_method_of_a_later_mlflow),
)
