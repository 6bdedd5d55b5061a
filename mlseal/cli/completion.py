"""``mlseal completion SHELL``: the script that makes a shell complete mlseal's commands and options."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL.

    Put `eval "$(mlseal completion bash)"` into ~/.bashrc, the like into ~/.zshrc, or for fish
    `mlseal completion fish | source` into its configuration.
    """
    from click.shell_completion import get_completion_class

    from mlseal.cli import main
    from mlseal.errors import UnknownName

    script = get_completion_class(shell)
    if script is None:  # click.Choice admits only shells that click itself knows
        raise UnknownName("no completion for this shell", got=shell, expected="bash, zsh or fish")
    click.echo(script(main, {}, "mlseal", "_MLSEAL_COMPLETE").source())
