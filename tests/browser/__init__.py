"""Pages as a person sees them: a real, headless Chromium. An absent one fails the test (`Absent`), it skips nothing.

Browser and driver come as npm packages, at the versions of their lock (`make stock`): nothing of the machine's is used,
and no other address than 127.0.0.1 can be reached from the pages.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.stock import Absent, node

HERE = Path(__file__).parent


@dataclass
class Browser:
    """One window. `ask` does what a person would do in it and says what the page then shows (``drive.mjs``)."""

    process: subprocess.Popen[str]
    pictures: Path

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """The answer to one command; a page that shows neither success nor refusal fails the test, with a picture."""
        answer = self._told(do, **what)
        if "failed" in answer:
            picture = self.pictures / "page.png"
            self._told("picture", file=str(picture))
            raise AssertionError(f"{do}: {answer['failed']}\nThe page ({picture}) shows:\n{answer['shows']}")
        return answer

    def _told(self, do: str, **what: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"do": do, **what}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        assert line, f"the browser ended: {self.process.wait(30)}"
        told: dict[str, Any] = json.loads(line)
        return told


@contextmanager
def opened(pictures: Path) -> Iterator[Browser]:
    """A window until the end of the block; what goes wrong in it is pictured in `pictures`."""
    if not (HERE / "node_modules/.chromium/fonts.conf").is_file():
        raise Absent("the browser is not installed: run 'make stock'")
    process = subprocess.Popen(
        [node(), "drive.mjs"], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Browser(process, pictures)
    finally:
        assert process.stdin is not None
        process.stdin.close()  # it closes the window and ends
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
