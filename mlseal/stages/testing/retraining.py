"""Two ways of training that are meant to make a model of plain numbers harder to evade, by ART.

*Adversarial training* (Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, 2018) learns from
rows that projected gradient descent has just moved. *Defensive distillation* (Papernot et al., 2016) learns the answers
of the first model at a high temperature and then decides without it, so that logits are as many times larger: its
gradients vanish, and its boundary stays where it was (Carlini and Wagner, 2017).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlseal.errors import Unchecked
from mlseal.stages import dense
from mlseal.stages.testing import perturbing
from mlseal.stages.testing.attacked import Rows
from mlseal.stages.testing.space import Space

_STEPS = 7
"""Of the attack that training rows are moved by."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        budget: share of each column's range by which training rows are moved.
        temperature: of distillation.
        epochs: passes over the rows.
        batch: rows a step.
        rate: learning rate of Adam.
        seed: of order, first weights and moves.
    """

    budget: float
    temperature: float
    epochs: int
    batch: int
    rate: float
    seed: int


Progress = Callable[[int, int, str], None]


def adversarially(model: dense.Dense, space: Space, rows: Rows, recipe: Recipe, progress: Progress) -> dense.Dense:
    """`model`, trained on with rows that are moved within the constraints of `space`."""
    import numpy as np
    from art.defences.trainer import AdversarialTrainerMadryPGD

    network = perturbing.twin(model, space)
    target = perturbing.target_of(network, len(space.features), rate=recipe.rate)
    # A budget of nothing for what may not change: the trainer takes no mask.
    budget = np.where(space.changeable, recipe.budget, 0.0).astype(np.float32)
    step = np.full_like(budget, 2.5 * recipe.budget / _STEPS)
    trainer = AdversarialTrainerMadryPGD(
        target, nb_epochs=1, batch_size=recipe.batch, eps=budget, eps_step=step, max_iter=_STEPS
    )
    shares = space.shares(rows.numbers).astype(np.float32)
    with perturbing.seeded(recipe.seed):
        for epoch in range(recipe.epochs):
            progress(epoch, recipe.epochs, "epochs")
            with contextlib.redirect_stderr(io.StringIO()):  # ART draws a bar that nobody can turn off
                trainer.fit(shares, rows.truth)
    return _read(model, network)


def distilled(model: dense.Dense, space: Space, rows: Rows, recipe: Recipe, progress: Progress) -> dense.Dense:
    """A model of the same shape that learnt the answers of `model` at a temperature, without it.

    To train at temperature T and to decide at 1 is to train at 1 and to multiply the logits by T, which is done here:
    the gradients of training are those of an ordinary network then.
    """
    import numpy as np
    from art.defences.transformer.evasion import DefensiveDistillation
    from torch import nn

    shares = space.shares(rows.numbers).astype(np.float32)
    teacher = perturbing.target_of(nn.Sequential(perturbing.twin(model, space), nn.Softmax(dim=1)), shares.shape[1])
    with perturbing.seeded(recipe.seed):
        network = _anew(perturbing.twin(model, space))
        student = _Student(perturbing.target_of(network, shares.shape[1], rate=recipe.rate))
        for epoch in range(recipe.epochs):
            progress(epoch, recipe.epochs, "epochs")
            DefensiveDistillation(teacher, batch_size=recipe.batch, nb_epochs=1)(shares, student)
    return _read(model, network, recipe.temperature)


class _Student:
    """What ART's distillation asks of a student, which must give probabilities and yet be trained on logits."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def predict(self, x: Any, batch_size: int) -> Any:
        """Probabilities."""
        import numpy as np

        logits = self._target.predict(x, batch_size=batch_size)
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)

    def fit(self, x: Any, y: Any, batch_size: int, nb_epochs: int) -> None:
        """Learn soft labels."""
        self._target.fit(x=x, y=y, batch_size=batch_size, nb_epochs=nb_epochs)


def _anew(network: Any) -> Any:
    """The same network with first weights."""
    for layer in _linear(network):
        layer.reset_parameters()
    return network


def _linear(network: Any) -> list[Any]:
    from torch import nn

    return [part for part in network if isinstance(part, nn.Linear)][:-1]


def _read(model: dense.Dense, network: Any, times: float = 1.0) -> dense.Dense:
    """The weights as plain numbers, the last layer `times` as large. Raises `Unchecked` for what is not finite."""
    import numpy as np

    layers = []
    for number, layer in enumerate(_linear(network)):
        factor = times if number == len(model.layers) - 1 else 1.0
        weight, bias = (part.detach().double().numpy() * factor for part in (layer.weight, layer.bias))
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise Unchecked("training diverged", got="weights that are not finite", remedy="lower --learning-rate")
        layers.append(dense.Layer(np.array(weight), np.array(bias)))
    return dense.Dense(model.features, model.ranges, tuple(layers))
