"""A click group whose commands are strings until used, and whose failures are one sentence and an exit code."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import IO, Any, NamedTuple

import click

from mlseal.errors import DuplicateName, Error, MissingExtra, Misuse, Unreadable

ENTRY_POINT_GROUP = "mlseal.commands"
OWN_DISTRIBUTION = "mlseal"
ALLOWED_PROVIDERS = "MLSEAL_COMMAND_PROVIDERS"
INTERRUPTED = 130
BROKEN_PIPE = 141
_LONGEST = 400  # characters of a sentence in --help
_ADAPTERS = {  # so that no adapter is imported for --help
    "dvc": "Sign what DVC pushes, verify what it pulls.",
    "kfp": "Compile pipelines with evidence stages, check them and run them here.",
    "mlflow": "Run MLflow with a registry that asks for evidence, and ask what it allowed.",
}


class Command(NamedTuple):
    """Where a command lives (``module:object``) and its line in ``mlseal --help``."""

    target: str
    summary: str


class WholeSentences(click.Group):
    """A group whose ``--help`` shows the first sentence of each command whole: click cuts it off at the line's end."""

    group_class = type  # groups in it are made alike

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One row for each command."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, one.get_short_help_str(_LONGEST)) for name, one in commands if one and not one.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class LazyGroup(click.Group):
    """Commands by table first, by entry point second; a module is imported when its command is used.

    Guarantees: a built-in name cannot be taken over by an installed package; two packages that offer one name are
    refused; entry points of other distributions run only when the environment variable MLSEAL_COMMAND_PROVIDERS
    names the distribution, since loading one executes its code with the rights of the person who types.
    Every exception leaves as a code of the table in `mlseal.cli`, also under click's test runner.
    """

    def __init__(self, *args: Any, table: Mapping[str, Command], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands: built in by their order in the table, then those of adapters."""
        foreign = {point.name for point in _allowed_points()} - self._table.keys()
        return [*self._table, *sorted({*super().list_commands(ctx), *foreign} - self._table.keys())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command called `cmd_name`, imported now; None when nobody offers it.

        Errors: `DuplicateName` for a name that two packages offer; `MissingExtra` when its library is absent.
        """
        if command := super().get_command(ctx, cmd_name):
            return command
        if cmd_name in self._table:
            module, _, name = self._table[cmd_name].target.partition(":")
            return _checked(cmd_name, EntryPoint(cmd_name, f"{module}:{name}", ENTRY_POINT_GROUP))
        points = [point for point in _allowed_points() if point.name == cmd_name]
        if len({point.value for point in points}) > 1:
            raise DuplicateName(
                f"two installed packages offer the command '{cmd_name}'",
                got=" and ".join(sorted(_provider(point) for point in points)),
                expected="one provider",
                remedy="uninstall one of them",
            )
        return _checked(cmd_name, points[0]) if points else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but a mistyped name is answered with the nearest ones."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx), n=3)
            if not near:
                raise
            raise click.UsageError(f"No such command '{args[0]}'; did you mean {' or '.join(near)}?", ctx) from error

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in ``--help``, from the table alone: no command module is imported for it."""
        rows = [(name, command.summary) for name, command in self._table.items()]
        rows += [(point.name, _summary(point)) for point in sorted(_allowed_points())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> None:
        """Run the command. What it returns is dropped: only an exception or ``ctx.exit`` sets the exit code."""
        super().invoke(ctx)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run and exit. With ``standalone_mode=False`` exceptions pass through, for callers that embed the group."""
        argv = list(sys.argv[1:] if args is None else args)
        if not standalone_mode:
            return super().main(argv, prog_name, complete_var, standalone_mode=False, **extra)
        sys.exit(_guarded(partial(self._perform, argv, prog_name or "mlseal", complete_var, extra), _json_wanted(argv)))

    def _perform(self, argv: list[str], prog_name: str, complete_var: str | None, extra: dict[str, Any]) -> None:
        """The plain run. click's own `main` would turn a closed pipe into exit code 1, which is a fault's."""
        self._main_shell_completion(extra, prog_name, complete_var)
        with self.make_context(prog_name, argv, **extra) as ctx:
            self.invoke(ctx)


def _guarded(run: Callable[[], None], as_json: bool) -> int:
    """Call `run`; turn however it ends into an exit code and, on failure, one sentence."""
    code = 0
    try:
        try:
            run()
        except click.exceptions.Exit as stop:
            code = stop.exit_code
        sys.stdout.flush()  # a full disk or a closed pipe behind stdout must not end as success
    except BrokenPipeError:
        _discard(sys.stdout)
        return BROKEN_PIPE
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted; nothing further was done", {"error": "Interrupted", "exitCode": INTERRUPTED}, as_json)
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last line of defence: whatever it is, it is a stop
        return _failed(error, as_json=as_json)
    return code


def _failed(error: Exception, *, as_json: bool) -> int:
    if os.environ.get("MLSEAL_DEBUG") == "1":
        traceback.print_exception(error)
    known = _as_error(error)
    if known is None:
        sentence = f"unexpected {type(error).__name__}: {_one_line(str(error)) or 'no message'}"
        sentence += "; nothing was allowed; remedy: run again with MLSEAL_DEBUG=1 and report the traceback"
        _say(sentence, {"error": "Fault", "message": sentence, "exitCode": 1}, as_json)
        return 1
    _say(str(known), known.to_dict(), as_json)
    return known.exit_code


def _as_error(error: Exception) -> Error | None:
    """`error` as one of ours, if it is one or has an evident counterpart among ours."""
    if isinstance(error, Error):
        return error
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "mlseal"
        return Misuse(error.format_message().rstrip("."), remedy=f"{path} --help")
    if isinstance(error, click.ClickException):
        return Misuse(error.format_message().rstrip("."))
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("mlseal"):
        return MissingExtra(f"the library '{error.name}' is not installed", remedy="pip install 'mlseal[all]'")
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        return Unreadable(f"cannot use{where}: {error.strerror or error}")
    return None


def _say(sentence: str, document: Mapping[str, object], as_json: bool) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody may be listening on stderr; the exit code still speaks
        click.echo(json.dumps(document, ensure_ascii=False) if as_json else f"mlseal: {sentence}", err=True)


def _discard(stream: IO[str]) -> None:
    """Point `stream` at nothing, so that the interpreter's own flush at exit stays quiet."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _json_wanted(argv: Sequence[str]) -> bool:
    """Whether ``--json`` stands among the options; looked up here since a usage error comes before parsing."""
    return "--json" in argv[: argv.index("--")] if "--" in argv else "--json" in argv


def _allowed_points() -> list[EntryPoint]:
    allowed = {OWN_DISTRIBUTION, *os.environ.get(ALLOWED_PROVIDERS, "").replace(" ", "").lower().split(",")} - {""}
    points = {(point.name, point.value): point for point in entry_points(group=ENTRY_POINT_GROUP)}
    return [point for point in points.values() if _provider(point) in allowed]


def _summary(point: EntryPoint) -> str:
    return _ADAPTERS.get(point.name, f"Commands of {_provider(point)}.")


def _provider(point: EntryPoint) -> str:
    return (point.dist.name if point.dist else "").lower()


def _checked(name: str, point: EntryPoint) -> click.Command:
    command = point.load()
    if not isinstance(command, click.Command):
        raise Misuse(f"'{name}' is not a command", got=f"{point.value} of {type(command)}", expected="click.Command")
    return command


def _one_line(text: str) -> str:
    return " ".join(text.split())
