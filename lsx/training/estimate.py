"""What a training would take, without training: parameters, memory, steps of a pass over the data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from lsx.training.config import Settings
from lsx.training.reports import last_step
from lsx.training.task import TrainingTask

__all__ = ["Estimate", "estimate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Bytes are of the device that trains, a process; what the allocator adds is not in them."""

    trained: int
    """Parameters that are trained."""
    parameters: int
    """Parameters of the network."""
    weight_bytes: int
    """The network, and the frozen ones, in float32."""
    optimizer_bytes: int
    """Gradients, and AdamW's two moments."""
    activation_bytes: int
    """What the network keeps for the way back in one forward; what the frozen ones keep is not in it."""
    steps_an_epoch: int
    steps: int

    @property
    def memory(self) -> int:
        """Bytes in all."""
        return self.weight_bytes + self.optimizer_bytes + self.activation_bytes


def estimate(task: TrainingTask, settings: Settings) -> Estimate:
    """Estimate a training on one process. Nothing is computed: activations are counted on tensors without memory."""
    parameters = sum(p.numel() for p in task.module.parameters())
    trained = sum(p.numel() for p in task.module.parameters() if p.requires_grad)
    network, inputs = task.without_memory()
    return Estimate(
        trained=trained,
        parameters=parameters,
        weight_bytes=4 * parameters + task.frozen_bytes,
        optimizer_bytes=12 * trained,
        activation_bytes=_kept_bytes(network, inputs) // (1 if settings.mixed_precision == "no" else 2),
        steps_an_epoch=math.ceil(task.count / (settings.batch_size * settings.gradient_accumulation_steps)),
        steps=last_step(settings, task.count),
    )


def _kept_bytes(network: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Bytes of what one forward keeps for the way back, each storage once, weights apart."""
    kept: dict[int, tuple[Tensor, int]] = {}  # the tensors are held, so that no two have one number

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and not (tensor._base is not None and tensor.is_leaf):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = (tensor, storage.nbytes())
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        network(*inputs)
    return sum(size for _, size in kept.values())
