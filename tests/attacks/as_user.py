"""Run a function as another user of the machine, in a child process.

The child is forked, not started anew: another user may not be allowed to read this interpreter. So everything the
function imports must have been imported before. Needs root; tests that use it fail without, they do not skip.
"""

import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path


def home_of(uid: int, base: Path) -> Path:
    """A home directory of `uid` under `base`, closed to others."""
    home = base / f"home-{uid}"
    home.mkdir(mode=0o700)
    os.chown(home, uid, uid)
    return home


def as_user(uid: int, home: Path, work: Callable[[], object], **env: str):
    """The JSON value that `work` returns when run as `uid` with its own HOME; what it raises comes back as a dict."""
    assert os.getuid() == 0, "this test needs root to become three users"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            os.chdir(home)
            for key in [k for k in os.environ if k.startswith(("XDG_", "MLSEAL_"))]:
                del os.environ[key]
            os.environ.update(HOME=str(home), **env)
            try:
                result = {"value": work()}
            except Exception as error:
                result = {"error": type(error).__name__, "text": str(error), "trace": traceback.format_exc()[-1500:]}
            with os.fdopen(writer, "w") as out:
                json.dump(result, out)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as source:
        text = source.read()
    os.waitpid(child, 0)
    return json.loads(text)
