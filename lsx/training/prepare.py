"""Videos to a data set: each video in any process, then all segments into shards, the same bytes whoever worked.

What is done of a video is kept in a hidden folder beside the output until the data set is there, so that a run that was
killed goes on; and a data set gives its own segments to the run that adds videos to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lsx.calibration.clips import find_files
from lsx.core.atomic_files import check_replaceable, sha256_of
from lsx.errors import MediaError, OutputError, UsageError
from lsx.training.data_index import duration
from lsx.training.prepare_options import PrepareOptions
from lsx.training.shards import DATA_FILE, SHARDS, DataSet, DroppedRow, SegmentRow, ShardWriter
from lsx.training.source import DroppedPiece, SourceResult, SourceTask, prepare_source
from lsx.training.tar_shard import encoded_segment
from lsx.training.workers import DIED, in_processes, on_ray

__all__ = ["PrepareOptions", "PrepareReport", "Progress", "prepare", "reason_kind", "work_folder"]

_SAME = "the same file as "

Progress = Callable[[str, float], None]
"""Called with what is being done, and the share of it that is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A video by its name, with the hash of its content; `unreadable` says why it has none."""

    name: str
    file: Path
    sha256: str
    unreadable: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareReport:
    """What a preparation made."""

    output: Path
    videos: int
    segments: int
    seconds: float
    """Seconds of video in the segments."""
    shards: int
    dropped: Mapping[str, int]
    """Pieces by the kind of their reason, most first."""
    sync_checked: bool
    """Whether SyncNet corrected the sound."""
    unchanged: bool
    """Whether the data set was there already, as asked for: nothing was written."""

    def lines(self) -> list[str]:
        """What was done, in words; first what was not checked."""
        first = (
            "sound offsets were corrected by SyncNet"
            if self.sync_checked
            else "sound offsets were NOT checked: SyncNet was not given (--syncnet FOLDER)"
        )
        state = "is as asked for already; nothing was written" if self.unchanged else "written"
        kept = f"{self.segments} segments, {duration(self.seconds)}, of {self.videos} videos, in {self.shards} shards"
        return [first, f"{self.output}: {state}: {kept}", *(f"dropped {n}: {kind}" for kind, n in self.dropped.items())]


def work_folder(output: Path) -> Path:
    """The folder in which an unfinished preparation keeps what it has."""
    return output.absolute().parent / f".{output.name}-work"


def reason_kind(reason: str) -> str:
    """A reason without its numbers, by which reasons are counted."""
    return re.sub(r"-?\d+(\.\d+)?", "…", reason)


def prepare(
    videos: Sequence[Path], output: Path, options: PrepareOptions, progress: Progress | None = None
) -> PrepareReport:
    """Make the data set `output` of `videos`, files or folders, in place of an older one there.

    The same videos and options give the same bytes, however many processes or machines work; asked for again, nothing
    is written. An interrupted run leaves what it has in `work_folder(output)`, and the next one goes on from there.

    Raises UsageError, OutputError, BundleError, CheckpointError, EngineError, and MediaError where no segment is left.
    """
    report = progress or (lambda _what, _share: None)
    check_replaceable(output, "data set", lambda folder: (folder / DATA_FILE).is_file())
    recipe = json.loads(json.dumps(options.recipe()))  # as it is read again from data.json
    sources = _sources(videos, report)
    asked = [recipe, options.samples_per_shard, sorted((s.name, s.sha256) for s in sources)]
    prepared = {"recipe": recipe, "request": _digest(asked)}
    older = _older(output)
    if older is not None and older.info.prepared == prepared:
        return _report(older, len(sources), options, unchanged=True)
    work = work_folder(output)
    folder = work / _digest(recipe)[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        results = _worked(sources, folder, options, _results_of(older, recipe), report)
        if any(result.rows for result in results.values()):
            report("writing shards", 0.0)
            _write(output, sources, results, options, prepared)
        shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # where nothing was done, nothing is kept
            folder.rmdir()
            work.rmdir()
    if not any(result.rows for result in results.values()):
        raise MediaError(_nothing(results, len(sources)))
    return _report(DataSet.open(output), len(sources), options, unchanged=False)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _sources(videos: Sequence[Path], report: Progress) -> list[_Source]:
    """Every file with its hash, sorted by name."""
    found = find_files(videos)

    def hashed(item: tuple[str, Path]) -> _Source:
        name, file = item
        try:
            return _Source(name=name, file=file.absolute(), sha256=sha256_of(file))
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
            return _Source(name=name, file=file, sha256="", unreadable=reason)

    sources = []
    with ThreadPoolExecutor(_cores()) as pool:
        for number, source in enumerate(pool.map(hashed, found), 1):
            sources.append(source)
            report("hashing videos", number / len(found))
    return sources


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _older(output: Path) -> DataSet | None:
    """The data set that is there, where it is whole."""
    try:
        return DataSet.open(output)
    except (UsageError, MediaError):
        return None


def _results_of(data: DataSet | None, recipe: Mapping[str, Any]) -> dict[str, SourceResult]:
    """What a finished data set of this recipe holds of each video, by the video's SHA-256."""
    if data is None or data.info.prepared is None or data.info.prepared.get("recipe") != recipe:
        return {}
    rows: dict[str, list[SegmentRow]] = {}
    dropped: dict[str, list[DroppedPiece]] = {}
    for row in data.rows:
        rows.setdefault(row.sha256, []).append(row)
    for piece in data.dropped():
        if piece.sha256 and piece.reason != DIED and not piece.reason.startswith(_SAME):
            one = DroppedPiece(start=piece.start, stop=piece.stop, reason=piece.reason)
            dropped.setdefault(piece.sha256, []).append(one)
    return {
        sha256: SourceResult(
            folder=data.folder / SHARDS, rows=tuple(rows.get(sha256, ())), dropped=tuple(dropped.get(sha256, ()))
        )
        for sha256 in {*rows, *dropped}
    }


def _worked(
    sources: Sequence[_Source],
    folder: Path,
    options: PrepareOptions,
    known: Mapping[str, SourceResult],
    report: Progress,
) -> dict[str, SourceResult]:
    """The results of all videos, by SHA-256: those that are known, those in `folder`, and the others made there."""
    results: dict[str, SourceResult] = {}
    tasks: dict[str, SourceTask] = {}
    for source in sources:
        if source.unreadable is None:
            there = known.get(source.sha256) or SourceResult.of(folder, source.sha256)
            if there is not None:
                results[source.sha256] = there
            else:
                task = SourceTask(
                    name=source.name, file=source.file, sha256=source.sha256, work=folder, options=options
                )
                tasks.setdefault(source.sha256, task)
    for number, (task, reason) in enumerate(_each(list(tasks.values()), options, report), 1):
        found = SourceResult.of(folder, task.sha256) if reason is None else None
        if found is None:
            piece = DroppedPiece(start=0.0, stop=0.0, reason=reason or "its result is not there")
            found = SourceResult(folder=folder, rows=(), dropped=(piece,))
        results[task.sha256] = found
        report(f"{number} of {len(tasks)} videos done", number / len(tasks))
    return results


def _each(
    tasks: Sequence[SourceTask], options: PrepareOptions, report: Progress
) -> Iterator[tuple[SourceTask, str | None]]:
    """Every task as it is done, with None, or why it could not be."""
    processes = options.processes or _cores()
    if options.ray is not None:
        yield from on_ray(prepare_source, tasks, options.ray)
    elif processes > 1:
        yield from in_processes(prepare_source, tasks, min(processes, len(tasks)))
    else:
        for task in tasks:
            prepare_source(task, lambda share: report(f"looking at {task.name}", share))  # noqa: B023
            yield task, None


def _nothing(results: Mapping[str, SourceResult], videos: int) -> str:
    kinds = Counter(reason_kind(piece.reason) for result in results.values() for piece in result.dropped)
    often = "; ".join(f"{kind} ({count})" for kind, count in kinds.most_common(3))
    return (
        f"no segment was kept of {videos} videos: {often or 'none can be read'}. Give clips with one large, "
        "steady face that speaks, or lower --min-face or --min-sharpness"
    )


def _write(
    output: Path,
    sources: Sequence[_Source],
    results: Mapping[str, SourceResult],
    options: PrepareOptions,
    prepared: Mapping[str, Any],
) -> None:
    """All segments into shards, in the order of their keys, and all reasons, by source and time."""
    dropped: list[DroppedRow] = []
    segments: dict[str, tuple[Path, SegmentRow, str]] = {}
    named: dict[str, str] = {}
    for source in sources:
        first = named.setdefault(source.sha256 or source.name, source.name)
        whole = source.unreadable or (None if first == source.name else f"{_SAME}{first}")
        if whole is not None:
            dropped.append(DroppedRow(source=source.name, sha256=source.sha256, start=0.0, stop=0.0, reason=whole))
            continue
        result = results[source.sha256]
        segments |= {row.key: (result.folder / row.shard, row, source.name) for row in result.rows}
        dropped += [
            DroppedRow(source=source.name, sha256=source.sha256, start=p.start, stop=p.stop, reason=p.reason)
            for p in result.dropped
        ]
    with ShardWriter(
        output,
        resolution=options.resolution,
        quality=options.quality,
        samples_per_shard=options.samples_per_shard,
        prepared=prepared,
    ) as writer:
        for _, (shard, row, name) in sorted(segments.items()):
            segment = encoded_segment(shard, row)
            writer.add_encoded(replace(segment, meta=replace(segment.meta, source=name)))
        writer.drop(dropped)


def _report(data: DataSet, videos: int, options: PrepareOptions, *, unchanged: bool) -> PrepareReport:
    kinds = Counter(reason_kind(row.reason) for row in data.dropped())
    return PrepareReport(
        output=data.folder,
        videos=videos,
        segments=len(data.rows),
        seconds=sum(row.seconds for row in data.rows),
        shards=len(data.info.shards),
        dropped=dict(kinds.most_common()),
        sync_checked=options.syncnet is not None,
        unchanged=unchanged,
    )
