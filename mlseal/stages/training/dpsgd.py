"""DP-SGD by Opacus, with what its accounting relies on checked instead of assumed.

An epsilon is a theorem with premises, and libraries have shipped without them: a sampler with another rate than the
accountant's, batches that are no Poisson samples, an empty batch without noise, layers that mix records. Each premise
below is looked at on the objects that really trained; one that does not hold is an error, and there is no model then.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mlseal.errors import Unchecked
from mlseal.evidence import accounting
from mlseal.stages.training.begun import Begun
from mlseal.stages.training.units import Examples

if TYPE_CHECKING:
    from torch import nn

NOISE = "torch mt19937, seeded with 64 bits from the operating system, not kept"
_FAR = 7.0
"""Standard deviations: chance alone exceeds them less than once in 10^11 runs."""
_GRADIENT_ERROR = 1e-4


@dataclass(frozen=True)
class Recipe:
    """How to train: all public, none of it learned from the data.

    Attributes:
        noise: noise multiplier.
        batches: batches an epoch; a unit is in each with probability 1 / batches.
        epochs: passes.
        clip: clipping norm of a unit's gradient.
        rate: learning rate.
        hidden: width of a hidden layer, 0 for none (a logistic regression).
        seed: of the initial weights alone.
    """

    noise: float
    batches: int
    epochs: int
    clip: float
    rate: float
    hidden: int
    seed: int

    @property
    def steps(self) -> int:
        """How often noise is added."""
        return self.batches * self.epochs


@dataclass(frozen=True)
class Trained:
    """The private weights, and what other accountants say: name → epsilon."""

    layers: list[tuple[list[list[float]], list[float]]]
    estimates: dict[str, float]


def train(
    examples: Examples,
    recipe: Recipe,
    delta: float,
    progress: Callable[[int, int, str], None] = lambda *_: None,
    begun: Begun | None = None,
) -> Trained:
    """Train on `examples` and check every premise; `progress` is told of each epoch.

    With `begun`, goes on from the weights that it kept, for the epochs that did not begin yet. All steps of `recipe`
    are accounted for, those of epochs that were lost included.

    Raises `Unchecked` when one does not hold, when the accountants disagree, or when the weights are not finite.
    """
    import torch
    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    begun, model = begun or Begun(), _model(examples.features.shape[2], recipe)
    begun.restore(model)
    rest = replace(recipe, epochs=recipe.epochs - begun.epochs)
    data = TensorDataset(*(torch.from_numpy(part) for part in (examples.features, examples.labels, examples.present)))
    batch = math.ceil(len(examples) / recipe.batches)
    loader = DataLoader(data, batch_size=batch, shuffle=True, generator=_generator())
    if len(loader) != recipe.batches:
        raise Unchecked("these units do not divide into so many batches", got=len(loader), expected=recipe.batches)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of hooks, and of the generator that NOISE names
        engine = PrivacyEngine(accountant="prv")
        private, optimizer, sampled = engine.make_private(
            module=model,
            # The loss is a sum over the batch, so the step is divided by the public expected size, not by the real one.
            optimizer=torch.optim.SGD(model.parameters(), lr=recipe.rate * recipe.batches / len(examples)),
            data_loader=loader,
            noise_multiplier=recipe.noise,
            max_grad_norm=recipe.clip,
            poisson_sampling=True,
            loss_reduction="sum",
            noise_generator=_generator(),
        )
        require_one_gradient_a_unit(private, data)
        sizes = []
        for epoch in range(begun.epochs, recipe.epochs):
            progress(epoch, recipe.epochs, "epochs")
            begun.begin(model)
            for part in sampled:
                sizes.append(len(part[0]))
                optimizer.zero_grad()
                _loss(private, *part).sum().backward()
                optimizer.step()  # on an empty batch too: it adds noise to nothing
            begun.finish()
        begun.end(model)
        require_premises(model, optimizer, sampled, engine.accountant.history, rest, len(examples))
        require_binomial(sizes, len(examples), rest)
        engine.accountant.history = [(recipe.noise, 1 / recipe.batches, recipe.steps)]  # whoever took them
        estimates = _estimates(engine, recipe, delta)
    return Trained(_weights(model), estimates)


def _model(width: int, recipe: Recipe) -> nn.Sequential:
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(recipe.seed)
    widths = [width, *([recipe.hidden] if recipe.hidden else []), 1]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        nn.init.zeros_(linear.bias)
        nn.init.normal_(linear.weight, std=0 if outputs == 1 else inputs**-0.5, generator=generator)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def _generator() -> Any:
    import torch

    return torch.Generator().manual_seed(int.from_bytes(os.urandom(8)) >> 1)


def _loss(model: Any, features: Any, labels: Any, present: Any) -> Any:
    """One loss a unit: the mean over its rows."""
    from torch.nn import functional

    each = functional.binary_cross_entropy_with_logits(model(features).squeeze(-1), labels, reduction="none") * present
    return each.sum(1) / present.sum(1).clamp(min=1)


# --- premises --------------------------------------------------------------------------------------------------------


def require_one_gradient_a_unit(private: Any, data: Any) -> None:
    """What will be clipped is the gradient of a whole unit. Raises `Unchecked`.

    Each of a few units alone through plain autograd must give what Opacus holds for it in a batch of them.
    """
    import torch

    parts = data[: min(4, len(data))]
    _loss(private, *parts).sum().backward()
    held = [p.grad_sample.detach().clone() for p in private.parameters()]
    for index in range(len(parts[0])):
        private.disable_hooks()
        try:
            one = torch.autograd.grad(
                _loss(private, *(p[index : index + 1] for p in parts)).sum(), private.parameters()
            )
        finally:
            private.enable_hooks()
        for ours, plain in zip(held, one, strict=True):
            if ours.shape != (len(parts[0]), *plain.shape) or not torch.allclose(
                ours[index], plain, atol=_GRADIENT_ERROR
            ):
                raise Unchecked("Opacus does not hold one gradient a unit", remedy="report it with your version of it")
    private.zero_grad(set_to_none=True)
    for parameter in private.parameters():
        parameter.grad_sample = None


def require_premises(
    model: Any, optimizer: Any, loader: Any, history: list[tuple[float, float, int]], recipe: Recipe, units: int
) -> None:
    """Sampler, noise, clipping, layers and what the accountant saw are those of `recipe`. Raises `Unchecked`."""
    from opacus.utils.uniform_sampler import UniformWithReplacementSampler
    from opacus.validators import ModuleValidator

    sampler, rate = loader.batch_sampler, 1 / recipe.batches
    faults = ModuleValidator.validate(model, strict=False)
    premises = {
        "batches are Poisson samples": type(sampler) is UniformWithReplacementSampler,
        "the sampler's rate is the stated one": getattr(sampler, "sample_rate", None) == rate,
        "it samples the units": getattr(sampler, "num_samples", None) == units == len(loader.dataset),
        "the accountant saw every step, with the stated noise and rate": history
        == ([(recipe.noise, rate, recipe.steps)] if recipe.steps else []),
        "the optimizer adds the stated noise": optimizer.noise_multiplier == recipe.noise,
        "it clips at the stated norm": optimizer.max_grad_norm == recipe.clip,
        "no layer mixes units": not faults and not any("Norm" in type(m).__name__ for m in model.modules()),
    }
    for premise, holds in premises.items():
        if not holds:
            raise Unchecked(
                "epsilon would mean nothing: a premise of its accounting does not hold",
                got=f"not so: {premise}",
                remedy="report it with your versions of opacus and torch",
            )


def require_binomial(sizes: list[int], units: int, recipe: Recipe) -> None:
    """The batches that were seen have the sizes of Poisson samples. Raises `Unchecked`.

    Their number is `Recipe.steps`, their total lies where chance puts it, and below rate 1 they vary.
    """
    rate = 1 / recipe.batches
    spread = math.sqrt(len(sizes) * units * rate * (1 - rate))
    far = abs(sum(sizes) - len(sizes) * units * rate) > _FAR * spread + 1e-9
    alike = rate < 1 and len(sizes) >= 20 and units * rate * (1 - rate) > 4 and len(set(sizes)) == 1
    if len(sizes) != recipe.steps or far or alike:
        raise Unchecked(
            "the batches are not what Poisson sampling gives",
            got=f"{len(sizes)} batches, {len(set(sizes))} different sizes, {sum(sizes)} examples in all",
            expected=f"{recipe.steps} batches with rate {rate:.6f} of {units} units",
        )


def _estimates(engine: Any, recipe: Recipe, delta: float) -> dict[str, float]:
    """Opacus' own accountants on the same figures; ours must agree with its Renyi one and lie above its tight one."""
    from opacus.accountants.analysis import rdp

    rate, orders = 1 / recipe.batches, list(accounting.ORDERS)
    spent = rdp.compute_rdp(q=rate, noise_multiplier=recipe.noise, steps=recipe.steps, orders=orders)
    theirs, _ = rdp.get_privacy_spent(orders=orders, rdp=spent, delta=delta)
    tight = float(engine.get_epsilon(delta))
    ours = accounting.epsilon(rate, recipe.noise, recipe.steps, delta)
    # PRV adds its own error bound, up to 0.01, so at tiny epsilons it may come out above.
    if abs(theirs - ours) > 1e-6 * max(1.0, ours) or tight > ours + 0.01:
        raise Unchecked(
            "the accountants disagree", got=f"ours {ours:.6f}, Opacus {theirs:.6f} (Renyi) and {tight:.6f} (PRV)"
        )
    return {"opacus rdp": float(theirs), "opacus prv": tight}


def _weights(model: Any) -> list[tuple[list[list[float]], list[float]]]:
    import torch

    layers = [m for m in model if isinstance(m, torch.nn.Linear)]
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        raise Unchecked("training diverged", got="weights that are not finite", remedy="lower --learning-rate")
    return [(m.weight.detach().double().tolist(), m.bias.detach().double().tolist()) for m in layers]


def versions() -> dict[str, str]:
    """The libraries that trained."""
    return {name: importlib.metadata.version(name) for name in ("numpy", "opacus", "pandas", "torch")}
