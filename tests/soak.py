"""Hours of footage, and kills: python -m tests.soak FOLDER --minutes 60 --kills 30 (make soak).

Long runs of the command line over one 1080p video with two faces, cuts and silences: the memory of the process must not
grow by 1 % from the first tenth on. Then a batch is killed at random moments, must leave nothing half-written, and must
be gone on with to the results of an undisturbed one. What is in FOLDER already is used again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav

SCENE = 16  # seconds: as many frames and AAC packets as fit without a rest
GROWTH = 0.01
WIDTH, HEIGHT = 1920, 1080
FOOTAGE = ("--steps", "1", "--fps", "source", "--overlap", "4", "--audio-context", "smooth")


def scene() -> Iterator[NDArray[np.uint8]]:
    """Two faces side by side, one of them alone, and both again: 16 s with two cuts."""
    both = zip(portrait_frames(400, WIDTH // 2, HEIGHT), portrait_frames(400, WIDTH // 2, HEIGHT, 40), strict=True)
    alone = portrait_frames(400, WIDTH, HEIGHT)
    for index, ((left, right), single) in enumerate(zip(both, alone, strict=True)):
        yield single if 150 <= index < 250 else np.hstack([left, right[:, ::-1]])


def voice(seconds: int) -> NDArray[np.int16]:
    """Speech with two seconds of silence in every sixteen."""
    part = speech(SCENE)
    part[6 * 16000 : 8 * 16000] = 0
    return np.resize(part, seconds * 16000)


def repeated(source: Path, output: Path, times: int) -> Path:
    """The packets of `source` over and over: an hour of video in seconds."""
    with av.open(str(output), "w") as target:
        streams: dict[int, Any] = {}
        for number in range(times):
            with av.open(str(source)) as container:
                streams = streams or {s.index: target.add_stream_from_template(s) for s in container.streams}
                for packet in container.demux():
                    pts, dts, base = packet.pts, packet.dts, packet.time_base
                    if pts is None or dts is None or base is None or (number and pts < 0):
                        continue
                    shift = round(number * SCENE / base)
                    packet.pts, packet.dts = pts + shift, dts + shift
                    packet.stream = streams[packet.stream.index]
                    target.mux(packet)
    return output


def inputs(folder: Path, minutes: float) -> None:
    """bundle, video.mp4, speech.wav, segments.json; jobs.jsonl with short ones."""
    seconds = max(1, round(minutes * 60 / SCENE)) * SCENE
    if not (folder / "bundle").exists():
        run("checkpoint", "random", folder / "checkpoint", "--size", "minimal", "--resolution", "64")
        run("export", folder / "checkpoint", "-o", folder / "bundle", "--precision", "fp32", "--no-build")
    if not (folder / "video.mp4").exists():
        write_clip(folder / "scene.mp4", scene(), sound=voice(SCENE))
        repeated(folder / "scene.mp4", folder / "video.mp4", seconds // SCENE)
        write_wav(folder / "speech.wav", voice(seconds))
    starts = range(0, seconds - 5, 10)
    said = [
        {"start": t, "end": t + 5, "audio": "short.wav", "speaker": ("left", "right")[n % 2]}
        for n, t in enumerate(starts)
    ]
    (folder / "segments.json").write_text(json.dumps(said), encoding="utf-8")
    write_wav(folder / "short.wav", speech(5, seed=1))
    write_wav(folder / "job.wav", speech(2, seed=2))
    jobs = [{"video": "scene.mp4", "audio": "job.wav", "steps": 1, "seed": n, "crf": 30} for n in range(6)]
    (folder / "jobs.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs), encoding="utf-8")


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "lsx", *map(str, arguments), "--quiet"]


def run(*arguments: str | Path) -> None:
    subprocess.run(command(*arguments), check=True)


def watched(*arguments: str | Path) -> tuple[float, float, float]:
    """Run a command; its seconds, the MiB that it holds after a tenth, and the growth from there to the end."""
    started, held = time.monotonic(), []
    process = subprocess.Popen(command(*arguments))
    while process.poll() is None:
        held.append(_resident(process.pid))
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"{arguments[0]} ended with {process.returncode}")
    tenth = max(1, len(held) // 10)
    early, late = np.median(held[tenth : 2 * tenth]), np.median(held[-2 * tenth : -tenth])
    return time.monotonic() - started, float(early), float(late / early - 1)


def _resident(pid: int) -> float:
    """MiB of memory that a process holds."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def soak(folder: Path) -> bool:
    """Every long run; whether all of them stayed within GROWTH."""
    bundle, video, sound = folder / "bundle", folder / "video.mp4", folder / "speech.wav"
    tracks, avatar, result = folder / "tracks.json", folder / "avatar", folder / "result.mp4"
    for made in (tracks, result):
        made.unlink(missing_ok=True)
    shutil.rmtree(avatar, ignore_errors=True)
    silent = ("--silence", "keep")
    known = ("--faces", tracks)
    runs: dict[str, tuple[str | Path, ...]] = {
        "faces": ("faces", video, "-o", tracks, "--bundle", bundle),
        "active": ("run", bundle, video, sound, "-o", result, *known, "--speaker", "active", *silent, *FOOTAGE),
        "segments": (
            "run",
            bundle,
            video,
            "-o",
            result,
            *known,
            "--segments",
            folder / "segments.json",
            "--mix",
            "duck",
            *FOOTAGE,
        ),
        "prepare": ("prepare", bundle, video, "-o", avatar, *known, "--fps", "source"),
        "avatar": ("run", bundle, avatar, sound, "-o", result, *silent, "--steps", "1", "--overlap", "4"),
    }
    flat = True
    for name, arguments in runs.items():
        result.unlink(missing_ok=True)
        seconds, held, growth = watched(*arguments)
        print(f"{name}: {seconds:.0f} s, {held:.0f} MiB, {100 * growth:+.2f} %", flush=True)
        flat &= growth < GROWTH
    return flat


def kills(folder: Path, count: int, seed: int) -> bool:
    """Kill a batch at random moments; whether nothing was half-written, and it ended as an undisturbed one."""
    jobs, whole, cut = folder / "jobs.jsonl", folder / "whole", folder / "cut"
    for made in (whole, cut):
        shutil.rmtree(made, ignore_errors=True)
    started = time.monotonic()
    run("batch", folder / "bundle", jobs, "-o", whole)
    length, moments = time.monotonic() - started, random.Random(seed)
    wanted, sound = digests(whole), True
    for number in range(count):
        if moments.random() < 0.2:
            shutil.rmtree(cut, ignore_errors=True)
        process = subprocess.Popen(command("batch", folder / "bundle", jobs, "-o", cut, "--resume"))
        try:
            process.wait(moments.uniform(0.2, 1) * length)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
        found = digests(cut)
        wrong = [name for name, digest in found.items() if wanted.get(name) != digest]
        print(f"kill {number + 1}: {len(found)} of {len(wanted)} results, {len(wrong)} of them wrong", flush=True)
        sound &= not wrong
    run("batch", folder / "bundle", jobs, "-o", cut, "--resume")
    left = [path.name for path in cut.iterdir() if path.name.startswith(".") or "partial" in path.name]
    print(f"in the end: {len(digests(cut))} of {len(wanted)} results, left over: {left or 'nothing'}")
    return sound and digests(cut) == wanted and not left


def digests(folder: Path) -> dict[str, str]:
    """Hashes of the pictures of every result that is there under its own name."""
    return {path.name: _pictures(path) for path in sorted(folder.glob("[!.]*.mp4"))} if folder.is_dir() else {}


def _pictures(path: Path) -> str:
    digest = hashlib.sha256()
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            digest.update(bytes(packet))
    return digest.hexdigest()


def main() -> int:
    """Both, and 1 if either found something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    inputs(given.folder, given.minutes)
    flat = soak(given.folder)
    whole = kills(given.folder, given.kills, given.seed)
    print(f"memory {'flat' if flat else 'GREW'}, kills {'left nothing' if whole else 'DID HARM'}")
    return 0 if flat and whole else 1


if __name__ == "__main__":
    sys.exit(main())
