"""The places of a program's buffers in memory: those whose lifetimes do not meet share addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lsx.denoising.program import Program, reads_and_writes
from lsx.engines.device import aligned
from lsx.errors import EngineError

__all__ = ["MemoryPlan", "lifetimes", "plan_memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """The place of each buffer in one block of memory."""

    offsets: Mapping[str, int]
    """Bytes from the block's start, multiples of ALIGNMENT."""
    size: int
    """Bytes of the block."""


def lifetimes(program: Program) -> dict[str, tuple[int, int]]:
    """First and last operation of every buffer; all of them for those that outlive a run.

    Raises EngineError for a read of what nothing wrote.
    """
    spans: dict[str, tuple[int, int]] = {}
    last = len(program.operations)
    for buffer in program.buffers.values():
        if buffer.owner != "scratch":
            spans[buffer.name] = (-1, last)
    written = {buffer.name for owner in ("input", "constant") for buffer in program.owned(owner)}
    for index, operation in enumerate(program.operations):
        reads, writes = reads_and_writes(operation)
        for view in reads:
            if view.buffer not in written:
                raise EngineError(f"operation {index} reads {view.buffer}, which nothing wrote")
        written |= {view.buffer for view in writes}
        for view in (*reads, *writes):
            first, end = spans.get(view.buffer, (index, index))
            spans[view.buffer] = (first, max(end, index))
    return spans


def plan_memory(program: Program) -> MemoryPlan:
    """Place every buffer: the largest first, each at the lowest address that is free for all of its life."""
    spans = lifetimes(program)
    used = [buffer for buffer in program.buffers.values() if buffer.name in spans]
    placed: list[tuple[int, int, tuple[int, int]]] = []
    offsets = {}
    for buffer in sorted(used, key=lambda one: (-one.size, spans[one.name])):
        first, last = spans[buffer.name]
        size = aligned(buffer.size)
        offset = 0
        for start, end, (begin, finish) in sorted(placed):
            if begin <= last and first <= finish:
                if start - offset >= size:
                    break
                offset = max(offset, end)
        placed.append((offset, offset + size, (first, last)))
        offsets[buffer.name] = offset
    return MemoryPlan(offsets=offsets, size=max((end for _, end, _ in placed), default=0))
