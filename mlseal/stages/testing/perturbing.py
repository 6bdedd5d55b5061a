"""ART's attacks on the decisions of a model, in shares of each column's range (`mlseal.stages.testing.space`).

They return rows that they wish for; what is left of them after projection, decided by the model itself, is what counts.
ART draws from numpy's global generator and from torch's: both are seeded here and put back afterwards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlseal.stages.testing.space import Reach, Space

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mlseal.stages.dense import Dense

_HAIR = 1e-5
"""At the very end of a model's range single precision could land outside, where there is no gradient."""
STEPS = 20
"""Of projected gradient descent."""
RESTARTS = 3
"""From the row itself, and from places drawn in the budget around it."""
_ROUNDS = 200
"""Of the boundary walk, at most; the queries end before."""
Ask = Callable[["NDArray[np.float64]"], "NDArray[np.int64]"]
"""Values, (rows, features), to classes."""


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it, the global generators of numpy and torch begin at `seed`; outside nothing has happened to them.

    Torch computes in one thread there: sums come out alike everywhere, and networks this small are faster so.
    """
    import numpy as np
    import torch

    before, threads = np.random.get_state(), torch.get_num_threads()  # noqa: NPY002 - ART draws from it
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002
            torch.set_num_threads(threads)


def by_gradient(
    target: Any,
    space: Space,
    starts: NDArray[np.float64],
    truth: NDArray[np.int64],
    budget: float,
    seed: int,
    restarts: int = RESTARTS,
) -> Iterator[NDArray[np.float64]]:
    """Projected gradient descent on ART's `target`, whose parameters are known: what each restart wishes for.

    The first begins at the row, the others at places drawn in the budget around it. `starts` are shares.
    """
    import numpy as np
    from art.attacks.evasion import ProjectedGradientDescent

    mask = np.tile(space.changeable.astype(np.float32), (len(starts), 1))
    for restart in range(restarts):
        attack = ProjectedGradientDescent(
            target,
            norm=np.inf,
            eps=budget,
            eps_step=2.5 * budget / STEPS,
            max_iter=STEPS,
            num_random_init=int(restart > 0),
            batch_size=len(starts),
            verbose=False,
        )
        with seeded(seed + restart):
            found = attack.generate(starts.astype(np.float32), y=truth, mask=mask)
        yield np.asarray(found, dtype=np.float64)


def by_noise(space: Space, starts: NDArray[np.float64], budget: float, seed: int) -> NDArray[np.float64]:
    """The control: every value moved by the whole budget, up or down by chance."""
    import numpy as np

    signs = np.random.default_rng(seed).choice([-1.0, 1.0], starts.shape)
    return np.where(space.changeable, starts + budget * signs, starts)


# --- decisions alone --------------------------------------------------------------------------------------------------


class _SpentError(Exception):
    """No question is left for this row."""


@dataclass
class _Row:
    """Answers about one row, in ART's shape; counts them, and remembers what was asked."""

    reach: Reach
    truth: int
    ask: Ask
    left: int
    seen: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = field(default_factory=list)

    def __call__(self, asked: NDArray[Any]) -> NDArray[np.float32]:
        import numpy as np

        if len(asked) > self.left:
            raise _SpentError
        self.left -= len(asked)
        shares = self.reach.projected(asked.astype(np.float64))
        classes = self.ask(self.reach.valued(shares))
        self.seen.append((shares, classes))
        return np.eye(2, dtype=np.float32)[classes]

    def nearest(self) -> NDArray[np.float64] | None:
        """Of all that was asked about and is decided otherwise, what moved least, as shares."""
        import numpy as np

        shares, classes = (np.concatenate(part) for part in zip(*self.seen, strict=True))
        other = shares[classes != self.truth]
        far = np.abs(other - self.reach.start).max(axis=1)
        return np.asarray(other[far.argmin()]) if len(other) else None


def by_decisions(
    space: Space,
    starts: NDArray[np.float64],
    truth: NDArray[np.int64],
    ask: Ask,
    queries: int,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """HopSkipJump, which sees classes alone: of each row the nearest found that is decided otherwise, as shares.

    It walks along the boundary towards the row, so that one run serves every budget. `starts` are values. At most
    `queries` answers are asked for, a row. A row for which nothing was found comes back as it was. `progress` is told
    the number of each row.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    found = space.shares(starts)
    with seeded(seed):
        for number in range(len(starts)):
            progress(number)
            row = _Row(space.around(starts[number : number + 1], np.inf), int(truth[number]), ask, queries)
            with contextlib.suppress(_SpentError):
                _walk(row, queries, rng)
            if (nearest := row.nearest()) is not None:
                found[number] = nearest
    return found


def _walk(row: _Row, queries: int, rng: np.random.Generator) -> None:
    import numpy as np
    from art.attacks.evasion import HopSkipJump
    from art.estimators.classification import BlackBoxClassifier

    start, width = row.reach.start, row.reach.start.shape[1]
    tries = max(2, queries // 10)
    near = start + rng.choice([-0.5, 0.5], (tries, width)) * rng.random((tries, 1))
    row(np.concatenate([near, rng.random((tries, width))]))
    if (nearest := row.nearest()) is None:
        return
    ends = min(0.0, float(start.min())), max(1.0, float(start.max()))
    target = BlackBoxClassifier(row, (width,), 2, clip_values=ends)
    each = max(4, queries // 12)
    # ART's own search for a first row draws from a generator that nobody can seed: ours comes with the call.
    attack = HopSkipJump(
        target, norm=np.inf, max_iter=_ROUNDS, max_eval=queries, init_eval=each, init_size=1, verbose=False
    )
    mask = row.reach.space.changeable.astype(np.float32)[None]
    attack.generate(start.astype(np.float32), mask=mask, x_adv_init=nearest[None].astype(np.float32))


# --- the model that ART differentiates --------------------------------------------------------------------------------


def target_of(
    network: Any, width: int, ends: tuple[NDArray[Any], NDArray[Any]] | None = None, *, rate: float = 0.0
) -> Any:
    """ART's classifier around a torch `network` of shares that gives logits of both classes.

    Attacks on it stay between `ends`, a bound of each column below and above; it can be trained if there is a `rate`.
    """
    import torch
    from art.estimators.classification import PyTorchClassifier

    free = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(free, lr=rate) if rate else None
    loss = torch.nn.CrossEntropyLoss()
    return PyTorchClassifier(network, loss, (width,), 2, optimizer=optimizer, clip_values=ends, device_type="cpu")


def twin(model: Dense, space: Space, temperature: float = 1.0) -> Any:
    """The same network in torch: shares in; logits of both classes, divided by `temperature`, out."""
    import torch
    from torch import nn

    parts: list[Any] = [_entry(model, space)]
    for number, layer in enumerate(model.layers):
        linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[0])
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(layer.weight))
            linear.bias.copy_(torch.from_numpy(layer.bias))
        parts += [linear, nn.Tanh()] if number < len(model.layers) - 1 else [linear]
    both = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        both.weight.copy_(torch.tensor([[-0.5], [0.5]]) / temperature)
    both.weight.requires_grad_(requires_grad=False)
    return nn.Sequential(*parts, both)


def _entry(model: Dense, space: Space) -> Any:
    """From shares to what the first layer takes: values, cut to the model's ranges and mapped to -1 … 1."""
    import numpy as np
    import torch
    from torch import nn

    ends = [model.ranges.get(name, (-np.inf, np.inf)) for name in model.features]
    low, high = np.array(ends).T
    bounded = np.isfinite(low)
    scale = np.where(bounded, 2 / np.where(bounded, high - low, 1), 1)
    factor = (space.high - space.low) * scale
    offset = np.where(bounded, (space.low - np.where(bounded, low, 0)) * scale - 1, space.low)
    cut = np.where(bounded, 1 + _HAIR, np.inf)

    class Entry(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            for name, values in (("factor", factor), ("offset", offset), ("cut", cut)):
                self.register_buffer(name, torch.from_numpy(values.astype(np.float32)))

        def forward(self, shares: Any) -> Any:
            mapped = shares * self.factor + self.offset
            return torch.minimum(torch.maximum(mapped, -self.cut), self.cut)

    return Entry()
