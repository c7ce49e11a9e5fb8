"""The part of the footage that is used, the mouth that moves, and the result's length: what a user chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lsx.core.clock import FPS
from lsx.core.keywords import named_alone
from lsx.core.seconds import Seconds
from lsx.core.segments import Segment, read_segments, segments_of, wrong_value
from lsx.core.speaker_rule import SPEAKERS, SpeakerRule, speaker_text
from lsx.errors import UsageError

__all__ = [
    "AudioContext",
    "CompareLayout",
    "Extend",
    "FootageKeywords",
    "FootageOptions",
    "Length",
    "Mix",
    "Segments",
    "Silence",
]

Length = Literal["audio", "video", "shortest", "longest"]
Extend = Literal["bounce", "loop", "hold", "cut_off", "silence", "remap"]
AudioContext = Literal["exact", "smooth"]
Silence = Literal["sync", "keep", "close"]
CompareLayout = Literal["side", "stack", "wipe", "difference"]
Mix = Literal["replace", "over", "duck"]

Segments = Path | str | Sequence[Segment | Mapping[str, Any]] | None


def _rate(value: Any) -> Any:
    """`source`, or frames a second; those of NTSC, as 29.97, are exact."""
    if value == "source":
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float | Fraction):
        raise ValueError
    try:
        rate = Fraction(value if not isinstance(value, float) else str(value))
    except ZeroDivisionError as error:
        raise ValueError from error
    if not 1 <= rate <= 240:
        raise ValueError
    ntsc = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    return ntsc if rate != ntsc and abs(rate - ntsc) < Fraction(1, 100) and rate.denominator != 1 else rate


def _read(segments: Any) -> Any:
    """The segments of a file, or of a list of them or of their fields."""
    if isinstance(segments, Path | str):
        return read_segments(Path(segments))
    return segments_of(segments, Path()) if isinstance(segments, Sequence) else segments


@named_alone
class FootageOptions(BaseModel):
    """The part of the video that is used, the mouth that moves, the sound's beginning, and the result's length.

    Raises UsageError for a value out of its range, and for a name that is none of these.

    Examples
    --------
    >>> FootageOptions(start="1:02.5").start
    62.5
    >>> FootageOptions(extend="backwards")
    Traceback (most recent call last):
    ...
    lsx.errors.UsageError: extend is 'backwards'; give bounce, loop, hold, cut_off, silence or remap
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    length: Length | None = Field(default=None, description="audio, video, shortest or longest")
    """How long the result is; None is `video` where `extend` is `silence`, and `audio` otherwise."""
    extend: Extend = Field(default="bounce", description="bounce, loop, hold, cut_off, silence or remap")
    """What a video that is too short does: play back and forth, again from the start, hold its last frame, or change
    its speed (`remap`, also where it is too long). `cut_off` extends nothing: the result ends with what ends first.
    `silence` extends the sound alone."""
    remap_limit: float = Field(default=2.0, ge=1, le=8, description="a number in 1..8")
    """How many times faster or slower `remap` may play the video; beyond, it is cut, or plays back and forth."""
    audio_offset: Seconds = Field(default=0.0, description="seconds, as 0.2, -1.5 or 1:02.5")
    """Seconds by which the sound comes later, silence before it; where negative, its beginning is left out."""
    start: Seconds = Field(default=0.0, ge=0, description="a second of the video, as 12.5 or 1:02.5")
    """Second of the video at which the part begins that is used, to the nearest frame of 1/25 s."""
    end: Seconds | None = Field(default=None, ge=0, description="a second of the video after start, as 15 or 1:02.5")
    """Second at which it ends; None, or beyond the video, is the video's end."""

    fps: Annotated[Literal["source"] | Fraction, BeforeValidator(_rate)] = Field(
        default=Fraction(FPS), description="source, or frames a second from 1 to 240, as 25, 29.97 or 30000/1001"
    )
    """Frames a second of the result. The model knows 25, and the video's frames nearest to that grid are taken;
    `source` keeps every frame of a file, and its time. Sound is heard by time; from 50 on every second frame, or third,
    makes a chunk, and those between another, so that the model sees them as far apart as it knows."""

    speaker: Annotated[str, AfterValidator(speaker_text)] = Field(default="largest", description=SPEAKERS)
    """The face whose mouth moves. A place is looked at where a shot begins, and that face followed; frames without it
    stay as they are. `active` is the face that speaks in the video's sound. Tracks' numbers are those of `faces`."""
    faces: Path | None = Field(default=None, description="a file that lsx faces wrote")
    """The video's faces, so that they are not looked for again."""
    detect_every: int = Field(default=1, ge=1, le=25, strict=True, description="a whole number of frames in 1..25")
    """Frames of which one is looked at for faces; in those between, and until a cut, they are followed by their
    landmarks, in less time. 1 looks at every frame."""

    segments: Annotated[tuple[Segment, ...] | None, BeforeValidator(_read)] = Field(
        default=None, description="a .json or .csv file, or a list of objects with start, end and audio"
    )
    """Several sounds, each of which a face says in a part of the video; the run has no other sound then. Frames outside
    stay as they are and cost nothing, and the video's own sound is heard there. The result is as long as the video."""
    mix: Mix = Field(default="replace", description="replace, over or duck")
    """What becomes of the video's own sound in a segment: silent, as loud as before, or 12 dB softer."""
    overlap: int = Field(default=0, ge=0, le=8, strict=True, description="a whole number of frames in 0..8")
    """Frames that neighbouring chunks have in common; over them one leads over to the other, in the latents of every
    denoising step. A chunk has 16 frames, so that 4 cost a third more chunks."""

    colour_match: bool = Field(default=False, description="true or false")
    """Whether a made face's colours are moved to those that the frame has along jaw and cheeks."""
    sharpen: float = Field(default=0.0, ge=0, le=4, description="a number in 0..4")
    """How far what was made is sharpened before it is pasted: an unsharp mask in linear light; 0 is not at all."""
    mask: str = Field(default="soft", description="soft, hard or a picture of the aligned face")
    """How a face is blended in: fading out at its edges as in the original, not at all, or, besides, by the light of a
    picture: white is the made face, black the frame."""

    silence: Silence = Field(default="sync", description="sync, keep or close")
    """What the mouth does in silences of 0.4 s and more: `sync` is what the model makes of them, `keep` leaves the
    video's own mouth and computes nothing, `close` gives the model the tokens of silence. Three frames lead over."""
    audio_context: AudioContext = Field(default="exact", description="exact or smooth")
    """What the audio encoder hears around a moment: `exact`, as the original, the 30 s that it lies in, whose borders
    can be seen; `smooth` 30 s around it, in windows that overlap and lead over, for twice the encoder's calls."""
    compare_layout: CompareLayout = Field(default="side", description="side, stack, wipe or difference")
    """How `compare` shows original and result: beside each other, one above the other, either side of a line that goes
    across in two seconds, or how far they are apart, fourfold."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UsageError(wrong_value(error, type(self))) from error
        if self.end is not None and self.end <= self.start:
            raise UsageError(f"end is {self.end:g} and start {self.start:g}; give an end after the start")
        self._check_speakers()
        if self.segments is not None:
            self._check_segments(self.segments)

    def _check_speakers(self) -> None:
        for rule in self.speaker_rules:
            if self.faces is None and (rule.tracks or round(rule.second * 25) > round(self.start * 25)):
                what = "numbers of tracks" if rule.tracks else "a box at a later second than the start"
                raise UsageError(
                    f"speaker is {rule.text!r}: {what} needs faces, a file that lsx faces VIDEO -o tracks.json writes"
                )

    def _check_segments(self, segments: Sequence[Segment]) -> None:
        if not segments:
            raise UsageError("segments is empty; give at least one, or leave it out")
        for name in ("length", "extend", "audio_offset"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise UsageError(f"segments last as long as the video, each with its own sound; leave {name} out")
        latest: dict[str | None, Segment] = {}
        for segment in segments:
            before = latest.get(segment.speaker)
            if before is not None and segment.start < before.end:
                whose = segment.speaker or self.speaker
                raise UsageError(
                    f"segments: one begins at {segment.start:g} s while another of {whose!r} lasts to {before.end:g} s"
                )
            latest[segment.speaker] = segment

    @property
    def rate(self) -> Fraction | None:
        """`fps`; None is the video's own.

        Examples
        --------
        >>> FootageOptions(fps=29.97).rate
        Fraction(30000, 1001)
        """
        return None if self.fps == "source" else self.fps

    @property
    def speaker_rule(self) -> SpeakerRule:
        """`speaker`, read.

        Examples
        --------
        >>> FootageOptions(speaker="box=10,20,100,50").speaker_rule.box
        (10.0, 20.0, 110.0, 70.0)
        """
        return SpeakerRule.parsed(self.speaker)

    @property
    def speaker_rules(self) -> tuple[SpeakerRule, ...]:
        """The segments' rules, each once, in the order of their first use; without segments the one of `speaker`.

        Examples
        --------
        >>> FootageOptions(speaker="left").speaker_rules[0].place
        'left'
        """
        texts = [self.speaker] if self.segments is None else [one.speaker or self.speaker for one in self.segments]
        return tuple(SpeakerRule.parsed(text) for text in dict.fromkeys(texts))


class FootageKeywords(TypedDict, total=False):
    """FootageOptions' fields as keywords, but for those that a stream has not, or takes in another form."""

    extend: Extend
    remap_limit: float
    audio_offset: float | str
    start: float | str
    end: float | str | None
    fps: str | float | Fraction
    audio_context: AudioContext
    overlap: int
    colour_match: bool
    sharpen: float
    mask: str
    silence: Silence
    speaker: str
    faces: Path | str | None
    detect_every: int
