"""StableSyncNet's training: faces and sound that belong together, or do not; and how well it tells them apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor, nn

import lsx
from lsx.errors import CheckpointError, UsageError
from lsx.metrics.stable_sync import cosines_by_offset, offset_histogram
from lsx.models.checkpoint import read_tensors
from lsx.models.stable_syncnet import STABLE_SYNCNET_FILE, StableSyncNet, SyncNetConfig, lower_half
from lsx.training.config import SyncNetSettings
from lsx.training.losses import sync_loss
from lsx.training.samples import SyncNetSamples, usable_rows
from lsx.training.shards import DataSet
from lsx.training.task import TrainingTask

__all__ = ["SyncNetTask"]

_OFFSET_SEGMENTS = 64  # whose best shift is looked for in one evaluation
_EVALUATION_SEED = 1  # added to the training's, so that its pairs are others


class SyncNetTask(TrainingTask):
    """StableSyncNet under the cross-entropy of its cosine.

    weights : a `stable_syncnet.pt` to begin with, new weights where there is none; held_out : data for evaluation, the
    training's own where there is none. Raises UsageError, CheckpointError.
    """

    module: StableSyncNet

    def __init__(
        self, settings: SyncNetSettings, data: DataSet, *, weights: Path | None = None, held_out: DataSet | None = None
    ) -> None:
        self.settings = settings
        rows = usable_rows(data, settings.resolution)
        self.count = len(rows)
        self.samples = SyncNetSamples(data, rows, settings.seed, paired=settings.paired)
        self._held_out = held_out or data
        self.notes = () if held_out is not None else ("evaluated on the training's own data: give --validation DATA",)
        config = SyncNetConfig.from_mapping(settings.model, "the configuration") if settings.model else SyncNetConfig()
        torch.manual_seed(settings.seed)
        self.module = StableSyncNet(config)
        self._check_towers()
        if weights is not None:
            self._load(weights)
        if settings.gradient_checkpointing:
            self.module.checkpoint_gradients()

    def _check_towers(self) -> None:
        """Refuse towers that shrink faces or sound to nothing, or end in vectors of two lengths. Raises UsageError."""
        network, inputs = self.without_memory()
        try:
            seen, heard = network(*inputs)
        except RuntimeError as error:
            reason, (height, width) = str(error).splitlines()[0], inputs[0].shape[2:]
            raise UsageError(
                f"model: the towers do not fit faces of {height} x {width}, a mel of 80 x 52: {reason}"
            ) from error
        if seen.shape != heard.shape:
            numbers = f"{seen.shape[1]} and {heard.shape[1]}"
            raise UsageError(f"model: the towers end in {numbers} numbers; give as many of both")

    def without_memory(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        with torch.device("meta"):
            network = StableSyncNet(self.module.config)
            if self.settings.gradient_checkpointing:
                network.checkpoint_gradients()
            count, edge = self.settings.batch_size, network.config.resolution
            return network, (torch.empty(count, 48, edge // 2, edge), torch.empty(count, 1, 80, 52))

    def to(self, device: torch.device) -> None:
        del device  # nothing is frozen here

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"total": sync_loss(network, self._looks(batch["faces"]), batch["mel"], batch["together"])}

    def _looks(self, faces: Tensor) -> Tensor:
        """Faces [n, 16, 3, H, W] as the network takes them."""
        return lower_half(faces.flatten(0, 1), self.module.config.resolution)

    def write(self, folder: Path, module: nn.Module, step: int) -> None:
        state = {key: value.detach().cpu() for key, value in module.state_dict().items()}
        torch.save({"global_step": step, "state_dict": state}, folder / STABLE_SYNCNET_FILE)
        config = {"model": self.module.config.as_mapping()}
        (folder / STABLE_SYNCNET_FILE).with_suffix(".yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        described = {"lsx_version": lsx.__version__, "step": step, "averaged": self.settings.ema_decay}
        (folder / "training.json").write_text(json.dumps(described, indent=2), encoding="utf-8")

    def load(self, folder: Path) -> None:
        self._load(folder / STABLE_SYNCNET_FILE)

    def _load(self, file: Path) -> None:
        state = read_tensors(file).get("state_dict")
        own = dict(self.module.state_dict())
        if not isinstance(state, dict) or {k: v.shape for k, v in state.items()} != {
            k: v.shape for k, v in own.items()
        }:
            raise CheckpointError(f"{file}: of another SyncNet than the configuration's")
        with torch.no_grad():
            for key, value in own.items():
                value.copy_(state[key])

    def validate(self, checkpoint: Path, output: Path, step: int) -> Mapping[str, float]:
        """Accuracy and loss over pairs, and the histogram of best shifts, also as `evaluation.json` in `output`."""
        del checkpoint, step
        accuracy, loss = self._accuracy()
        offsets = self._offsets()
        in_sync = offsets.get(0, 0) / max(sum(offsets.values()), 1)
        output.mkdir(parents=True, exist_ok=True)
        content = {"accuracy": accuracy, "loss": loss, "in_sync": in_sync, "offsets": offsets}
        (output / "evaluation.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
        return {"accuracy": accuracy, "loss": loss, "in_sync": in_sync}

    def _accuracy(self) -> tuple[float, float]:
        """Share of pairs told right at a cosine of 0.5, and their loss."""
        rows = usable_rows(self._held_out, self.settings.resolution)
        pairs = SyncNetSamples(self._held_out, rows, self.settings.seed + _EVALUATION_SEED)
        device = next(self.module.parameters()).device
        right, losses = 0, []
        self.module.eval()
        with torch.inference_mode():
            for number in range(self.settings.num_val_samples):
                pair = {name: value.to(device)[None] for name, value in pairs[number].items()}
                seen, heard = self.module(self._looks(pair["faces"]), pair["mel"])
                cosine = float((seen * heard).sum().clamp(1e-6, 1 - 1e-6))
                together = bool(pair["together"] > 0)
                right += (cosine > 0.5) == together
                losses.append(-np.log(cosine if together else 1 - cosine))
        self.module.train()
        return right / self.settings.num_val_samples, float(np.mean(losses))

    def _offsets(self) -> dict[int, int]:
        best: list[int] = []
        for row in self._held_out.rows[:_OFFSET_SEGMENTS]:
            table = cosines_by_offset(
                self.module, self._held_out.faces(row, range(row.frames)), self._held_out.samples(row)
            )
            best += [] if table is None else [int(n) for n in table.shape[1] // 2 - table.argmax(1)]
        return offset_histogram(best)
