"""Where a private training rests, so that a run that was stopped goes on without spending privacy that nobody counts.

**An epoch that began is spent.** The checkpoint is written before the first noise of an epoch and counts it already. A
run that is stopped within it goes on with the weights from before and with one epoch fewer to go; its batches were
drawn and its noise was added, so it stays in the number of steps, whether or not anything of it survived. A training
that is stopped again and again ends after the stated steps and no later, having learnt less: whoever stops a run to
draw other noise pays for each draw.

**Noise is never drawn twice.** No state of a generator is kept; each process seeds its own from the operating system.
If state were kept, an older checkpoint put back would add the same noise to other gradients, and the difference of the
two models would be the difference of the gradients, without noise.

**What is kept is as private as the model.** Weights after an epoch are outputs of the same mechanism, within the
epsilon of all steps; they lie where only this account reads (`mlseal.stages.checkpoints`). Whoever is that account can
put older ones back and train twice from there. This statement counts one of the two, as when they simply train again:
an owner's budget counts runs, by their reservations on the log, and each run that goes on makes one of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlseal.errors import Unchecked

if TYPE_CHECKING:
    from torch import nn

    from mlseal.stages.checkpoints import Checkpoints

_FILE = "training.json"


@dataclass
class Begun:
    """How far a training came.

    Attributes:
        checkpoints: where it rests; None if nothing is kept.
        epochs: that began, and count.
        learnt: that were finished and whose weights survived.
    """

    checkpoints: Checkpoints | None = None
    epochs: int = 0
    learnt: int = 0

    def restore(self, model: nn.Module) -> None:
        """Put the kept weights into `model`, if there are any. Raises `Unchecked` if they are no weights of it."""
        if self.checkpoints is None or (place := self.checkpoints.load()) is None:
            return
        import torch

        try:
            said = json.loads((place / _FILE).read_text(encoding="utf-8"))
            weights = {name: torch.tensor(value, dtype=torch.float32) for name, value in said["weights"].items()}
            model.load_state_dict(weights)
            self.epochs, self.learnt = int(said["begun"]), int(said["learnt"])
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise Unchecked(
                "the checkpoint holds no weights of this model",
                got=type(error).__name__,
                remedy="run without --resume",
            ) from error

    def begin(self, model: nn.Module) -> None:
        """Count one more epoch, and keep the weights from before it. To be called before its first noise."""
        self.epochs += 1
        self._keep(model)

    def finish(self) -> None:
        """The epoch that began last is whole; the next `begin` or `end` keeps its weights."""
        self.learnt += 1

    def end(self, model: nn.Module) -> None:
        """Keep the last weights: a run that is stopped afterwards has nothing more to train."""
        self._keep(model)

    def _keep(self, model: nn.Module) -> None:
        if self.checkpoints is None:
            return
        weights: dict[str, Any] = {name: value.double().tolist() for name, value in model.state_dict().items()}
        said = json.dumps({"begun": self.epochs, "learnt": self.learnt, "weights": weights})
        self.checkpoints.save(lambda folder: _write(folder / _FILE, said))


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
