"""Low-rank additions to linear layers, by peft, and their merging into weights that anything can load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lsx.errors import UsageError

__all__ = ["add_adapters", "merged_state"]


def add_adapters(module: nn.Module, parts: Sequence[str], rank: int, alpha: int | None, seed: int) -> None:
    """Freeze `module`, and add trainable low-rank layers to its linear layers whose name holds one of `parts`.

    They change nothing before they are trained. alpha : their scale times the rank; the rank unless given.
    Raises UsageError where no linear layer has such a name.
    """
    from peft import LoraConfig, inject_adapter_in_model

    names = [
        name
        for name, child in module.named_modules()
        if isinstance(child, nn.Linear) and any(part in name for part in parts)
    ]
    if not names:
        raise UsageError(f"lora_rank: no linear layer's name holds one of {', '.join(parts)}")
    module.requires_grad_(False)
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=alpha or rank, target_modules=names, lora_dropout=0.0)
    inject_adapter_in_model(config, module)


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict of `module` under its own names, its adapters, if any, merged into the weights. On the CPU."""
    from peft.tuners.lora import LoraLayer

    merged = {}
    for key, value in module.state_dict().items():
        if ".lora_" not in key:
            merged[key.replace(".base_layer.", ".")] = value.detach().cpu()
    for name, child in module.named_modules():
        if isinstance(child, LoraLayer):
            layer: Any = child  # LoraLayer is a mixin: what it is mixed into has the delta
            for adapter in layer.active_adapters:
                merged[f"{name}.weight"] = merged[f"{name}.weight"] + layer.get_delta_weight(adapter).detach().cpu()
    return merged
