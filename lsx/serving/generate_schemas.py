"""/v2/generate: requests as sync.so's own SDK sends them, and what is a job's by those words.

The names are sync.so's v2, camelCase but for `options`. What has no counterpart here is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from lsx.serving.problems import invalid
from lsx.serving.schemas import Job, JobRequest

__all__ = ["Generation", "GenerationRequest", "generation_of", "job_request_of"]

_MODEL, _OPTIONS = "generation_model", "generation_options"
"""Keys of a job's metadata that keep what the job has no place for, and its answer shows again."""


class _Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")


class GenerationInput(_Camel):
    """A video, or a sound."""

    type: Literal["video", "audio"]
    url: str | None = None
    asset_id: str | None = None
    ref_id: str | None = None


class ActiveSpeaker(BaseModel):
    """Whose mouth moves."""

    model_config = ConfigDict(extra="forbid")

    auto_detect: bool | None = None
    frame_number: int | None = Field(default=None, ge=0)
    coordinates: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    bounding_boxes: list[Annotated[list[int], Field(min_length=4, max_length=4)] | None] | None = None


class GenerationOptions(BaseModel):
    """How the video is made."""

    model_config = ConfigDict(extra="forbid")

    sync_mode: Literal["bounce", "loop", "cut_off", "silence", "remap"] | None = None
    active_speaker_detection: ActiveSpeaker | None = None
    model_mode: Literal["lips"] | None = None
    occlusion_detection_enabled: Literal[False] | None = None


class SegmentSound(_Camel):
    """The sound of a segment, or a part of it."""

    ref_id: str
    start_time: float | None = Field(default=None, ge=0)
    end_time: float | None = Field(default=None, ge=0)


class GenerationSegment(_Camel):
    """A sound from one second of the video to another."""

    start_time: float = Field(ge=0)
    end_time: float = Field(ge=0)
    audio_input: SegmentSound


class GenerationRequest(_Camel):
    """A video whose mouth is to move to a sound. `model` may be any name: the server has one."""

    model: Annotated[str, StringConstraints(max_length=100)]
    input: list[GenerationInput] = Field(min_length=1, max_length=50)
    options: GenerationOptions | None = None
    segments: list[GenerationSegment] | None = Field(default=None, min_length=1)
    webhook_url: str | None = None
    output_file_name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,110}$")] | None = None


class Generation(_Camel):
    """A job by sync.so's words."""

    id: str
    status: str
    created_at: str
    model: str
    input: list[dict[str, Any]]
    options: dict[str, Any] | None
    output_url: str | None
    output_duration: float | None
    error: str | None
    error_code: str | None = Field(serialization_alias="error_code")


def job_request_of(asked: GenerationRequest) -> JobRequest:
    """The same as a job's request. Raises ApiProblem."""
    videos = [one for one in asked.input if one.type == "video"]
    sounds = [one for one in asked.input if one.type == "audio"]
    if len(videos) != 1 or not sounds or (asked.segments is None and len(sounds) != 1):
        raise invalid("give one video, and one sound or segments that name theirs by refId", "input")
    given = asked.options or GenerationOptions()
    options: dict[str, Any] = {} if given.sync_mode is None else {"extend": given.sync_mode}
    if given.active_speaker_detection is not None:
        options["speaker"] = _speaker(given.active_speaker_detection)
    inputs = [videos[0]]
    if asked.segments is None:
        inputs.append(sounds[0])
    else:
        options["segments"] = [_segment(one, {s.ref_id: s for s in sounds if s.ref_id}) for one in asked.segments]
    shown = given.model_dump_json(exclude_none=True)
    content: dict[str, Any] = {
        "input": [one.model_dump(exclude={"ref_id"}, exclude_none=True) for one in inputs],
        "options": options,
        "metadata": {_MODEL: asked.model} | ({_OPTIONS: shown} if len(shown) <= 500 else {}),
    }
    if asked.webhook_url is not None:
        content["webhook_url"] = asked.webhook_url
    if asked.output_file_name is not None:
        content["output_file_name"] = f"{asked.output_file_name}.mp4"
    try:
        return JobRequest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise invalid(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}", "body") from error


def _speaker(asked: ActiveSpeaker) -> str:
    """The face as a job's `speaker` names it: the box, or the point, in the video's first frame."""
    place = "options.active_speaker_detection"
    if asked.bounding_boxes is not None:
        first = next(iter(asked.bounding_boxes), None)
        if first is None:
            raise invalid("bounding_boxes has no box of frame 0, in which the face is looked for", place)
        left, top, right, bottom = first
        return f"box={left},{top},{right - left},{bottom - top}@0"
    if asked.coordinates is not None:
        if asked.frame_number:
            raise invalid(f"frame_number is {asked.frame_number}; the face is looked for in frame 0", place)
        x, y = asked.coordinates
        return f"box={x - 1},{y - 1},2,2@0"
    return "active" if asked.auto_detect else "largest"


def _segment(asked: GenerationSegment, sounds: Mapping[str, GenerationInput]) -> dict[str, Any]:
    sound, cut = sounds.get(asked.audio_input.ref_id), asked.audio_input
    if sound is None:
        raise invalid(f"no sound has the refId {cut.ref_id!r}", "segments")
    if sound.asset_id is None:
        raise invalid("the sounds of segments are uploaded ones: POST /v1/assets, then assetId", "segments")
    begin = cut.start_time or 0.0
    if cut.end_time is not None and cut.end_time - begin < asked.end_time - asked.start_time - 1e-3:
        raise invalid("audioInput ends before its segment; give an endTime as late, or a shorter segment", "segments")
    return {"start": asked.start_time, "end": asked.end_time, "audio": sound.asset_id, "audio_offset": -begin}


def generation_of(job: Job, output: Callable[[str], str]) -> Generation:
    """A job by those words. output : the whole address of a job's output."""
    shown = job.metadata.get(_OPTIONS)
    return Generation.model_validate(
        {
            "id": job.id,
            "status": job.status,
            "createdAt": job.created_at,
            "model": job.metadata.get(_MODEL, "latentsync"),
            "input": [
                {to_camel(k): v for k, v in one.model_dump(exclude_none=True).items()}  # assetId, and the rest
                for one in job.input
            ],
            "options": GenerationOptions.model_validate_json(shown).model_dump(exclude_none=True) if shown else None,
            "outputUrl": None if job.output_url is None else output(job.id),
            "outputDuration": job.output_duration,
            "error": None if job.error is None else job.error.message,
            "errorCode": None if job.error is None else job.error.code,
        }
    )
