"""Calibration from end to end: survey, plan, record, contact sheet, manifest. Resumable, and written whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lsx
from lsx.bundle.bundle import Bundle
from lsx.bundle.sampling import sampling_of
from lsx.calibration.clips import Clip, ClipOptions, Segment, find_files, survey
from lsx.calibration.recorder import CaptureSpec, Recorded, Recorder, kept_length, plan_captures
from lsx.calibration.store import MANIFEST, Calibration, CalibrationManifest, ClipEntry, FeedEntry, SegmentEntry
from lsx.core.atomic_files import check_replaceable, put_in_place, sha256_of, write_whole
from lsx.core.graph_names import MODEL_GRAPHS
from lsx.core.sampling import SamplingOptions
from lsx.engines.loading import opened_engines
from lsx.engines.registry import EngineOptions
from lsx.errors import CalibrationError, OutputError, UsageError
from lsx.faces.alignment import Aligner, crop_face
from lsx.faces.contact_sheet import captioned, png_of, sheet_of
from lsx.faces.detector import FaceDetector, opened_detector
from lsx.media.video_reader import FPS, VideoReader

__all__ = ["CONTACT_SHEET", "CalibrationOptions", "CalibrationPlan", "calibrate", "plan_calibration"]

CONTACT_SHEET = "contact_sheet.png"
_COLUMNS, _MOST_TILES = 8, 400

Progress = Callable[[str, float], None]
"""Called with what is being done, and the share of it that is done."""


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationPlan:
    """What was found, and what would be recorded."""

    clips: list[Clip]
    files: list[Path]
    captures: list[CaptureSpec]

    @property
    def kept_seconds(self) -> float:
        """Seconds of video in segments that were kept."""
        return sum(kept_length(segment) for clip in self.clips for segment in clip.kept) / FPS


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationOptions:
    """What is recorded, and of which segments. Raises UsageError."""

    samples: int = 32
    """U-Net forwards whose inputs are recorded."""
    clips: ClipOptions = field(default_factory=ClipOptions)
    checkpoint_dir: Path | None = None
    """The checkpoint's folder, default where the export found it."""

    def __post_init__(self) -> None:
        if isinstance(self.samples, bool) or not 1 <= self.samples <= 4096:
            raise UsageError(f"samples is {self.samples}; give a whole number in 1..4096 (32 is usual)")


def plan_calibration(
    bundle: Bundle,
    paths: Sequence[Path],
    settings: CalibrationOptions | None = None,
    *,
    options: SamplingOptions | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> CalibrationPlan:
    """Look through all files, with the bundle's face detector, and plan the chunks. Writes nothing but to `cache`.

    The plan has no captures where nothing was kept. Raises UsageError.
    """
    settings, options = settings or CalibrationOptions(), sampling_of(bundle, options, {}, "options")
    report = progress or (lambda _label, _share: None)
    named_files = find_files(paths)
    clips = []
    with opened_detector(bundle) as detector:
        for number, (name, file) in enumerate(named_files, 1):
            label = f"looking at {name} ({number} of {len(named_files)})"
            report(label, 0.0)
            clips.append(_surveyed(name, file, detector, settings.clips, cache, lambda share: report(label, share)))  # noqa: B023
    any_kept = any(clip.kept for clip in clips)
    captures = plan_captures(clips, settings.samples, options, bundle.model.frames) if any_kept else []
    return CalibrationPlan(clips, [file for _, file in named_files], captures)


def _surveyed(
    name: str,
    file: Path,
    detector: FaceDetector,
    options: ClipOptions,
    cache: Path | None,
    progress: Callable[[float], None],
) -> Clip:
    """A file's survey, from the cache where an interrupted run left it."""
    digest = sha256_of(file)
    key = hashlib.sha256(json.dumps([name, digest, asdict(options)]).encode()).hexdigest()
    cached = None if cache is None else cache / f"{key}.json"
    if cached is not None and cached.is_file():
        return Clip.from_json(json.loads(cached.read_text(encoding="utf-8")))
    clip = survey(name, file, digest, detector, options, progress)
    if cached is not None:
        write_whole(cached, json.dumps(clip.as_json()).encode())
    return clip


def calibrate(
    bundle: Bundle,
    paths: Sequence[Path],
    output: Path,
    settings: CalibrationOptions | None = None,
    *,
    options: SamplingOptions | None = None,
    progress: Progress | None = None,
    surveyed: Callable[[CalibrationPlan], None] | None = None,
) -> Calibration:
    """Record the inputs of U-Net forwards into the folder `output`, replacing an older calibration there.

    An interrupted run leaves its finished parts in a folder beside `output`, from which the next one with the same
    arguments goes on. Two runs with one seed on one machine are identical to the byte.

    options : the loop that is recorded; its seed draws places and noise. surveyed : called with the plan before
    anything is recorded.

    Raises UsageError, CalibrationError, CheckpointError, OutputError.
    """
    settings, options = settings or CalibrationOptions(), sampling_of(bundle, options, {}, "options")
    report = progress or (lambda _label, _share: None)
    check_replaceable(output, "calibration", lambda folder: (folder / MANIFEST).is_file())
    find_files(paths)  # before a folder is made
    work = output.absolute().parent / f".{output.name}-work"
    with _disk(output):
        (work / "survey").mkdir(parents=True, exist_ok=True)
        plan = plan_calibration(bundle, paths, settings, options=options, cache=work / "survey", progress=progress)
        if surveyed is not None:
            surveyed(plan)
        if not plan.captures:
            shutil.rmtree(work, ignore_errors=True)
            raise CalibrationError(
                "no segment was kept: nothing to calibrate on. Give clips with one large, steady face, "
                "or lower --min-face"
            )
        feeds = _recorded(bundle, plan, options, settings.checkpoint_dir, work, report)
        report("writing", 1.0)
        (work / CONTACT_SHEET).write_bytes(png_of(_contact_sheet(plan)))
        manifest = _manifest(bundle, plan, settings.samples, options, feeds)
        (work / MANIFEST).write_text(manifest.text(), encoding="utf-8")
        shutil.rmtree(work / "survey")
        (work / _STATE).unlink()
        put_in_place(work, output.absolute())
    return Calibration.open(output)


_STATE = "recorded.json"


def _recorded(
    bundle: Bundle,
    plan: CalibrationPlan,
    options: SamplingOptions,
    checkpoint_dir: Path | None,
    work: Path,
    report: Progress,
) -> list[FeedEntry]:
    """Every capture's feeds, those that an interrupted run already wrote included."""
    state = _state(work / _STATE, bundle, plan, options)
    file = work / _STATE
    if not state["takes"]:
        shutil.rmtree(work / "feeds", ignore_errors=True)
    (work / "feeds").mkdir(exist_ok=True)
    missing = [capture for capture in plan.captures if str(capture.number) not in state["takes"]]
    if missing:
        report("loading the reference", 0.0)
        engine = EngineOptions(checkpoint_dir=checkpoint_dir, float32=True)
        with opened_engines(bundle, "torch", MODEL_GRAPHS, engine) as engines:
            recorder = Recorder(engines, bundle.model, options)
            for capture in missing:
                report(
                    f"denoising chunk {capture.number + 1} of {len(plan.captures)}", capture.number / len(plan.captures)
                )
                clip = plan.clips[capture.clip]
                segment = clip.kept[capture.segment]
                recorded = recorder.record(capture, plan.files[capture.clip], segment, work / "feeds")
                state["takes"][str(capture.number)] = [asdict(entry) for entry in recorded]
                write_whole(file, json.dumps(state).encode())
    write_whole(file, json.dumps(state).encode())
    return [
        _feed_entry(work, plan, capture, Recorded(**recorded))
        for capture in plan.captures
        for recorded in state["takes"][str(capture.number)]
    ]


def _state(file: Path, bundle: Bundle, plan: CalibrationPlan, options: SamplingOptions) -> dict[str, Any]:
    """What an interrupted run with the same plan has recorded; nothing for any other."""
    key = hashlib.sha256(
        json.dumps(
            [
                bundle.manifest.model.checkpoint,
                asdict(options),
                [asdict(capture) for capture in plan.captures],
                [clip.sha256 for clip in plan.clips],
            ],
            sort_keys=True,
        ).encode()
    ).hexdigest()
    state: dict[str, Any] = {"key": key, "takes": {}}  # the captures: interrupted runs wrote this name
    if file.is_file():
        saved = json.loads(file.read_text(encoding="utf-8"))
        if saved.get("key") == key:
            state = saved
    return state


def _feed_entry(work: Path, plan: CalibrationPlan, capture: CaptureSpec, made: Recorded) -> FeedEntry:
    clip = plan.clips[capture.clip]
    return FeedEntry(
        file=f"feeds/{made.file}",
        sha256=sha256_of(work / "feeds" / made.file),
        graph=made.graph,
        clip=clip.name,
        frame=clip.kept[capture.segment].start + capture.offset,
        step=made.step,
        half=made.half,  # type: ignore[arg-type]  # written by the recorder
    )


def _manifest(
    bundle: Bundle, plan: CalibrationPlan, samples: int, options: SamplingOptions, feeds: list[FeedEntry]
) -> CalibrationManifest:
    return CalibrationManifest(
        schema_version=1,
        lsx_version=lsx.__version__,
        seed=options.seed,
        calls=samples,
        steps=options.steps,
        guidance=options.guidance,
        cache_interval=options.cache_interval,
        version=bundle.model.version,
        resolution=bundle.model.resolution,
        frames=bundle.model.frames,
        checkpoint=bundle.manifest.model.checkpoint,
        clips=tuple(
            ClipEntry(
                name=clip.name,
                sha256=clip.sha256,
                seconds=clip.seconds,
                reason=clip.reason,
                segments=tuple(
                    SegmentEntry(start=s.start / FPS, stop=s.stop / FPS, face=s.face, reason=s.reason)
                    for s in clip.segments
                ),
            )
            for clip in plan.clips
        ),
        feeds=tuple(feeds),
    )


def _contact_sheet(plan: CalibrationPlan) -> NDArray[np.uint8]:
    """The aligned face in the middle of every kept segment, with the clip's name and the time."""
    tiles: list[NDArray[np.uint8]] = []
    for clip, file in zip(plan.clips, plan.files, strict=True):
        for segment in clip.kept[: max(_MOST_TILES - len(tiles), 0)]:
            tiles.append(_tile(file, segment, clip.name))
    return sheet_of(tiles, _COLUMNS)


def _tile(file: Path, segment: Segment, name: str) -> NDArray[np.uint8]:
    """The aligned face in the middle of a segment, with the clip's name and the time below it."""
    middle = kept_length(segment) // 2
    aligner = Aligner(256)
    affine = [aligner.affine(points) for points in segment.points_array()[: middle + 1]][-1]
    place = segment.start + middle
    frame = next(VideoReader(file).frames(place, place + 1))
    return captioned(crop_face(frame, affine, 256), name[-24:], f"{place / FPS:.1f} s")


@contextlib.contextmanager
def _disk(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror or error}") from error
