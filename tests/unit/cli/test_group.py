"""However a command ends, it ends in a code of the table and at most one sentence."""

import json
import os
import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from mlseal import errors
from mlseal.cli import COMMANDS, main
from mlseal.cli.group import Command, LazyGroup

SECRET = "line one\nline two"


def group(function) -> LazyGroup:
    """A group like `mlseal` with one command, `do`, that calls `function`."""
    made = LazyGroup(name="mlseal", table={})
    made.add_command(
        click.Command("do", callback=function, params=[click.Option(["--json"], is_flag=True, expose_value=False)])
    )
    return made


def raising(error):
    def function():
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Refusal("no"), 10),
        (errors.ForgedEvidence("bad signature", got="a", expected="b", remedy="c"), 10),
        (errors.NoEvidence("nothing"), 11),
        (errors.Pending("wait"), 11),
        (errors.PolicyInvalid("typo"), 2),
        (click.UsageError("what?"), 2),
        (click.BadParameter("not that"), 2),
        (FileNotFoundError(2, "No such file", "x.json"), 11),
        (OSError(28, "No space left on device"), 11),
        (ModuleNotFoundError("No module named 'fairlearn'", name="fairlearn"), 11),
        (ModuleNotFoundError("No module named 'mlseal.gone'", name="mlseal.gone"), 1),
        (ValueError(SECRET), 1),
        (AssertionError(), 1),
        (RecursionError("deep"), 1),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (SystemExit(7), 7),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_every_failure_is_one_line_and_a_code(error, code, monkeypatch):
    monkeypatch.delenv("MLSEAL_DEBUG", raising=False)
    done = CliRunner().invoke(group(raising(error)), ["do"])
    assert done.exit_code == code
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) <= 1
    assert "Traceback" not in done.stderr
    if code != 7:
        assert done.stderr.startswith("mlseal: ")


def test_json_makes_the_failure_one_object():
    error = errors.DigestMismatch("bytes differ", got="aa", expected="bb", remedy="restore them")
    done = CliRunner().invoke(group(raising(error)), ["do", "--json"])
    assert json.loads(done.stderr) == {
        "error": "DigestMismatch",
        "message": "bytes differ",
        "got": "aa",
        "expected": "bb",
        "remedy": "restore them",
        "exitCode": 10,
    }
    assert done.stdout == ""


def test_a_wrong_option_is_json_too():
    done = CliRunner().invoke(main, ["doctor", "--nope", "--json"])
    assert done.exit_code == 2
    assert json.loads(done.stderr)["exitCode"] == 2


def test_json_after_two_dashes_is_an_argument():
    done = CliRunner().invoke(group(raising(errors.Refusal("no"))), ["do", "--", "--json"])
    assert not done.stderr.startswith("{")


def test_a_traceback_only_when_asked_for(monkeypatch):
    monkeypatch.setenv("MLSEAL_DEBUG", "1")
    done = CliRunner().invoke(group(raising(errors.Refusal("no"))), ["do"])
    assert done.exit_code == 10
    assert "Traceback" in done.stderr
    assert done.stderr.strip().splitlines()[-1] == "mlseal: no"


@pytest.mark.parametrize("value", [0, 1, 10, False, None, "refused"])
def test_what_a_command_returns_is_no_exit_code(value):
    assert CliRunner().invoke(group(lambda: value), ["do"]).exit_code == 0


def test_exit_by_context_is_an_exit_code():
    done = CliRunner().invoke(group(lambda: click.get_current_context().exit(10)), ["do"])
    assert (done.exit_code, done.output) == (10, "")


def test_a_caller_may_ask_for_the_exception_itself():
    with pytest.raises(errors.Refusal):
        group(raising(errors.Refusal("no"))).main(["do"], standalone_mode=False)


def test_a_mistyped_command_names_the_near_one():
    done = CliRunner().invoke(main, ["verfy"])
    assert done.exit_code == 2
    assert "did you mean verify" in done.stderr


def test_help_lists_every_command_and_imports_none():
    code = "import sys; from mlseal.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in sys.modules if m.startswith('mlseal.') and not m.startswith(('mlseal.cli', 'mlseal.errors'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip().endswith("[]")
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("group", ["policy", "trust", "log", "names", "key", "dvc", "kfp", "mlflow"])
def test_help_shows_whole_sentences(group):
    said = CliRunner().invoke(main, [group, "--help"]).stdout.partition("Commands:\n")[2]
    assert said.strip()
    assert "..." not in said, "click cuts sentences off, and then they say nothing"


def test_help_says_what_each_adapter_does():
    said = CliRunner().invoke(main, ["--help"]).stdout
    assert "adapter." not in said
    for name in ("dvc", "kfp", "mlflow"):
        assert re.search(rf"^  {name} +[A-Z][a-z]+ \w+", said, re.MULTILINE)


def test_an_installed_package_cannot_take_a_built_in_name(tmp_path):
    """An entry point named `verify` of another distribution is not even looked at."""
    done = with_plugin(
        tmp_path, {"verify": "evil:command"}, "verify", "--help", env={"MLSEAL_COMMAND_PROVIDERS": "evil"}
    )
    assert done.returncode == 0
    assert "EVIL" not in done.stdout + done.stderr


def test_a_strangers_command_runs_only_when_its_distribution_is_allowed(tmp_path):
    refused = with_plugin(tmp_path, {"extra": "evil:command"}, "extra")
    assert refused.returncode == 2
    assert "EVIL" not in refused.stdout + refused.stderr
    allowed = with_plugin(tmp_path, {"extra": "evil:command"}, "extra", env={"MLSEAL_COMMAND_PROVIDERS": "other, Evil"})
    assert allowed.returncode == 0
    assert "EVIL" in allowed.stdout


def with_plugin(tmp_path, points, *command, env=None):
    site = tmp_path / "site"
    info = site / "evil-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mlseal.commands]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()))
    (site / "evil.py").write_text(
        "print('EVIL import')\nimport click\n@click.command()\ndef command(): print('EVIL run')\n"
    )
    code = f"import sys; sys.path.insert(0, {str(site)!r}); from mlseal.cli import main; main({list(command)!r})"
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | (env or {}),
        cwd=tmp_path,
    )


def test_two_packages_with_one_name_are_refused(tmp_path):
    for name in ("evil", "twin"):
        info = tmp_path / "site" / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[mlseal.commands]\nextra = {name}:command\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); from mlseal.cli import main; main(['extra'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env=os.environ | {"MLSEAL_COMMAND_PROVIDERS": "evil,twin"},
    )
    assert done.returncode == 2
    assert "evil and twin" in done.stderr


def test_a_target_that_is_no_command_is_said(tmp_path):
    made = LazyGroup(name="mlseal", table={"odd": Command("json:dumps", "Odd.")})
    done = CliRunner().invoke(made, ["odd"])
    assert done.exit_code == 2
    assert "not a command" in done.stderr


def test_a_full_disk_behind_stdout_is_no_success():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mlseal", "--help"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 11
    assert "No space left" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_goes_away_is_quiet_and_no_success():
    child = subprocess.Popen([sys.executable, "-m", "mlseal", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    child.stdout.close()
    assert child.wait(timeout=60) == 141
    assert child.stderr.read() == b""
    child.stderr.close()


def test_without_a_command_the_help_is_shown_and_nothing_is_allowed():
    done = CliRunner().invoke(main, [])
    assert done.exit_code == 2
    assert "Commands:" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell):
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert "_MLSEAL_COMPLETE" in done.stdout


def test_completion_knows_the_commands():
    env = os.environ | {"_MLSEAL_COMPLETE": "bash_complete", "COMP_WORDS": "mlseal ver", "COMP_CWORD": "1"}
    code = "from mlseal.cli import main; main(prog_name='mlseal')"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["plain,verify"]
