"""``attested:/NAME@alias``, ``attested:/NAME/VERSION``, ``attested:/m-ID``: verified before anything is unpickled.

MLflow downloads a model once and then reads, imports and unpickles what it got. So this repository:

1. downloads the *whole* model into a private directory, whatever part was asked for;
2. removes what no digest counts, and measures that copy;
3. asks for the gate's verdict about these bytes and this use: signed by the gate, allowing, not too old, none of the
   evidence below it revoked. Where a policy governs action ``load``, that policy is judged instead;
4. looks whether its files do more than models of their flavour need, where that is asked for (`pickles`);
5. returns that very copy.

Where storage was overwritten after approval, step 3 refuses and no code of the model runs.

``MLSEAL_MLFLOW_MODELS=attested`` makes plain ``models:/…`` do the same in a process that opted in (`entrypoints`).
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository

from mlseal.errors import Misuse

SCHEME = "attested"
_LOGGED_MODEL = re.compile(r"m-[0-9a-f]{32}")


class AttestedArtifactRepository(ArtifactRepository):
    """The models of a registry, verified. Read-only; MLflow makes one for each ``attested:`` URI."""

    def download_artifacts(self, artifact_path: str, dst_path: str | None = None, **_: Any) -> str:
        """A verified private copy of the model, or of the part `artifact_path` of it.

        In `dst_path` it is the caller's. Without one it is removed when this process ends.

        Raises an `MlflowException` (403, 400) that carries every reason and remedy; nothing is left on disk then.
        """
        from mlseal_mlflow import private
        from mlseal_mlflow.refusals import refusing

        uri, part = self._split(artifact_path)
        with refusing(f"load of {uri}"):
            directory = private.lasting() if dst_path is None else private.new(dst_path)
            try:
                return str(_verified(uri, part, directory, self.tracking_uri, self.registry_uri))
            except BaseException:
                private.remove(directory)
                raise

    def list_artifacts(self, path: str | None = None) -> Any:
        """What the storage holds now; names and sizes only, nothing verified."""
        from mlseal_mlflow import loading

        uri, part = self._split(path)
        use = loading.resolve(uri, self.tracking_uri, self.registry_uri)
        return loading.storage(use.pinned_uri, self.tracking_uri, self.registry_uri).list_artifacts(part or None)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Refused: what is attested is not written to."""
        raise _read_only()

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Refused: what is attested is not written to."""
        raise _read_only()

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        """One file, out of a copy that was verified as a whole."""
        from mlseal_mlflow import private

        with private.passing() as directory:
            shutil.copyfile(self.download_artifacts(remote_file_path, str(directory)), local_path)

    def _split(self, artifact_path: str | None) -> tuple[str, str]:
        """``models:`` URI of the model and the path inside it. MLflow hands the last part of the URI as a path."""
        parsed = urlparse(self.artifact_uri)
        if parsed.netloc or parsed.query or parsed.fragment:
            raise _misuse(
                Misuse("an attested: URI names a model only", got=self.artifact_uri, expected="attested:/NAME@ALIAS")
            )
        full = "/".join(piece for piece in (parsed.path.strip("/"), (artifact_path or "").strip("/")) if piece)
        first, _, rest = full.partition("/")
        if _LOGGED_MODEL.fullmatch(first):  # such an id has no version, so the rest is a path
            return f"models:/{first}", rest
        uri, part = ModelsArtifactRepository.split_models_uri(f"models:/{full}")
        return uri, part


class AttestedModelsRepository(ModelsArtifactRepository):
    """``models:/…`` whose reads are those of ``attested:/…``; what is written goes where it went before."""

    def download_artifacts(self, artifact_path: str, dst_path: str | None = None, **_: Any) -> str:
        """As `AttestedArtifactRepository.download_artifacts`."""
        return self._attested().download_artifacts(artifact_path, dst_path)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        self._attested()._download_file(remote_file_path, local_path)  # noqa: SLF001 - its own kind

    def _attested(self) -> AttestedArtifactRepository:
        uri = f"{SCHEME}:/" + urlparse(self.artifact_uri).path.lstrip("/")
        return AttestedArtifactRepository(uri, self.tracking_uri, self.registry_uri)


def _verified(uri: str, part: str, private: Path, tracking_uri: str | None, registry_uri: str | None) -> Path:
    from mlseal.evidence.digest import measure
    from mlseal_mlflow import loading, pickles

    listed = pickles.asked()
    use = loading.resolve(uri, tracking_uri, registry_uri)
    model = loading.fetch(use.pinned_uri, private, tracking_uri, registry_uri)  # (1)
    evidence = loading.set_aside(model, private)  # (2)
    measured = measure(model, name=use.model or "model")
    loading.require_allowed(measured, use, evidence)  # (3)
    if listed:
        pickles.require_listed(model, measured, private / "expanded")  # (4)
    if not part:
        return model  # (5)
    found = Path(os.path.realpath(model / part))
    if not found.is_relative_to(os.path.realpath(model)) or not found.exists():
        raise Misuse("the model has no such part", got=part[:200])
    return found


def _read_only() -> Exception:
    return _misuse(Misuse("attested: is for reading", remedy="log to runs:/ or models:/"))


def _misuse(error: Misuse) -> Exception:
    from mlseal_mlflow.refusals import to_mlflow

    return to_mlflow(error, "access")
