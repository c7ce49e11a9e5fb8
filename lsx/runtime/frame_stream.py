"""The frames of one run as an iterator that any thread may close, and the same for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

from lsx.core.cancel import CancelToken
from lsx.core.tensors import Frame
from lsx.core.threaded_stages import StageChain
from lsx.runtime.live_runs import ended_by

__all__ = ["FrameStream", "frames_of", "outcome_of"]

_T = TypeVar("_T")


class FrameStream(Iterator[Frame]):
    """Lip-synced frames as they are ready, uint8 [H, W, 3]: what `LipSync.stream` returns.

    Close it, or use it as a context manager, when not all frames are taken; one that is dropped stops by itself.
    `close` may be called from any thread, also while another waits for a frame, which then gets no more.
    """

    def __init__(self, chain: StageChain, cancel: CancelToken | None) -> None:
        self._chain = chain
        self._open = ExitStack()
        self._open.enter_context(ended_by(cancel, chain))

    def __next__(self) -> Frame:
        try:
            frame: Frame = next(self._chain)[0]
        except BaseException:
            self._open.close()
            raise
        return frame

    def close(self) -> None:
        """Stop, and wait until nothing of the run is left: at most for the chunk under way."""
        self._open.close()
        self._chain.close()

    def abort(self) -> None:
        """Stop, and return at once."""
        self._open.close()
        self._chain.abort()

    def __enter__(self) -> FrameStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            self.abort()  # not `close`: the collector may be at work on any thread, one of the run's own included


async def frames_of(start: Callable[[], FrameStream]) -> AsyncGenerator[Frame, None]:
    """The frames of the stream that `start` makes, waited for on a thread of its own.

    A consumer that is cancelled, or closes this, stops the work and waits for its end.
    """
    with ThreadPoolExecutor(1, "lsx-astream") as pool:  # its end waits for a stream that is being closed
        loop = asyncio.get_running_loop()
        stream = await loop.run_in_executor(pool, start)
        try:
            while (frame := await loop.run_in_executor(pool, next, stream, None)) is not None:
                yield frame
        finally:
            stream.abort()
            await _ended(loop.run_in_executor(pool, stream.close))


async def outcome_of(work: Callable[[CancelToken], _T], cancel: CancelToken | None) -> _T:
    """What `work` returns on a thread of its own, given a token that is cancelled when the caller is.

    The caller's cancellation is passed on only when the work has ended.
    """
    token = CancelToken()
    with ExitStack() as stack, ThreadPoolExecutor(1, "lsx-arun") as pool:
        if cancel is not None:
            stack.enter_context(cancel.subscribed(token.cancel))
        future = asyncio.get_running_loop().run_in_executor(pool, work, token)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            token.cancel()
            await _ended(future)
            raise


async def _ended(future: asyncio.Future[_T]) -> None:
    """Wait for the end of `future`, whatever it is, and however often the waiter is cancelled."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()  # looked at, so that the loop does not report it
