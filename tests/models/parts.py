"""A batch that comes in parts, as a training loop hands it to a model, beside the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

EVEN, THIRDS, UNEQUAL = (0, 3, 6), (0, 2, 4, 6), (0, 1, 6)
"""Where 6 samples are cut into parts."""


@dataclass
class Recorder:
    """A `mean_over_parts` that keeps what it is given, and answers with means that are known already."""

    means: dict[str, Tensor] | None = None
    counts: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, name: str, count: Tensor) -> Tensor:
        assert name not in self.counts
        assert count.dtype == torch.float32 and count.ndim == 0 and not count.requires_grad
        self.counts[name] = count
        return count if self.means is None else self.means[name]


def mean_counts(counts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The means over the parts, of the same counts in the same order in each."""
    assert len({tuple(of_part) for of_part in counts}) == 1
    return {name: torch.stack([of_part[name] for of_part in counts]).mean() for name in counts[0]}


def run(model: nn.Module, inputs: dict[str, Any], **options: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The figures (numbers that are no predictions) of a training step, and the gradient of every parameter."""
    model.zero_grad()
    output = model(**inputs, **options)
    output.loss.backward()
    figures = {name: value.detach() for name, value in output.items() if isinstance(value, Tensor) and value.ndim == 0}
    for name in ("ratio_losses", "boundary_rates", "one_step_shares"):
        if name in output:
            figures[name] = output[name].detach()
    return figures, {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def run_in_parts(
    model: Any, parts: Sequence[dict[str, Any]], *, counted: bool = True
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The plain means over the parts of what `run` gives; `counted`: with the means of the counts, or as if equal."""
    recorders = [Recorder() for _ in parts]
    for part, recorder in zip(parts, recorders, strict=True):
        assert model.count_parts(recorder, **part) is None
    means = mean_counts([recorder.counts for recorder in recorders])
    results = []
    for part, counting in zip(parts, recorders, strict=True):
        replay = Recorder(means)
        results.append(run(model, part, **({"mean_over_parts": replay} if counted else {})))
        assert not counted or list(replay.counts.items()) == list(counting.counts.items())
    figures, gradients = zip(*results, strict=True)
    return _mean(figures), _mean(gradients)


def _mean(of_parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    names = {name: None for of_part in of_parts for name in of_part}
    return {name: sum(of_part.get(name, torch.zeros(())) for of_part in of_parts) / len(of_parts) for name in names}


def distance(gradients: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    """Norm of the difference of all gradients, relative to the norm of the second."""
    assert gradients.keys() == others.keys()
    difference = torch.cat([(gradients[name] - others[name]).flatten() for name in others])
    return float(difference.norm() / torch.cat([each.flatten() for each in others.values()]).norm())


def assert_parts_make_the_whole(
    model: nn.Module, cut: Callable[[int, int], dict[str, Any]], cuts: tuple[int, ...], *, differs: bool = True
) -> None:
    """Parts give the loss and the gradient of the whole batch, but not if each is averaged on its own.

    Args:
        model: In float64, without dropout.
        cut: The inputs of the samples from a first to before a last one.
        cuts: Where the batch is cut.
        differs: Whether the parts hold unequal numbers of what counts.
    """
    figures, gradients = run(model, cut(cuts[0], cuts[-1]))
    parts = [cut(first, last) for first, last in pairwise(cuts)]
    in_parts, part_gradients = run_in_parts(model, parts)
    for name, expected in figures.items():
        # Counts are float32, which rounds their means by up to 6e-8.
        torch.testing.assert_close(in_parts[name], expected, rtol=1e-6, atol=1e-9, check_dtype=False, msg=name)
    assert distance(part_gradients, gradients) < 1e-6
    if differs:
        _, plain_gradients = run_in_parts(model, parts, counted=False)
        assert distance(plain_gradients, gradients) > 0.02


def rows(inputs: Any, first: int, last: int) -> Any:
    """Samples of a batch whose tensors have the batch first, in dictionaries of any depth."""
    if isinstance(inputs, dict):
        return {name: rows(value, first, last) for name, value in inputs.items()}
    return inputs[first:last]


def doubled(inputs: Any) -> Any:
    """A batch with its floats in float64."""
    if isinstance(inputs, dict):
        return {name: doubled(value) for name, value in inputs.items()}
    return inputs.double() if inputs.is_floating_point() else inputs
