"""A face for LiveKit Agents: what its AvatarRunner takes as the generator of video. Needs the extra `livekit`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from livekit import rtc
from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarOptions, VideoGenerator

from lsx.serving.agents.line import Line, Speech

__all__ = ["LsxVideoGenerator"]


class LsxVideoGenerator(VideoGenerator):
    """Speaks an agent's sound on a line: the `video_gen` of an `AvatarRunner`, whose `options` are `options`."""

    def __init__(self, line: Line, sample_rate: int = 24000) -> None:
        """sample_rate : of the agent's speech, which its listeners hear as it was made."""
        self._line, self._speech, self._rate = line, Speech(line), sample_rate

    @property
    def options(self) -> AvatarOptions:
        """What the runner is to be told."""
        return AvatarOptions(
            video_width=self._line.width,
            video_height=self._line.height,
            video_fps=25.0,
            audio_sample_rate=self._rate,
            audio_channels=1,
        )

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Say more, or learn that the utterance is whole."""
        if isinstance(frame, AudioSegmentEnd):
            await self._speech.end()
        else:
            await self._speech.say(bytes(frame.data.cast("B")), frame.sample_rate, frame.num_channels)

    async def clear_buffer(self) -> None:
        """Stop speaking: somebody interrupts."""
        await self._speech.clear()

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Pictures at 25 a second, before each spoken one its sound, after an utterance's last one its end."""
        async for shot in self._line.shots():
            if shot.speaking:
                sound, channels = self._speech.sound_of(shot), self._speech.channels
                yield rtc.AudioFrame(sound, self._speech.rate, channels, len(sound) // (2 * channels))
            height, width, _ = shot.image.shape
            yield rtc.VideoFrame(width, height, rtc.VideoBufferType.RGB24, shot.image.tobytes())
            if shot.last:
                yield AudioSegmentEnd()
