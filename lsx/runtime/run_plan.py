"""A run's plan: which frames, whose mouths, which sounds, and when; from options and inputs, before any work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.core.clock import FPS, FrameClock
from lsx.core.footage import FootageOptions
from lsx.core.segments import Segment
from lsx.core.speaker_rule import SpeakerRule
from lsx.errors import UsageError
from lsx.media.audio_reader import SAMPLE_RATE, SoundReader
from lsx.media.given import VideoSource
from lsx.media.mixed_sound import LaidSound, MixedSound
from lsx.media.placed_sound import PlacedSound, own_sound, placed_samples
from lsx.runtime.chunk_plan import Part
from lsx.runtime.chunker import Chunker
from lsx.runtime.face_aligner import FaceAligner, FrameFaces
from lsx.runtime.silence import speech_share
from lsx.runtime.timeline import Timeline

__all__ = ["RunPlan", "VoicePlan", "plan_for_samples", "plan_of"]


@dataclass(frozen=True, slots=True, eq=False)
class VoicePlan:
    """A sound, and where the mouth moves to it."""

    samples: NDArray[np.int16] | NDArray[np.float32]
    """What the model hears, mono at 16 kHz, from the part's first frame on."""
    part: Part
    speech: NDArray[np.float32] | None
    """Share of each of the part's frames that is spoken, where `silence` asks for it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunPlan:
    """What a run does."""

    timeline: Timeline
    voices: tuple[VoicePlan, ...]
    rules: tuple[SpeakerRule, ...]
    """Rules of who speaks; a part's rule is its number here."""

    def chunker(self, frames: int, overlap: int) -> Chunker:
        """What cuts it into chunks of `frames` frames."""
        parts = [voice.part for voice in self.voices]
        return Chunker(frames=frames, length=self.timeline.frames, overlap=overlap, stride=self.stride, parts=parts)

    def aligner(self, faces: FrameFaces, *, threads: int, require_face: bool = False) -> FaceAligner:
        """What aligns its faces. threads : on which frames are looked at."""
        return FaceAligner(
            faces=faces,
            length=self.timeline.frames,
            require_face=require_face,
            needed=self.spoken,
            clock=self.timeline.clock,
            detector_threads=threads,
        )

    @property
    def spoken(self) -> NDArray[np.bool_]:
        """Output frames in which a voice speaks, [frames]."""
        spoken = np.zeros(self.timeline.frames, bool)
        for voice in self.voices:
            spoken[voice.part.start : voice.part.stop] = True
        return spoken

    @property
    def stride(self) -> int:
        """Frames from one of a chunk to its next: about as far apart in time as those that the model was trained on."""
        return max(int(self.timeline.clock.rate / FPS), 1)


def plan_for_samples(timeline: Timeline, samples: Any, footage: FootageOptions) -> RunPlan:
    """The plan of one sound from the first frame to the last, as the result has it."""
    return RunPlan(
        timeline=timeline,
        voices=(_voice(samples, Part(0, timeline.frames), footage, timeline.shown()),),
        rules=footage.speaker_rules,
    )


def plan_of(video: VideoSource, sound: SoundReader | None, footage: FootageOptions) -> tuple[RunPlan, SoundReader]:
    """The plan of a run over files, and the sound of its result. sound : None where the segments have theirs.

    Raises UsageError, MediaError.
    """
    if footage.segments is None:
        if sound is None:
            raise UsageError("there is no sound; give an audio, or segments with sounds of their own")
        timeline = Timeline.of(footage, video.count, len(sound.samples()), video.clock)
        if timeline.is_placed:
            seconds = timeline.seconds if timeline.fitted else None
            sound = PlacedSound(sound, timeline.audio_offset, seconds)
        return plan_for_samples(timeline, sound.samples(), footage), sound
    if sound is not None:
        raise UsageError("the segments have sounds of their own; leave the audio out")
    timeline = Timeline.of_video(footage, video.count, video.clock)
    clock, zero = timeline.shown(), video.clock.seconds(timeline.first)
    sounds = _sounds(footage.segments)
    rules = footage.speaker_rules
    texts = [rule.text for rule in rules]
    voices, laid = [], []
    for number, segment in enumerate(footage.segments):
        start, stop = _span(segment, timeline, number + 1)
        read, offset = sounds[segment.audio], Fraction(round(segment.audio_offset * SAMPLE_RATE), SAMPLE_RATE)
        begins = Fraction(round(segment.start * SAMPLE_RATE), SAMPLE_RATE) - zero
        ends = Fraction(round(segment.end * SAMPLE_RATE), SAMPLE_RATE) - zero
        part = Part(start, stop, number, texts.index(segment.speaker or footage.speaker))
        lead = begins - clock.seconds(start) + offset
        heard = placed_samples(read.samples(), lead, clock.seconds(stop) - clock.seconds(start))
        voices.append(_voice(heard, part, footage, clock))
        laid.append(LaidSound(PlacedSound(read, offset, ends - begins), begins, ends, segment.volume))
    mixed = MixedSound(own_sound(video, zero), laid, timeline.seconds, footage.mix)
    return RunPlan(timeline=timeline, voices=tuple(voices), rules=rules), mixed


def _voice(samples: Any, part: Part, footage: FootageOptions, clock: FrameClock) -> VoicePlan:
    speech = None
    if footage.silence != "sync":
        ticks = clock.nearest_units(range(part.start, part.stop + 1), 100, part.start)
        speech = speech_share(samples, part.stop - part.start, ticks)
    kept = speech if footage.silence == "keep" else None
    return VoicePlan(samples, replace(part, speech=kept), speech)


def _sounds(segments: Iterable[Segment]) -> dict[Path, SoundReader]:
    """Each file once. Raises MediaError."""
    return {path: SoundReader(path) for path in dict.fromkeys(segment.audio for segment in segments)}


def _span(segment: Segment, timeline: Timeline, number: int) -> tuple[int, int]:
    """First and last output frame, the last excluded. Raises UsageError for a segment beyond the part that is used."""
    clock, last = timeline.clock, timeline.first + timeline.frames
    start, stop = (clock.nearest(second, last + 2) - timeline.first for second in (segment.start, segment.end))
    if start < 0 or stop > timeline.frames + 1 or start >= timeline.frames:
        raise UsageError(
            f"segment {number} goes from {segment.start:g} to {segment.end:g} s, and the part of the video that is "
            f"used from {float(clock.seconds(timeline.first)):g} to {float(clock.seconds(last)):g} s"
        )
    return start, max(min(stop, timeline.frames), start + 1)
