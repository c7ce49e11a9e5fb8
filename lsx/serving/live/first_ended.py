"""Work side by side, until one of it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["first_ended"]

T = TypeVar("T")


async def first_ended(*work: Coroutine[Any, Any, T]) -> list[T]:
    """Run all of it until one has ended, and give what ended gave; the rest is cancelled, and waited for.

    Raises what that one raised.
    """
    tasks = [asyncio.create_task(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return [task.result() for task in done]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
