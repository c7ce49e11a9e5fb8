"""Bad input: one clear line, the right exit code, nothing half-written."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import MANIFEST
from lsx.cli.main import main
from lsx.core.tensors import Precision

Bundles = Callable[[Precision, int], Bundle]


def lsx(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and standard error of the command line."""
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown), pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    assert "Traceback" not in shown.getvalue()
    assert isinstance(ended.value.code, int)
    return ended.value.code, shown.getvalue()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "clip.mp4", portrait_frames(25))
    write_wav(folder / "sound.wav", speech(0.5))
    return folder


def refused(expected: int, message: str, bundle: Path, video: Path, audio: Path, output: Path, *options: str) -> None:
    """`lsx run` fails with `expected` and one line with `message`, and leaves no file in the output's folder."""
    before = sorted(output.parent.iterdir()) if output.parent.is_dir() else []
    code, errors = lsx("run", bundle, video, audio, "-o", output, "--steps", "1", *options)
    lines = [line for line in errors.splitlines() if line.startswith("lsx: ") and "warning" not in line]
    assert code == expected, errors
    assert len(lines) == 1, errors
    assert message in lines[0]
    assert before == (sorted(output.parent.iterdir()) if output.parent.is_dir() else [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--guidance", "nan"), "guidance is nan"),
        (("--steps", "0"), "steps is 0"),
        (("--steps", "many"), "--steps"),
        (("--cache-interval", "0"), "--cache-interval is 0"),
        (("--seed", "-1"), "seed is -1"),
        (("--crf", "99"), "crf is 99"),
        (("--backend", "magic"), "backend is magic"),
        (("--no-face", "maybe"), "no_face is maybe"),
        (("--bogus",), "--bogus"),
    ],
)
def test_usage(bundle: Bundles, media: Path, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    path = bundle("fp32", 64).path
    refused(2, message, path, media / "clip.mp4", media / "sound.wav", tmp_path / "out.mp4", *options)


def test_media(bundle: Bundles, media: Path, tmp_path: Path) -> None:
    path, clip, sound = bundle("fp32", 64).path, media / "clip.mp4", media / "sound.wav"
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "text.mp4").write_text("this is no video\n" * 50)
    (bad / "empty.mp4").write_bytes(b"")
    whole = clip.read_bytes()
    (bad / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    write_wav(bad / "short.wav", speech(1.0)[:300])
    write_wav(bad / "silent.wav", speech(1.0)[:0])
    out = tmp_path / "out"
    out.mkdir()
    target = out / "out.mp4"
    refused(1, "no such file", path, bad / "absent.mp4", sound, target)
    refused(1, "not a readable media file", path, bad / "text.mp4", sound, target)
    refused(1, "not a readable media file", path, bad / "empty.mp4", sound, target)
    refused(1, "cut.mp4", path, bad / "cut.mp4", sound, target)
    refused(1, "no video stream", path, sound, sound, target)
    refused(1, "no audio stream", path, clip, clip, target)
    refused(1, "at least 20 ms", path, clip, bad / "short.wav", target)
    refused(1, "no samples", path, clip, bad / "silent.wav", target)
    refused(1, "no such folder", path, clip, sound, tmp_path / "nowhere" / "out.mp4")
    refused(2, "must end in .mp4", path, clip, sound, out / "out.avi")
    refused(1, "is an input of this run", path, clip, sound, clip)


def test_a_video_cut_off_after_its_index(bundle: Bundles, media: Path, tmp_path: Path) -> None:
    moved = tmp_path / "faststart.mp4"
    with (
        av.open(str(media / "clip.mp4")) as source,
        av.open(str(moved), "w", options={"movflags": "+faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = moved.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 2 // 3])
    out = tmp_path / "out"
    out.mkdir()
    path = bundle("fp32", 64).path
    refused(1, "cut", path, tmp_path / "cut.mp4", media / "sound.wav", out / "out.mp4")


def test_a_video_without_frames(bundle: Bundles, media: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "none.mkv", iter(()))
    out = tmp_path / "out"
    out.mkdir()
    path = bundle("fp32", 64).path
    refused(1, "none.mkv", path, tmp_path / "none.mkv", media / "sound.wav", out / "out.mp4")


def test_a_full_disk(bundle: Bundles, media: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        refused(1, "disk is full", bundle("fp32", 64).path, media / "clip.mp4", media / "sound.wav", disk / "out.mp4")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_bundles(bundle: Bundles, media: Path, tmp_path: Path) -> None:
    clip, sound = media / "clip.mp4", media / "sound.wav"
    out = tmp_path / "out"
    out.mkdir()
    copy = tmp_path / "copy"
    shutil.copytree(bundle("fp32", 64).path, copy)
    data = copy / "onnx" / "unet.onnx.data"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    refused(1, "is not the file that the manifest describes", copy, clip, sound, out / "out.mp4")
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["schema_version"] = 99
    (copy / MANIFEST).write_text(json.dumps(manifest))
    refused(1, "bundle schema 99", copy, clip, sound, out / "out.mp4")
    (copy / MANIFEST).write_text("{")
    refused(1, "not a manifest", copy, clip, sound, out / "out.mp4")
    refused(1, "not a bundle", tmp_path / "absent", clip, sound, out / "out.mp4")


class _Trap:
    """A pickle that would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)  # what a malicious checkpoint would do


def test_checkpoints(checkpoint: Callable[[int], Path], tmp_path: Path) -> None:
    copy = tmp_path / "checkpoint"
    shutil.copytree(checkpoint(128), copy)
    target = tmp_path / "bundle"

    def refused_export(expected: int, message: str, *options: str) -> None:
        code, errors = lsx("export", copy, "-o", target, "--precision", "fp32", *options)
        assert code == expected, errors
        assert message in errors
        assert not target.exists()
        assert not list(tmp_path.glob(".bundle-*"))

    refused_export(2, "--resolution means 512 px", "--resolution", "512")
    refused_export(2, "--model latentsync-1.6 means 512 px", "--model", "latentsync-1.6")
    refused_export(2, "--precision is fp4", "--precision", "fp4")
    refused_export(1, "--vae PATH", "--vae", str(tmp_path / "absent"))
    content = torch.load(copy / "latentsync_unet.pt", weights_only=True)
    state = content["state_dict"]
    state["conv_in.weight"] = torch.zeros(32, 9, 3, 3)
    del state["conv_out.bias"]
    state["surplus"] = torch.zeros(1)
    torch.save(content, copy / "latentsync_unet.pt")
    refused_export(
        1, "conv_out.bias is missing; conv_in.weight is [32, 9, 3, 3], not [32, 13, 3, 3]; surplus is unknown"
    )
    mark = tmp_path / "mark"
    (copy / "latentsync_unet.pt").write_bytes(pickle.dumps(_Trap(mark)))
    refused_export(1, "refused")
    assert not mark.exists()
    torch.save({"state_dict": _Trap(mark)}, copy / "latentsync_unet.pt")
    refused_export(1, "refused")
    assert not mark.exists()
    (copy / "latentsync_unet.pt").write_bytes(np.random.default_rng(0).bytes(1000))
    refused_export(1, "latentsync_unet.pt")


def test_an_export_never_replaces_what_is_no_bundle(checkpoint: Callable[[int], Path], tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    code, errors = lsx("export", checkpoint(128), "-o", precious)
    assert code == 1
    assert "is not a bundle; lsx will not replace it" in errors
    assert (precious / "thesis.txt").read_text() == "years of work"
