"""Avatars on a whole server: what a job makes of one is what `LipSync.run` makes of a prepared one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision
from lsx.runtime.avatar_job import prepare_avatar
from lsx.runtime.lipsync import LipSync
from tests.planting import copy_of, edited, plant
from tests.serving.served import Served, serving, until


@pytest.fixture(scope="module")
def small(bundle: Callable[[Precision, int], Bundle]) -> Bundle:
    return bundle("fp32", 64)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A face, and a sound of a chunk."""
    folder = tmp_path_factory.mktemp("clip")
    write_clip(folder / "face.mp4", portrait_frames(20))
    write_wav(folder / "short.wav", speech(0.64))
    return folder / "face.mp4", folder / "short.wav"


def _sent(served: Served, video: Path, **query: Any) -> dict[str, Any]:
    """An avatar of a video that comes with the request."""
    headers = {"Content-Type": "video/mp4"}
    answer = served.api.post("/v1/avatars", params=query, content=video.read_bytes(), headers=headers)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _ended(served: Served, avatar: dict[str, Any]) -> dict[str, Any]:
    """When it is ready, or has failed."""

    def looked() -> dict[str, Any] | None:
        found: dict[str, Any] = served.api.get(avatar["urls"]["get"], params={"wait": 10}).json()
        return found if found["status"] in ("READY", "FAILED") else None

    return until(looked)


def _submit(served: Served, avatar: dict[str, Any], audio: str, **more: Any) -> dict[str, Any]:
    inputs = [{"type": "avatar", "avatar_id": avatar["id"]}, {"type": "audio", "asset_id": audio}]
    answer = served.api.post("/v1/jobs", json={"input": inputs, "options": {"steps": 1, "seed": 3}} | more)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _output(served: Served, job: dict[str, Any]) -> bytes:
    ended = served.ended(job["id"])
    assert ended["status"] == "COMPLETED", ended
    return served.api.get(ended["output_url"]).content


def _own(bundle: Bundle, clip: tuple[Path, Path], folder: Path) -> bytes:
    """What the library makes of the same."""
    avatar = prepare_avatar(bundle, clip[0], folder / "own.avatar", end=0.7, backend="onnxruntime")
    with LipSync.open(bundle, threads=1) as lipsync:
        lipsync.run(avatar, clip[1], folder / "own.mp4", steps=1, seed=3)
    return (folder / "own.mp4").read_bytes()


def test_a_job_with_an_avatar_and_a_new_bundle(small: Bundle, clip: tuple[Path, Path], tmp_path: Path) -> None:
    """To the byte, also when the upload is gone; with another VAE encoder it is prepared again. Then it is removed."""
    changed = plant(copy_of(small, tmp_path), "vae_encoder", edited("encoder.conv_in.bias", lambda a: a * 2 + 1))
    served_bundle, data = tmp_path / "served", tmp_path / "data"
    served_bundle.symlink_to(small.path)
    with serving(served_bundle, data) as served:
        avatar = _ended(served, _sent(served, clip[0], end="0.7", name="Anna"))
        assert (avatar["status"], avatar["frames"], avatar["error"]) == ("READY", 18, None)
        assert avatar["bundle"] == served.api.get("/v1/models").json()["data"][0]["encoder"]
        for upload in (data / "store" / "uploads").iterdir():
            upload.unlink()
        audio = served.upload(clip[1])
        made = _output(served, _submit(served, avatar, audio))
        assert made == _own(small, clip, tmp_path)
        old = served.processes("lsx.serving.worker")
        served_bundle.unlink()
        served_bundle.symlink_to(changed.path)
        served.process.send_signal(signal.SIGHUP)
        until(lambda: served.processes("lsx.serving.worker") not in (old, []))
        until(lambda: old[0] not in served.processes("lsx.serving.worker"))
        again = _output(served, _submit(served, avatar, audio))
        assert again == _own(changed, clip, tmp_path)
        assert again != made
        renewed = served.api.get(avatar["urls"]["get"]).json()
        assert (renewed["ready_at"], renewed["bundle"] != avatar["bundle"]) == (avatar["ready_at"], True)
        assert len(list((data / "store" / "avatars" / avatar["id"]).iterdir())) == 2
        assert served.api.delete(avatar["urls"]["get"]).status_code == 204
        assert list((data / "store" / "avatars").iterdir()) == []
        assert served.end() == 0


def test_a_worker_that_is_killed_while_it_prepares(
    small: Bundle, clip: tuple[Path, Path], video: Path, tmp_path: Path
) -> None:
    """The avatar is ready in the end; a removed one frees its worker; a job ahead of its avatar makes it."""
    write_clip(tmp_path / "long.mp4", portrait_frames(250))
    with serving(Path(small.path), tmp_path / "data", "--job-attempts", "2") as served:
        avatar = _begun(served, tmp_path / "long.mp4", end="3")
        served.kill("lsx.serving.worker")
        removed = _sent(served, tmp_path / "long.mp4")
        early = _sent(served, clip[0])
        faceless = _sent(served, video)
        assert _ended(served, avatar)["frames"] == 75
        begun = [line["avatar"] for line in served.lines() if line.get("event") == "avatar begins"]
        assert begun.count(avatar["id"]) == 2
        job = _submit(served, early, served.upload(clip[1]), priority=1)
        until(lambda: _frames(served, removed))
        assert served.api.delete(removed["urls"]["get"]).status_code == 204
        assert served.ended(job["id"])["status"] == "COMPLETED"
        assert _ended(served, early)["status"] == "READY"
        failed = _ended(served, faceless)
        done = [line["avatar"] for line in served.lines() if line.get("event") == "avatar is ready"]
        assert done == [avatar["id"], early["id"]]
        assert (failed["status"], failed["error"]["code"]) == ("FAILED", "no_face")
        assert str(tmp_path) not in failed["error"]["message"]
        kept = {path.name for path in (tmp_path / "data" / "store" / "avatars").iterdir()}
        assert kept == {avatar["id"], early["id"]}
        assert [name for _, _, names in os.walk(tmp_path / "data" / "work") for name in names] == []


def _frames(served: Served, avatar: dict[str, Any]) -> int:
    """How many are done."""
    return int((served.api.get(avatar["urls"]["get"]).json()["progress"] or {}).get("frames", 0))


def _begun(served: Served, video: Path, **query: Any) -> dict[str, Any]:
    """An avatar of which the first frames are done."""
    avatar = _sent(served, video, **query)
    until(lambda: _frames(served, avatar))
    return avatar
