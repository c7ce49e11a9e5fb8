"""The moving average of weights beside diffusers'."""

from __future__ import annotations

import pytest
import torch
from diffusers.training_utils import EMAModel

from lsx.training.weight_average import WeightAverage


def weights() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    return [torch.nn.Parameter(torch.randn(*shape, generator=generator)) for shape in ((3, 4), (5,))]


def moved(parameters: list[torch.nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator))


def averages(average: WeightAverage, parameters: list[torch.nn.Parameter]) -> list[torch.Tensor]:
    with average.in_place():
        return [parameter.detach().clone() for parameter in parameters]


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_it_is_diffusers_own(decay: float) -> None:
    parameters = weights()
    ours, theirs = WeightAverage(parameters, decay), EMAModel(parameters, decay=decay, foreach=True)
    for step in range(25):
        moved(parameters, step)
        ours.step()
        theirs.step(parameters)
        assert all(map(torch.equal, averages(ours, parameters), theirs.shadow_params))


def test_the_weights_are_back_after_it_was_in_place() -> None:
    parameters = weights()
    average = WeightAverage(parameters, 0.9)
    moved(parameters, 1)
    before = [parameter.detach().clone() for parameter in parameters]
    with average.in_place():
        assert not any(map(torch.equal, parameters, before))
    assert all(map(torch.equal, parameters, before))


def test_a_state_of_diffusers_is_gone_on_with() -> None:
    parameters = weights()
    theirs = EMAModel(parameters, decay=0.9, foreach=True)
    for step in range(6):
        moved(parameters, step)
        theirs.step(parameters)
    ours = WeightAverage(parameters, 0.9)
    ours.load_state_dict(theirs.state_dict())
    moved(parameters, 9)
    theirs.step(parameters)
    ours.step()
    assert all(map(torch.equal, averages(ours, parameters), theirs.shadow_params))
