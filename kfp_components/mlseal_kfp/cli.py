"""``mlseal kfp``: compile, lint and, for development, run pipelines. Thin; the modules beside it do the work."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlseal.cli.group import WholeSentences
from mlseal.errors import Error, Misuse, Refusal

if TYPE_CHECKING:
    from mlseal_kfp.compiled import Compiled
    from mlseal_kfp.host import HostResult

_JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


@click.group(cls=WholeSentences)
def kfp() -> None:
    """Kubeflow Pipelines: compile, lint, run on this host."""


@kfp.command("compile")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--image", "reference", metavar="REPO@sha256:…", help="Image by digest; tags and zero digests are refused."
)
@click.option(
    "--host", "for_host", is_flag=True, help="For host processes of this machine, bound to the installed code."
)
@click.option("--placeholder", is_flag=True, help="Leave the marked placeholder, as checked in.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Directory to write to."
)
@_JSON
def compile_(
    files: tuple[Path, ...], reference: str | None, for_host: bool, placeholder: bool, output: Path, as_json: bool
) -> None:
    """Compile FILES with an image filled in.

    A .py file gives each pipeline that it defines (it is imported, so it runs), a .yaml file is filled, and without
    FILES every component is written.
    """
    from mlseal_kfp import compiling, image

    if (reference is not None) + for_host + placeholder != 1:
        raise Misuse("say which image", expected="exactly one of --image, --host, --placeholder")
    if reference is not None:
        chosen = image.require_deployable(reference)
    else:
        chosen = image.host_reference() if for_host else image.PLACEHOLDER
    written = [compiling.write(pipeline, output) for pipeline in _sources(files, chosen)]
    _say({"image": chosen, "written": [str(path) for path in written]}, [f"wrote {path}" for path in written], as_json)


def _sources(files: tuple[Path, ...], chosen: str) -> list[Compiled]:
    from mlseal_kfp import compiling, ports

    if not files:
        return [compiling.compile_component(name, chosen) for name in ports.names()]
    found: list[Compiled] = []
    for file in files:
        if file.suffix == ".py":
            found += compiling.compile_pipelines(file, chosen).values()
        elif file.suffix in {".yaml", ".yml"}:
            found.append(compiling.fill_file(file, chosen))
        else:
            raise Misuse(f"{file} is neither Python nor YAML", expected="a .py or .yaml file")
    return found


@kfp.command("components")
@click.option("--markdown", is_flag=True, help="As the table in docs/kfp.md.")
@_JSON
def components_(markdown: bool, as_json: bool) -> None:
    """List the components and their ports."""
    from mlseal_kfp import ports, reference

    interfaces = [ports.interface(name) for name in ports.names()]
    if markdown:
        click.echo(reference.markdown(interfaces), nl=False)
        return
    document = {i.stage: [reference.describe(port) for port in i.ports] for i in interfaces}
    _say(document, [reference.lines(interface) for interface in interfaces], as_json)


@kfp.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--allow-image", "images", multiple=True, metavar="REF", help="Only these images may occur; repeatable.")
@click.option("--require", "stages", multiple=True, metavar="STAGE", help="This stage must reach a gate; repeatable.")
@click.option(
    "--protect", "protected", multiple=True, metavar="TASK", help="This task must wait for enforce; repeatable."
)
@click.option("--allow-source", is_flag=True, help="Accept programs embedded in the file.")
@click.option("--allow-host", is_flag=True, help="Accept a file compiled for this kind of host (development).")
@click.option("--rules", is_flag=True, help="List the rules and end.")
@_JSON
def lint(
    files: tuple[Path, ...],
    images: tuple[str, ...],
    stages: tuple[str, ...],
    protected: tuple[str, ...],
    allow_source: bool,
    allow_host: bool,
    rules: bool,
    as_json: bool,
) -> None:
    """Check compiled FILES; exit 10 when a rule is broken."""
    from mlseal_kfp import compiled
    from mlseal_kfp import lint as linting

    if rules:
        _say(dict(linting.RULES), [f"{name:16} {text}" for name, text in linting.RULES.items()], as_json)
        return
    if not files:
        raise Misuse("no file to check", expected="compiled YAML files")
    demands = linting.Demands(frozenset(images), stages, protected, allow_source, allow_host)
    reports, lines, broken = [], [], 0
    for file in files:
        pipeline = compiled.read(file)
        problems = linting.lint(pipeline, demands)
        broken += len(problems)
        reports.append({"file": str(file), **linting.report(pipeline, problems)})
        lines += [f"{file}: sha256 {pipeline.sha256}", *(f"  {problem}" for problem in problems)]
    _say({"files": reports, "problems": broken}, lines, as_json)
    if broken:
        raise Refusal(
            f"{broken} broken rule{'s' * (broken > 1)}",
            remedy="mend what is listed above, or see 'mlseal kfp lint --rules'",
        )


@kfp.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--param", "parameters", multiple=True, metavar="NAME=VALUE", help="Pipeline parameter; repeatable.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".mlseal/kfp"),
    show_default=True,
    help="Where artifacts and logs go.",
)
@click.option("--role", help="Role that stages sign as (MLSEAL_ROLE).")
@click.option(
    "--token-file", type=click.Path(path_type=Path), help="Identity token for every step (MLSEAL_TOKEN_FILE)."
)
@click.option("--env", "variables", multiple=True, metavar="NAME=VALUE", help="Variable for every step; repeatable.")
@click.option(
    "--reuse", is_flag=True, help="Stages take evidence that exists for the same bytes and settings (MLSEAL_REUSE)."
)
@click.option(
    "--stand-in", "images", multiple=True, metavar="REF", help="Run this image's steps as processes; repeatable."
)
@click.option(
    "--allow-module", "modules", multiple=True, metavar="NAME", help="Further module a step may start; repeatable."
)
@click.option(
    "--task-seconds", type=click.FloatRange(min=0.1), default=3600.0, show_default=True, help="Deadline of a task."
)
@click.option(
    "--run-seconds", type=click.FloatRange(min=0.1), default=21600.0, show_default=True, help="Deadline of the run."
)
@_JSON
def run(
    file: Path,
    parameters: tuple[str, ...],
    root: Path,
    role: str | None,
    token_file: Path | None,
    variables: tuple[str, ...],
    reuse: bool,
    images: tuple[str, ...],
    modules: tuple[str, ...],
    task_seconds: float,
    run_seconds: float,
    as_json: bool,
) -> None:
    """Run compiled FILE as processes of this host, for development: nothing is isolated, nothing is enforced.

    The exit status is that of the step that stopped the run.
    """
    from mlseal_kfp import host as hosts

    environment = _pairs(variables, "--env")
    if role is not None:
        environment["MLSEAL_ROLE"] = role
    if token_file is not None:
        environment["MLSEAL_TOKEN_FILE"] = str(token_file.absolute())
    host = hosts.Host(
        images=frozenset(images),
        modules=frozenset({"mlseal_kfp.step", *modules}),
        environment=environment,
        task_seconds=task_seconds,
        run_seconds=run_seconds,
        reuse=reuse,
    )
    click.echo(hosts.NOTICE, err=True)
    result = hosts.run(file, _pairs(parameters, "--param"), root, host, progress=None if as_json else _show)
    _say(_result(result), [f"log {result.log}"], as_json)
    result.require()


def _show(event: Any) -> None:
    """One line when a task starts and one when it ends, so that nobody waits in front of nothing."""
    if event.get("event") == "start":
        click.echo(f"  {event['task']} …", err=True)
    elif event.get("event") == "end":
        ended = (
            "ok" if event["exit"] == 0 else "stopped at its deadline" if event["timedOut"] else f"exit {event['exit']}"
        )
        click.echo(f"  {event['task']}: {ended} ({event['seconds']:.1f} s)", err=True)


def _result(result: HostResult) -> dict[str, Any]:
    return {
        "ok": result.ok,
        "notice": result.notice,
        "pipeline": result.pipeline,
        "sha256": result.sha256,
        "outputs": dict(result.outputs),
        "log": str(result.log),
        "message": result.message,
        "tasks": [
            {
                "task": t.name,
                "stage": t.stage,
                "exit": t.exit_code,
                "seconds": t.seconds,
                "timedOut": t.timed_out,
                "error": t.error,
                "directory": t.directory,
            }
            for t in result.tasks
        ],
    }


def _pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name or name in found:
            raise Misuse(f"{option} is NAME=VALUE, each name once", got=text[:80])
        found[name] = value
    return found


def _say(document: dict[str, Any], lines: list[str], as_json: bool) -> None:
    click.echo(json.dumps(document, indent=1, sort_keys=True) if as_json else "\n".join(lines))


def main() -> None:
    """The group alone, without the core's command line."""
    try:
        kfp(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Error as error:
        click.echo(f"mlseal: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
