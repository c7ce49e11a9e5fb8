"""The learning rate's schedules beside diffusers'."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from diffusers.optimization import get_scheduler

from lsx.training.config import LRScheduler
from lsx.training.learning_rate import learning_rate

STEPS = 40


def rates(schedule: torch.optim.lr_scheduler.LambdaLR, optimizer: torch.optim.Optimizer) -> list[float]:
    values = []
    for _ in range(STEPS + 3):
        values.append(float(schedule.get_last_lr()[0]))
        optimizer.step()
        schedule.step()
    return values


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)


@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize("name", get_args(LRScheduler))
def test_a_schedule_is_diffusers_own(name: LRScheduler, warmup: int) -> None:
    ours, theirs = optimizer(), optimizer()
    wanted = get_scheduler(name, theirs, num_warmup_steps=warmup, num_training_steps=STEPS)
    found = learning_rate(name, ours, warmup=warmup, steps=STEPS)
    assert rates(found, ours) == pytest.approx(rates(wanted, theirs), rel=1e-9, abs=1e-15)
