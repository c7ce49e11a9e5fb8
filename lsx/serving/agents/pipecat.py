"""A face for Pipecat: a processor that stands after the speech synthesis. Needs the extra `pipecat`."""

from __future__ import annotations

import asyncio
from typing import Any

from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from lsx.serving.agents.line import Line, Shot, Speech

__all__ = ["LsxVideoService"]


class LsxVideoService(FrameProcessor):
    """Takes the synthesis's sound, and gives pictures at 25 a second and that sound, in step.

    Put it between the synthesis and the transport, which is to take pictures (`video_out_enabled`, 25 frames a second,
    the line's `width` and `height`, `video_out_is_live`).
    """

    def __init__(self, line: Line, **more: Any) -> None:
        """more : of FrameProcessor."""
        super().__init__(**more)
        self._line, self._speech = line, Speech(line)
        self._task: asyncio.Task[None] | None = None
        self._stopped: list[TTSStoppedFrame] = []
        self._said, self._quiet = False, asyncio.Event()
        self._quiet.set()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take sound, ends and interruptions, and pass on all else."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self._said = True
            self._quiet.clear()
            await self._speech.say(frame.audio, frame.sample_rate, frame.num_channels)
            return
        if isinstance(frame, TTSStoppedFrame) and self._said:
            self._said = False
            self._stopped.append(frame)  # passed on when it is true: after the last picture
            await self._speech.end()
            return
        if isinstance(frame, InterruptionFrame):
            self._said = False
            self._stopped.clear()
            await self._speech.clear()
            self._quiet.set()
        elif isinstance(frame, EndFrame):
            if self._said:
                await self._speech.end()
            await self._quiet.wait()
            await self._close()
        elif isinstance(frame, CancelFrame):
            await self._close()
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame) and self._task is None:
            self._task = self.create_task(self._show())

    async def cleanup(self) -> None:
        """Stop."""
        await self._close()
        await super().cleanup()  # type: ignore[no-untyped-call]

    async def _close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await self.cancel_task(task)

    async def _show(self) -> None:
        async for shot in self._line.shots():
            await self._pass_on(shot)

    async def _pass_on(self, shot: Shot) -> None:
        height, width, _ = shot.image.shape
        if shot.speaking:
            sound = self._speech.sound_of(shot)
            await self.push_frame(TTSAudioRawFrame(sound, self._speech.rate, self._speech.channels))
        picture = OutputImageRawFrame(image=shot.image.tobytes(), size=(width, height), format="RGB")
        picture.sync_with_audio = shot.speaking
        await self.push_frame(picture)
        if shot.last:
            if self._stopped:
                await self.push_frame(self._stopped.pop(0))
            if not self._stopped and not self._said:
                self._quiet.set()
