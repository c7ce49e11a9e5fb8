"""Damaged media by the thousand: seeded faults in whole files of sixteen containers, each read to its end in a child.

`python -m tests.corpus --count 1000` (make corpus) tries them all; the suite takes 120. A file must either be decoded
or be refused as MediaError on one line: no other exception, no crash, no hang over 20 s, under 2 GB.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

KINDS: tuple[tuple[str, str, str | None], ...] = (
    # suffix, video encoder (None: sound alone), audio encoder
    ("mp4", "libx264", "aac"),
    ("mov", "mpeg4", "pcm_s16le"),
    ("mkv", "libx264", "flac"),
    ("mkv", "ffv1", "pcm_s16le"),
    ("webm", "libvpx-vp9", "libopus"),
    ("avi", "mjpeg", "pcm_s16le"),
    ("avi", "mpeg4", "mp2"),
    ("ts", "libx264", "aac"),
    ("ts", "mpeg2video", "mp2"),
    ("flv", "flv", "aac"),
    ("mp4", "libx265", "aac"),
    ("mov", "prores_ks", "aac"),
    ("wav", "", "pcm_s16le"),
    ("flac", "", "flac"),
    ("ogg", "", "libopus"),
    ("m4a", "", "aac"),
)
SECONDS = 20  # a file may take
MEMORY = 2 * 10**9


def make_sound_file(folder: Path, number: int) -> Path:
    """A whole file of kind `number`: 24 frames of 96 x 64, about a second of sound."""
    suffix, video, audio = KINDS[number]
    path = folder / f"whole{number}.{suffix}"
    with av.open(str(path), "w") as out:
        picture: Any = None
        sound: Any = None
        if video:
            picture = out.add_stream(video, rate=25)
            picture.width, picture.height = 96, 64
            formats = {"prores_ks": "yuv422p10le", "mjpeg": "yuvj420p"}
            picture.pix_fmt = formats.get(video, "yuv420p")
            if video in ("mpeg4", "mpeg2video", "libx264"):
                picture.codec_context.gop_size = 8
            if video == "libx265":
                picture.options = {"x265-params": "log-level=none"}
        if audio:
            sound = out.add_stream(audio, rate=48000, layout="mono")
        y, x = np.mgrid[0:64, 0:96]
        for index in range(24 if video else 0):
            rgb = np.stack([(x * 2 + 5 * index) % 256, (y * 3 + index) % 256, (x + y) % 256], -1).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=picture.pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(picture.encode(frame))
        if picture is not None:
            out.mux(picture.encode(None))
        if sound is not None:
            tone = (8000 * np.sin(np.arange(46080) / 20)).astype(np.int16)
            size = 960
            fifo = av.AudioResampler(format=sound.codec_context.format or "s16", layout="mono", rate=48000)
            for start in range(0, len(tone), size):
                given = av.AudioFrame.from_ndarray(tone[None, start : start + size], format="s16", layout="mono")
                given.sample_rate, given.pts, given.time_base = 48000, start, Fraction(1, 48000)
                for part in fifo.resample(given):
                    out.mux(sound.encode(part))
            out.mux(sound.encode(None))
    return path


def damaged(content: bytes, seed: int) -> bytes:
    """`content` with one of six faults, drawn from the seed."""
    chance, data = random.Random(seed), bytearray(content)
    size = len(data)

    def piece() -> tuple[int, int]:
        start = chance.randrange(size)
        return start, min(start + chance.choice([4, 64, 1024, 8192]), size)

    fault = seed // len(KINDS) % 6
    if fault == 0:
        for _ in range(chance.choice([1, 10, 100, 1000])):
            data[chance.randrange(size)] ^= 1 << chance.randrange(8)
    elif fault == 1:
        del data[chance.randrange(1, size) :]
    elif fault == 2:
        start, stop = piece()
        del data[start:stop]
    elif fault == 3:
        (a, b), (c, d) = sorted([piece(), piece()])
        if b <= c:
            data[a:d] = data[c:d] + data[b:c] + data[a:b]
    elif fault == 4:
        length = chance.choice([8, 64, 512])
        data[:length] = bytes(min(length, size))
    else:  # lengths that lie: big numbers over four bytes, near the head or the tail
        for _ in range(chance.choice([1, 5])):
            near = min(4096, size - 4)
            at = chance.randrange(near) if chance.random() < 0.5 else size - 4 - chance.randrange(near)
            data[at : at + 4] = chance.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00"])
    return bytes(data)


def read(path: Path) -> str:
    """`decoded`, or the refusal. Anything but MediaError goes through."""
    from lsx.errors import MediaError
    from lsx.media.audio_reader import SoundReader
    from lsx.media.video_reader import VideoReader

    said = []
    for kind in ("video", "sound"):
        try:
            if kind == "video":
                reader = VideoReader(path)
                for _ in reader.frames():
                    pass
                for _ in reader.ping_pong(reader.count + 8):
                    pass
            else:
                sound = SoundReader(path)
                sound.samples()
                for _ in sound.frames("fltp", 48000, 1024):
                    pass
            said.append("decoded")
        except MediaError as error:
            if "\n" in str(error) or str(path) not in str(error):
                raise AssertionError(f"not one line that names the file: {error}") from error
            said.append("refused")
    return "decoded" if "decoded" in said else "refused"


def _peak() -> int:
    """Most bytes that this process has held since it began; getrusage counts those of who started it, too."""
    held = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert held is not None
    return int(held[1]) * 1024


def _child() -> None:
    """Read the files named on standard input; a line of JSON before and after each."""
    import signal

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        path = Path(line.strip())
        print(json.dumps({"begin": str(path)}), flush=True)
        signal.alarm(SECONDS)  # kills the process: also where a library hangs
        try:
            result = read(path)
        except BaseException as error:
            result = f"{type(error).__name__}: {error}"
        signal.alarm(0)
        peak = _peak()
        if peak > MEMORY:
            result = f"took {peak / 1e9:.1f} GB"
        print(json.dumps({"end": str(path), "result": result}), flush=True)
        if peak > MEMORY:
            return


def try_files(paths: list[Path]) -> dict[str, str]:
    """The result of each file by name; a child that dies is its file's result, and another goes on."""
    results: dict[str, str] = {}
    while left := [path for path in paths if path.name not in results]:
        done = subprocess.run(
            [sys.executable, "-m", "tests.corpus", "--child"],
            input="".join(f"{path}\n" for path in left),
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        results |= {Path(line["end"]).name: line["result"] for line in lines if "end" in line}
        begun = [Path(line["begin"]).name for line in lines if "begin" in line]
        if begun and begun[-1] not in results:
            results[begun[-1]] = f"the process ended with {done.returncode}"
        elif not begun:
            raise RuntimeError(f"the child does not start: {done.stderr}")
    return results


def try_corpus(folder: Path, seeds: range) -> dict[str, str]:
    """One damaged file for each seed, the kinds in turn."""
    wholes = [make_sound_file(folder, number).read_bytes() for number in range(len(KINDS))]
    paths = []
    for seed in seeds:
        suffix, video, audio = KINDS[seed % len(KINDS)]
        path = folder / f"{seed:05}-{video or 'sound'}-{audio}.{suffix}"
        path.write_bytes(damaged(wholes[seed % len(KINDS)], seed))
        paths.append(path)
    return try_files(paths)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--child", action="store_true")
    given = parser.parse_args()
    if given.child:
        _child()
        return 0
    with tempfile.TemporaryDirectory() as folder:
        results = try_corpus(Path(folder), range(given.first, given.first + given.count))
    counts = Counter(result if result in ("decoded", "refused") else "failed" for result in results.values())
    for name, result in sorted(results.items()):
        if result not in ("decoded", "refused"):
            print(f"{name}: {result}")
    print(f"{len(results)} files of {len(KINDS)} kinds: {dict(counts)}")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
