"""`lsx batch` on real jobs: what single runs give, whatever fails beside them, and after any kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx import LipSync
from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision
from lsx.media.video_reader import VideoReader
from tests.command_line import lsx


@pytest.fixture(scope="module")
def path(bundle: Callable[[Precision, int], Bundle]) -> Path:
    return bundle("fp32", 64).path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_clip(tmp_path / "a.mp4", portrait_frames(20, 160, 120))
    write_clip(tmp_path / "b.mp4", portrait_frames(20, 128, 128))
    write_wav(tmp_path / "s.wav", speech(0.64))
    (tmp_path / "jobs.csv").write_text(
        "video,audio,output,steps,guidance,crf,seed,extend\n"
        "a.mp4,s.wav,one.mp4,2,1,0,,\n"
        "gone.mp4,s.wav,two.mp4,1,1,0,,\n"
        "b.mp4,s.wav,three.mp4,1,1,0,5,loop\n"
        "a.mp4,s.wav,,1,1,0,,\n"
    )
    return tmp_path


def frames(path: Path) -> np.ndarray:
    return np.stack(list(VideoReader(path).frames()))


@pytest.mark.parametrize("workers", ["auto", "2"])
def test_each_result_is_that_of_a_single_run(path: Path, folder: Path, workers: str) -> None:
    results = folder / "results"
    code, shown, errors = lsx("batch", path, folder / "jobs.csv", "-o", results, "--threads", "1", "--workers", workers)
    assert code == 1, errors
    assert "4 jobs: 3 done, 0 kept, 1 failed" in shown
    assert "line 3: failed, two.mp4" in shown
    assert "1 of 4 jobs failed" in errors
    assert sorted(p.name for p in results.iterdir()) == sorted(
        [f"{n}{end}" for n in ("one.mp4", "three.mp4", "00005-a.mp4") for end in ("", ".json")]
        + ["two.mp4.json", "batch.json"]
    )
    with LipSync.open(path, threads=1) as lipsync:
        for name, video, steps, seed in (("one", "a", 2, 0), ("three", "b", 1, 5), ("00005-a", "a", 1, 0)):
            files = folder / f"{video}.mp4", folder / "s.wav", folder / "x.mp4"
            lipsync.run(*files, steps=steps, guidance=1, seed=seed, crf=0)
            assert np.array_equal(frames(folder / "x.mp4"), frames(results / f"{name}.mp4"))
    summary = json.loads((results / "batch.json").read_text())
    assert [job["state"] for job in summary["jobs"]] == ["done", "failed", "done", "done"]
    assert json.loads((results / "one.mp4.json").read_text())["report"]["frames"] == 16
    assert "gone.mp4" in json.loads((results / "two.mp4.json").read_text())["error"]


def test_resume_does_only_what_is_missing(path: Path, folder: Path) -> None:
    results = folder / "results"
    command = ("batch", path, folder / "jobs.csv", "-o", results, "--threads", "1")
    lsx(*command)
    times = {p.name: p.stat().st_mtime_ns for p in results.glob("*.mp4")}
    write_clip(folder / "gone.mp4", portrait_frames(20, 160, 120))
    (results / "one.mp4").unlink()
    (results / "three.mp4.json").write_text('{"job": ')  # a report that was cut off is none
    code, shown, errors = lsx(*command, "--resume")
    assert code == 0, errors
    assert "4 jobs: 3 done, 1 kept, 0 failed" in shown
    after = {p.name: p.stat().st_mtime_ns for p in results.glob("*.mp4")}
    assert [name for name in after if after[name] == times.get(name)] == ["00005-a.mp4"]
    assert "4 jobs: 0 done, 4 kept, 0 failed" in lsx(*command, "--resume")[1]
    (folder / "jobs.csv").write_text((folder / "jobs.csv").read_text().replace(",1,1,0,5,loop", ",1,1,0,6,loop"))
    assert "4 jobs: 1 done, 3 kept, 0 failed" in lsx(*command, "--resume")[1]


def test_a_kill_leaves_nothing_half_written(path: Path, folder: Path) -> None:
    """Killed as a job ends, and within one; what is there is whole, and resuming does the rest."""
    results = folder / "results"
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from lsx import LipSync\n"
        "from lsx.runtime import batch, batch_jobs\n"
        "path, jobs, results, moment = sys.argv[1:]\n"
        "with LipSync.open(path, threads=1) as lipsync:\n"
        "    run, count = lipsync.run, 0\n"
        "    def counted(*arguments, **options):\n"
        "        global count\n"
        "        count += 1\n"
        "        def progress(now):\n"
        "            if count == 2 and moment == 'within' and now.frames == 5:\n"
        "                os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return run(*arguments, **options, progress=progress)\n"
        "    lipsync.run = counted\n"
        "    def done(result):\n"
        "        if moment == 'after' and result.state == 'done':\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "    batch.run_batch(lipsync, batch_jobs.read_jobs(Path(jobs)), Path(results), done=done)\n"
    )
    whole = {}
    for moment in ("after", "within"):
        arguments = [sys.executable, "-c", program, str(path), str(folder / "jobs.csv"), str(results), moment]
        killed = subprocess.run(arguments, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert killed.returncode == -signal.SIGKILL
        for video in results.glob("[!.]*.mp4"):
            whole[video.name] = len(frames(video))
    assert set(whole.values()) == {16}
    code, shown, _ = lsx("batch", path, folder / "jobs.csv", "-o", results, "--threads", "1", "--resume")
    assert code == 1
    assert "1 failed" in shown
    assert not [p for p in results.iterdir() if p.name.startswith(".")]
    for name in ("one.mp4", "three.mp4", "00005-a.mp4"):
        assert len(frames(results / name)) == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--workers", "0"), "--workers is 0; give a whole number"), (("--backend", "x"), "backend")],
)
def test_bad_values(path: Path, folder: Path, options: tuple[str, str], message: str) -> None:
    code, _, errors = lsx("batch", path, folder / "jobs.csv", "-o", folder / "results", *options)
    assert code == 2
    assert message in errors
    assert not (folder / "results").exists()
