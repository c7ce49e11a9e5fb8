"""The moving average of a network's weights, which a training may save in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """The average of `parameters` over the steps, at a decay that grows to `decay`: min(decay, (1 + n) / (10 + n)).

    n : the steps before this one. The first step's weights are the first average. Source: diffusers' EMAModel.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._parameters, self._decay, self._steps = parameters, decay, 0
        self._averages = [parameter.detach().clone() for parameter in parameters]

    def step(self) -> None:
        """Take in the weights after a step of the optimiser."""
        before, self._steps = self._steps, self._steps + 1
        decay = min(self._decay, (1 + before) / (10 + before)) if before else 0.0
        with torch.no_grad():
            differences: list[Tensor] = list(torch._foreach_sub(self._averages, self._parameters))  # type: ignore[arg-type]
            torch._foreach_sub_(self._averages, differences, alpha=1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The averages in place of the weights, for as long as the context lasts."""
        trained = [parameter.detach().clone() for parameter in self._parameters]
        self._fill(self._averages)
        try:
            yield
        finally:
            self._fill(trained)

    def _fill(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self._parameters, values, strict=True):
                parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """The state under diffusers' names, so that a training that it began goes on."""
        return {"optimization_step": self._steps, "shadow_params": self._averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. Raises ValueError where it is of other weights."""
        self._steps = int(state["optimization_step"])
        for average, value in zip(self._averages, state["shadow_params"], strict=True):
            average.copy_(value)
