"""What is not there was not checked: exit 11 for a missing file or directory, on every command that reads one."""

import json

import pytest

READERS = {
    "audit": ("audit", "gone"),
    "audit --tiles": ("audit", "--tiles", "gone"),
    "audit --store": ("audit", "--store", "gone"),
    "audit of a file": ("audit", "file"),
    "verify": ("verify", "gone"),
    "names": ("names", "reveal", f"name:hmac-sha256:{'0' * 64}", "--in", "gone"),
}


@pytest.mark.parametrize("command", READERS.values(), ids=READERS)
def test_a_missing_file_or_directory_is_unchecked(home, command):
    (home.path / "file").write_text("not a directory")
    from mlseal.evidence import salts

    salts.of_project().create()
    done = home.call(*command, "--json")
    assert done.returncode == 11, done.stderr
    said = json.loads(done.stderr)
    assert said["error"] == "Unreadable" and command[-1] in said["message"]


def test_a_directory_that_is_there_is_not_called_missing(home):
    (home.path / ".mlseal").mkdir()
    done = home.call("audit", ".mlseal", "--json")
    assert done.returncode == 2 and json.loads(done.stderr)["error"] == "NotInitialised"
