"""How the learning rate goes over a training: diffusers' schedules under diffusers' names.

They are written out here because importing them from there takes longer than everything else that a training imports.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lsx.training.config import LRScheduler

__all__ = ["learning_rate"]

_LAST = 1e-7  # learning rate at which polynomial ends

_Decay = Callable[[float, float], float]


def _constant(_progress: float, _lr: float) -> float:
    return 1.0


def _linear(progress: float, _lr: float) -> float:
    return max(0.0, 1 - progress)


def _cosine(progress: float, _lr: float) -> float:
    return max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))


def _cosine_with_restarts(progress: float, _lr: float) -> float:
    return 0.0 if progress >= 1 else _cosine(progress % 1, _lr)


def _polynomial(progress: float, lr: float) -> float:
    return ((lr - _LAST) * max(0.0, 1 - progress) + _LAST) / lr


_DECAYS: Final[Mapping[LRScheduler, _Decay]] = {
    "constant": _constant,
    "constant_with_warmup": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _cosine_with_restarts,
    "polynomial": _polynomial,
}
"""Share of the learning rate, by the share of the steps after the warm-up that is done and the rate itself."""


def learning_rate(name: LRScheduler, optimizer: Optimizer, *, warmup: int, steps: int) -> LambdaLR:
    """The schedule `name` over `steps` steps, the first `warmup` of them rising from 0; constant has no warm-up."""
    decay, lr = _DECAYS[name], float(optimizer.defaults["lr"])
    rising = 0 if name == "constant" else warmup

    def share(step: int) -> float:
        if step < rising:
            return step / rising
        return decay((step - rising) / max(1, steps - rising), lr)

    return LambdaLR(optimizer, share)
