"""What a training is of, apart from how it is driven."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

__all__ = ["TrainingTask"]


class TrainingTask(ABC):
    """A network, its samples, its loss, and the files that come of it."""

    module: nn.Module
    """The network in float32 on the CPU; what is trained requires gradients."""
    samples: Dataset[dict[str, Tensor]]
    """Samples by running number, as `lsx.training.samples` has it."""
    count: int
    """Samples of one pass over the data."""
    written_as_trained: bool = True
    """Whether the released file has the very parameters that are trained."""
    notes: tuple[str, ...] = ()
    """What the run leaves out, a line each."""

    frozen_bytes: int = 0
    """Bytes of the frozen networks, in float32."""

    def prepare(self, rank: int, world: int) -> None:
        """Compute what the samples need and is not there yet; every process a part of it."""
        del rank, world

    @abstractmethod
    def without_memory(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """The network, and one batch of its inputs, on the meta device."""

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move the frozen networks there."""

    @abstractmethod
    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The losses of a batch by name, scalars; `total` has the gradients."""

    @abstractmethod
    def write(self, folder: Path, module: nn.Module, step: int) -> None:
        """Write the released files of `module`'s weights into a checkpoint's folder. Raises OSError."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Give `module` the weights to go on from. folder : a checkpoint's. Raises CheckpointError."""

    def validate(self, checkpoint: Path, output: Path, step: int) -> Mapping[str, float]:
        """Look at what a checkpoint makes, in files under `output`, and in numbers."""
        del checkpoint, output, step
        return {}
