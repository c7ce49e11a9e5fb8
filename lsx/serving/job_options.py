"""A job's options over HTTP: those of `lsx run`, by the same models, so that neither lags behind the other."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

from lsx.core.footage import FootageOptions
from lsx.core.keywords import options_of, split_keywords
from lsx.core.prepared_footage import FIXED
from lsx.core.sampling import SamplingOptions
from lsx.core.segments import Segment
from lsx.errors import UsageError
from lsx.media.encoding import EncodeOptions

__all__ = ["JobOptions", "PrepareOptions", "RunOptions", "named_option", "run_options"]

_LEFT_OUT = frozenset({"faces", "compare_layout", "encoder"})
"""What names a file of the server's, or has no use here."""

_HELP: Mapping[str, str] = {
    "steps": "Denoising steps: 20 is usual, fewer are faster",
    "guidance": "How strongly the sound leads: 1.5 is usual, 1 is off",
    "cache_interval": "A full U-Net every this many steps; off computes every step whole",
    "seed": "Seed of the noise: the same seed gives the same video",
    "sampler": "ddim, as the model was released; dpm++2m, which needs half the steps; ddim-trailing for one to four",
    "codec": "Video codec",
    "preset": "The encoder's preset, as medium or slow",
    "pix_fmt": "FFmpeg's name of a YUV format",
    "audio_codec": "Sound's codec",
    "crf": "Constant quality: lower is better, 18 is visually lossless",
}
_BOUNDS: Mapping[str, dict[str, Any]] = {
    "steps": {"ge": 1, "le": 1000},
    "guidance": {"ge": 1, "le": 20},
    "seed": {"ge": 0, "le": 2**53 - 1},
    "cache_interval": {},
    "crf": {"ge": 0, "le": 63},
}
_TYPES: Mapping[str, Any] = {
    "cache_interval": int | Literal["off"],
    "codec": Literal["h264", "hevc", "av1", "prores"] | None,
    "audio_codec": Literal["aac", "opus", "pcm", "copy"],
    "mask": Literal["soft", "hard"],
    "fps": float | str,
    "audio_offset": float | str,
    "start": float | str,
    "end": float | str | None,
    "speaker": str,
}
_DEFAULTS: Mapping[str, Any] = {"fps": 25.0}


class JobSegment(BaseModel):
    """A sound that a face of the video says, from one second of the video to another."""

    model_config = ConfigDict(extra="forbid")

    start: float | str = Field(description=str(Segment.model_fields["start"].description))
    end: float | str = Field(description=str(Segment.model_fields["end"].description))
    audio: str = Field(description="the id of an uploaded sound", pattern=r"^asset_[0-9a-z]{26}$")
    speaker: str | None = Field(default=None, description=str(Segment.model_fields["speaker"].description))
    audio_offset: float | str = Field(default=0.0, description=str(Segment.model_fields["audio_offset"].description))
    volume: float = Field(default=1.0, ge=0, le=10, description=str(Segment.model_fields["volume"].description))


def _dataclass_fields(kind: Any) -> dict[str, Any]:
    hints, found = get_type_hints(kind), {}
    for field in fields(kind):
        if field.name in _LEFT_OUT:
            continue
        more = dict(_BOUNDS.get(field.name, {}))
        described = Field(default=field.default, description=_HELP.get(field.name), **more)
        found[field.name] = (_TYPES.get(field.name, hints[field.name]), described)
    return found


def _footage_fields() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in FootageOptions.model_fields.items():
        if name in _LEFT_OUT:
            continue
        if name == "segments":
            found[name] = (list[JobSegment] | None, Field(default=None, description="several sounds, each with a face"))
            continue
        bounds: dict[str, Any] = {
            key: getattr(limit, key)
            for limit in field.metadata
            for key in ("ge", "le")
            if hasattr(limit, key) and name not in _TYPES
        }
        default = _DEFAULTS.get(name, field.default)
        described = Field(default=default, description=field.description, **bounds)
        found[name] = (_TYPES.get(name, field.annotation), described)
    return found


def _job_options() -> type[BaseModel]:
    every = _dataclass_fields(SamplingOptions) | _footage_fields() | _dataclass_fields(EncodeOptions)
    model: type[BaseModel] = create_model(
        "JobOptions",
        __config__=ConfigDict(extra="forbid"),
        __doc__="How the video is made: the options of `lsx run` and of `LipSync.run`, by the same names.",
        **every,
    )
    return model


if TYPE_CHECKING:
    JobOptions = BaseModel
else:
    JobOptions = _job_options()
"""The request's `options`: types and bounds. What depends on several of them `run_options` refuses."""


def _prepare_options() -> type[BaseModel]:
    footage = _footage_fields()
    model: type[BaseModel] = create_model(
        "PrepareOptions",
        __config__=ConfigDict(extra="forbid"),
        __doc__="How an avatar is prepared: options of `lsx prepare`, by the same names.",
        **{name: footage[name] for name in FIXED},
    )
    return model


if TYPE_CHECKING:
    PrepareOptions = BaseModel
else:
    PrepareOptions = _prepare_options()
"""The options that jobs with an avatar then have."""


class RunOptions(BaseModel):
    """A job's options as a run takes them."""

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    sampling: SamplingOptions
    footage: FootageOptions
    encode: EncodeOptions


def run_options(
    given: Mapping[str, Any],
    sounds: Mapping[str, Any] = types.MappingProxyType({}),
    sampling: SamplingOptions | None = None,
) -> RunOptions:
    """The three kinds of options of what a request gave.

    sounds : a path for the id of each sound that segments name; sampling : the bundle's own, for what was not given.

    Raises UsageError as `lsx run` does.
    """
    chosen = {name: value for name, value in given.items() if name not in ("segments",)}
    if given.get("segments") is not None:
        segments = given["segments"]
        chosen["segments"] = [segment | {"audio": str(sounds.get(segment["audio"], "sound"))} for segment in segments]
    kinds = split_keywords(chosen, SamplingOptions, FootageOptions, EncodeOptions)
    return RunOptions(
        sampling=options_of(SamplingOptions, None, kinds[0], "options", sampling),
        footage=options_of(FootageOptions, None, kinds[1], "options"),
        encode=options_of(EncodeOptions, None, kinds[2], "options"),
    )


def named_option(error: UsageError) -> str | None:
    """Which option a refusal is about, where it begins with one's name."""
    word = re.match(r"[a-z_]+", str(error))
    return word.group() if word is not None and word.group() in JobOptions.model_fields else None
