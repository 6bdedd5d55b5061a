"""What a step leaves behind: all of its outputs, or none.

KFP counts a step by its exit status alone and hands on whatever file it finds, so the order is fixed:

1. The stage writes into a private directory beside each output's final place (same file system, same base name).
2. Everything that was promised must be there; nothing else is carried over.
3. Artifacts are renamed into place, then parameters, and the ``outputFile`` JSON last: a reader that sees it sees all.
4. On any error what was already placed is taken away again.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from mlseal.errors import Misuse, Unchecked, Unreadable
from mlseal.evidence.bundle import write_atomic
from mlseal_kfp.executor_input import Artifact, Task


class Outputs:
    """The outputs of one task, held back until `publish`; a context that cleans up after a failure.

    Guarantees: leaving the context without `publish` leaves no output. Errors: `Unreadable` when a place cannot be
    written or a promised output was not made.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._staged: dict[str, Path] = {}
        self._metadata: dict[str, dict[str, str]] = {}
        self._values: dict[str, str] = {}
        self._directories: list[Path] = []
        self._placed: list[Path] = []
        self._published = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._published:
            for path in reversed(self._placed):
                _remove(path)
        for directory in self._directories:
            shutil.rmtree(directory, ignore_errors=True)

    def stage(self, port: str) -> Path:
        """A path to write output artifact `port` to; its last component is the final one's, which names the subject."""
        final = self._artifact(port).path
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            directory = Path(tempfile.mkdtemp(dir=final.parent, prefix=".unpublished-"))
        except OSError as error:
            raise Unreadable(
                f"cannot write output {port!r}",
                got=f"{error.strerror}: {final.parent}",
                remedy="check the pipeline root and its free space",
            ) from error
        self._directories.append(directory)
        self._staged[port] = directory / final.name
        return self._staged[port]

    def describe(self, port: str, **metadata: str) -> None:
        """Short text beside artifact `port`, for people; nothing reads it back."""
        self._metadata.setdefault(port, {}).update(metadata)

    def value(self, name: str, text: str) -> None:
        """Set the string output parameter `name`."""
        if name not in self._task.output_parameters:
            raise Misuse(f"the component has no output parameter {name!r}", remedy="compile the pipeline again")
        self._values[name] = text

    def publish(self) -> None:
        """Put every output in place, the ``outputFile`` last."""
        self._require_complete()
        try:
            for port, staged in self._staged.items():
                self._place(staged, self._artifact(port).path)
            for name, text in self._values.items():
                path = self._task.output_parameters[name]
                write_atomic(path, text.encode())
                self._placed.append(path)
            if self._task.output_file is not None:
                write_atomic(self._task.output_file, self._document())
        except OSError as error:
            raise Unreadable(
                "cannot publish the outputs",
                got=f"{error.strerror}: {error.filename}",
                remedy="check the pipeline root and its free space",
            ) from error
        self._published = True

    def _artifact(self, port: str) -> Artifact:
        try:
            return self._task.output_artifacts[port]
        except KeyError:
            raise Misuse(f"the component has no output {port!r}", remedy="compile the pipeline again") from None

    def _require_complete(self) -> None:
        unmade = [
            port for port in self._task.output_artifacts if port not in self._staged or not self._staged[port].exists()
        ]
        unmade += [name for name in self._task.output_parameters if name not in self._values]
        if unmade:
            raise Unchecked(
                "the step did not make every output that it declares",
                got=f"no {', '.join(sorted(unmade))}",
                expected="all of them",
                remedy="compile the component again from the stage that is installed",
            )

    def _place(self, staged: Path, final: Path) -> None:
        if final.exists() or final.is_symlink():
            _remove(final)  # a retry: the earlier attempt's file is not this attempt's evidence
        staged.replace(final)
        self._placed.append(final)

    def _document(self) -> bytes:
        artifacts: Mapping[str, object] = {
            port: {
                "artifacts": [{"name": artifact.name, "uri": artifact.uri, "metadata": self._metadata.get(port, {})}]
            }
            for port, artifact in self._task.output_artifacts.items()
        }
        return json.dumps({"artifacts": artifacts, "parameterValues": self._values}, sort_keys=True).encode()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
