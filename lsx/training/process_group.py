"""The processes that train together, for as long as they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate.state import AcceleratorState

__all__ = ["process_group"]


@contextmanager
def process_group() -> Iterator[None]:
    """Every training inside has the same group, which the first one joins and which parts at the end.

    Left earlier, it could not be joined again: its members' old addresses stay in torchrun's store.
    """
    try:
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)
