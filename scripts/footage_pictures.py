"""The pictures of docs/footage.md, from what `make demo` made: python -m scripts.footage_pictures DEMO."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from examples.demo import SEED
from examples.synthetic_clip import write_clip, write_wav
from examples.tiny.clips import render_truth, tiny_clip
from examples.tiny.strip import strip
from examples.tiny.voice import speech
from lsx import FootageOptions, LipSync
from lsx.core.footage import Silence
from lsx.media.comparison import LAYOUTS
from lsx.media.video_reader import VideoReader
from lsx.runtime.timeline import Timeline

FOLDER = Path(__file__).parents[1] / "docs" / "images"
_SIZE = 96
_STEPS = 10


def _numbered(frame: NDArray[Any], number: int) -> NDArray[np.uint8]:
    picture: Any = cv2.resize(frame, (_SIZE, _SIZE), interpolation=cv2.INTER_AREA)
    cv2.rectangle(picture, (0, 0), (24, 18), (255, 255, 255), -1)
    cv2.putText(picture, str(number), (3, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 46, 60), 1, cv2.LINE_AA)
    return np.asarray(picture, np.uint8)


def _rows(rows: Mapping[str, list[NDArray[np.uint8]]]) -> NDArray[Any]:
    pictures = tuple(np.stack(row) for row in rows.values())
    return strip(pictures, columns=len(pictures[0]), size=_SIZE, names=tuple(rows))


def extend() -> NDArray[Any]:
    """Which of six frames is where in a result of ten."""
    frames = tiny_clip(SEED, 36).frames[::6]
    rows = {}
    for way in ("bounce", "loop", "hold", "remap"):
        plan = Timeline.of(FootageOptions.model_validate({"extend": way}), len(frames), 10 * 640)
        rows[way] = [_numbered(frames[i], i) for i in plan.source().tolist()]
    return _rows(rows)


def silence(lipsync: LipSync) -> NDArray[Any]:
    """A sound that stops after 1 s, over a face that goes on talking."""
    clip = tiny_clip(SEED + 1, 48)
    samples = np.concatenate([speech(1.0, SEED + 2), np.zeros(23 * 640, np.int16)])
    chosen = range(4, 48, 5)
    rows = {"video": [clip.frames[i] for i in chosen]}
    ways: tuple[Silence, ...] = ("sync", "keep", "close")
    for way in ways:
        with lipsync.stream(list(clip.frames), samples, steps=_STEPS, silence=way) as stream:
            made = list(stream)
        rows[way] = [made[i] for i in chosen]
    rows["truth"] = [render_truth(clip, samples, 48).frames[i] for i in chosen]
    return _rows(rows)


def compare(lipsync: LipSync) -> NDArray[Any]:
    """One frame in each layout."""
    clip = tiny_clip(SEED, 16)
    with lipsync.stream(list(clip.frames), speech(16 / 25, SEED + 1), steps=_STEPS) as stream:
        made = list(stream)[8]
    pictures = [LAYOUTS[name].draw(clip.frames[8], made, 25) for name in ("side", "wipe", "difference", "stack")]
    small = [cv2.resize(p, (p.shape[1] // 2, p.shape[0] // 2), interpolation=cv2.INTER_AREA) for p in pictures]
    height = max(picture.shape[0] for picture in small)
    white = [
        cv2.copyMakeBorder(p, 0, height - p.shape[0], 0, 12, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for p in small
    ]
    return np.concatenate([np.asarray(picture) for picture in white], axis=1)


def dialogue(lipsync: LipSync) -> NDArray[Any]:
    """Two people beside each other: first the left one says something else, then the right one; between, neither."""
    left, right = tiny_clip(SEED, 48).frames, tiny_clip(SEED + 4, 48).frames
    both = [np.concatenate(pair, axis=1) for pair in zip(left, right, strict=True)]
    chosen = (2, 7, 12, 17, 23, 29, 34, 39, 44)
    with tempfile.TemporaryDirectory() as folder:
        video = write_clip(Path(folder) / "two.mp4", iter(both), crf=1)
        sound = write_wav(Path(folder) / "said.wav", speech(2.0, SEED + 2))
        segments = [
            {"start": 0, "end": 0.8, "audio": sound, "speaker": "left"},
            {"start": 1.08, "end": 1.92, "audio": sound, "speaker": "right"},
        ]
        made = Path(folder) / "made.mkv"
        lipsync.run(video, None, made, steps=_STEPS, segments=segments, crf=1)
        rows = {name: list(VideoReader(path).frames()) for name, path in (("video", video), ("segments", made))}
    halves = {"left": slice(0, 256), "right": slice(256, 512)}
    return _rows(
        {
            f"{half}{', dubbed' * (name == 'segments')}": [frames[i][:, part] for i in chosen]
            for half, part in halves.items()
            for name, frames in rows.items()
        }
    )


def knobs(lipsync: LipSync) -> NDArray[Any]:
    """The mouth of one frame, pasted in several ways."""
    clip, samples = tiny_clip(SEED, 16), speech(16 / 25, SEED + 1)
    ways: dict[str, dict[str, Any]] = {
        "plain": {},
        "--sharpen 2": {"sharpen": 2},
        "--colour-match": {"colour_match": True},
        "--mask hard": {"mask": "hard"},
    }
    column = []
    for name, options in ways.items():
        with lipsync.stream(list(clip.frames), samples, steps=_STEPS, **options) as stream:
            frame = list(stream)[8]
        shown: Any = cv2.resize(frame[96:224, 64:192], (256, 256), interpolation=cv2.INTER_NEAREST)
        shown = cv2.copyMakeBorder(shown, 0, 24, 0, 8, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        cv2.putText(shown, name, (4, 272), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 46, 60), 1, cv2.LINE_AA)
        column.append(np.asarray(shown))
    return np.concatenate(column, axis=1)


def sheet(bundle: Path) -> NDArray[Any]:
    """Who is in a video of two people with a cut, as `lsx faces --sheet` draws it."""
    left, right = tiny_clip(SEED, 30).frames, tiny_clip(SEED + 4, 30).frames
    both = [np.concatenate(pair, axis=1) for pair in zip(left, right, strict=True)]
    alone = [np.concatenate([frame, np.full_like(frame, 200)], axis=1) for frame in right]
    with tempfile.TemporaryDirectory() as folder:
        video = write_clip(Path(folder) / "two.mp4", iter([*both, *alone]), crf=1)
        output = Path(folder) / "sheet.png"
        command = [sys.executable, "-m", "lsx", "faces", str(video), "-o", f"{folder}/t.json", "--sheet", str(output)]
        subprocess.run([*command, "--bundle", str(bundle)], check=True)  # noqa: S603
        return np.asarray(cv2.cvtColor(np.asarray(cv2.imread(str(output))), cv2.COLOR_BGR2RGB))


def main() -> None:
    """Draw them all."""
    bundle = Path(sys.argv[1]) / "teacher"
    pictures = {"extend": extend(), "faces": sheet(bundle)}
    with LipSync.open(bundle) as lipsync:
        pictures |= {"silence": silence(lipsync), "compare": compare(lipsync)}
        pictures |= {"dialogue": dialogue(lipsync), "knobs": knobs(lipsync)}
    for name, picture in pictures.items():
        path = FOLDER / f"footage-{name}.png"
        cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main()
