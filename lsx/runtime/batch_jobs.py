"""A batch's jobs: read from CSV or JSON lines, checked whole before any work, and known again after a kill."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lsx.core.footage import FootageOptions
from lsx.core.keywords import options_of, split_keywords
from lsx.core.sampling import SamplingOptions
from lsx.errors import UsageError
from lsx.media.encoding import EncodeOptions
from lsx.media.targets import STANDARD_OUTPUT, container_of

__all__ = ["Job", "read_jobs"]

_PATHS = ("video", "audio", "output")
_WHOLE = ("steps", "seed", "crf", "overlap")
_NUMBERS = ("guidance", "remap_limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of a batch."""

    line: int
    """Line of the file, from 1 on."""
    video: Path
    audio: Path | None
    """None where segments have the sounds."""
    name: str
    """The result's file name."""
    sampling: SamplingOptions
    footage: FootageOptions
    encode: EncodeOptions

    @property
    def digest(self) -> str:
        """What the job is, its inputs' sizes and times included: the same where nothing has changed."""
        sounds = [segment.audio for segment in self.footage.segments or ()]
        paths = (self.video, self.audio, self.footage.faces, *sounds)
        inputs = [_state(path) for path in paths if path is not None]
        options = [asdict(self.sampling), self.footage.model_dump(mode="json"), asdict(self.encode)]
        return hashlib.sha256(json.dumps([self.name, inputs, options], default=str).encode()).hexdigest()

    @property
    def order(self) -> tuple[Any, ...]:
        """Jobs that are near each other in this share a schedule, and then a video."""
        chosen = self.sampling
        return chosen.sampler, chosen.steps, chosen.guidance_batch, chosen.cache_interval or 0, str(self.video)


def _state(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except OSError:
        return str(path), -1, -1
    return str(path), found.st_size, found.st_mtime_ns


def read_jobs(path: Path, sampling: SamplingOptions | None = None) -> list[Job]:
    """The jobs in a .csv with a header, or a .jsonl with an object a line. Paths are relative to the file's folder.

    Each names `video` and `audio` (or `segments`, which has the sounds), and may name `output` (a file name; default
    the video's, numbered) and every option of SamplingOptions, FootageOptions and EncodeOptions; what is empty is the
    default; sampling : that of its options, a bundle's own. Raises UsageError with the line.
    """
    try:
        rows = list(_rows(path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not rows:
        raise UsageError(f"{path}: no job in it")
    jobs = [_job(path, line, row, sampling) for line, row in rows]
    twice = [name for name, count in Counter(job.name for job in jobs).items() if count > 1]
    if twice:
        lines = ", ".join(str(job.line) for job in jobs if job.name == twice[0])
        raise UsageError(f"{path}: {twice[0]} is the output of several jobs (lines {lines}); give each another")
    return jobs


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line and columns of every job."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".csv":
            reader = csv.DictReader(file)
            for row in reader:
                if None in row:
                    raise UsageError(f"{path}, line {reader.line_num}: more columns than the header has")
                yield reader.line_num, row
        elif path.suffix in (".jsonl", ".ndjson"):
            for number, text in enumerate(file, 1):
                if text.strip():
                    yield number, _object(path, number, text)
        else:
            raise UsageError(f"{path}: give a .csv or a .jsonl file")


def _object(path: Path, number: int, text: str) -> Mapping[str, Any]:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path}, line {number}: no JSON: {error}") from error
    if not isinstance(row, dict):
        raise UsageError(f"{path}, line {number}: {type(row).__name__}; give an object")
    return row


def _job(path: Path, line: int, row: Mapping[str, Any], sampling: SamplingOptions | None) -> Job:
    given = {name.strip(): value for name, value in row.items() if value is not None and value != ""}
    try:
        needed = ("video",) if "segments" in given and "audio" not in given else ("video", "audio")
        for name in needed:
            if not isinstance(given.get(name), str):
                raise UsageError(f"no {name}; give a path")
        if isinstance(given.get("segments"), str):
            given["segments"] = path.parent / given["segments"]
        options = {name: _value(name, value) for name, value in given.items() if name not in _PATHS}
        kinds = split_keywords(options, SamplingOptions, FootageOptions, EncodeOptions)
        video = path.parent / given["video"]
        footage = options_of(FootageOptions, None, kinds[1], "footage")
        if footage.faces is not None:
            footage = options_of(FootageOptions, footage, {"faces": path.parent / footage.faces}, "footage")
        return Job(
            line=line,
            video=video,
            audio=path.parent / given["audio"] if "audio" in given else None,
            name=_name(given.get("output", f"{line:05}-{video.stem}.mp4")),
            sampling=options_of(SamplingOptions, None, kinds[0], "sampling", sampling),
            footage=footage,
            encode=options_of(EncodeOptions, None, kinds[2], "encode"),
        )
    except UsageError as error:
        raise UsageError(f"{path}, line {line}: {error}") from error


def _value(name: str, value: object) -> object:
    """What a cell of CSV means."""
    if not isinstance(value, str):
        return value
    try:
        if name in _WHOLE or (name == "cache_interval" and value != "off"):
            return int(value)
        return float(value) if name in _NUMBERS else value
    except ValueError:
        return value  # which the options refuse in their own words


def _name(output: object) -> str:
    """A file name in the batch's folder. Raises UsageError."""
    if not isinstance(output, str) or Path(output).name != output or Path(output) == STANDARD_OUTPUT:
        raise UsageError(f"output is {output!r}; give the name of a file in the batch's folder")
    container_of(Path(output))
    return output
