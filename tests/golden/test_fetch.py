"""`lsx fetch` against a stand-in of the hub: whole, interrupted, lied to, and unreachable."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lsx.cli.main import main
from lsx.core.atomic_files import sha256_of
from lsx.errors import CheckpointError, OutputError, UsageError
from lsx.models import fetching
from lsx.models.checkpoint_files import CheckpointFiles, stated_resolution
from lsx.models.fetching import fetch, plan_fetch
from tests.hub import Hub, hub_of

UNET = "latentsync_unet.pt"


@pytest.fixture
def hub(checkpoint: Callable[[int], Path]) -> Iterator[Hub]:
    folder = checkpoint(128)
    vae = {path.name: path for path in (folder / "vae").iterdir()}
    files = {
        "ByteDance/LatentSync-1.6": {UNET: folder / UNET, "whisper/tiny.pt": folder / "whisper" / "tiny.pt"},
        "stabilityai/sd-vae-ft-mse": vae,
    }
    with hub_of(files) as served:
        yield served


def test_a_checkpoint_is_arranged_and_says_which_it_is(
    hub: Hub,
    checkpoint: Callable[[int], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "checkpoint"
    command = ["fetch", "latentsync-1.6", "-o", str(target), "--hub", hub.endpoint]
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--dry-run", "--json"])
    assert json.loads(capsys.readouterr().out)["bytes"] > 10**6
    assert not target.exists()
    with pytest.raises(SystemExit, match="0"):
        main(command)
    for part in (UNET, "whisper/tiny.pt", "vae/config.json"):
        assert (target / part).read_bytes() == (checkpoint(128) / part).read_bytes()
    assert not (target / ".download").exists()
    files = CheckpointFiles.in_folder(target)
    assert stated_resolution(files, model=None, resolution=None) == 512
    with pytest.raises(UsageError, match="means 256 px"):
        stated_resolution(files, model=None, resolution=256)
    hub.served.clear()
    with pytest.raises(SystemExit, match="0"):  # nothing is downloaded twice
        main(command)
    assert not hub.served


def test_an_interrupted_download_goes_on(hub: Hub, tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    plan = plan_fetch("latentsync-1.6", target, endpoint=hub.endpoint)
    hub.cut[UNET] = 12_000_000
    fetch(plan, target, endpoint=hub.endpoint)
    starts = [start for name, start in hub.served if name == UNET]
    assert starts[0] == 0
    assert starts[-1] >= 10_000_000
    assert not plan_fetch("latentsync-1.6", target, endpoint=hub.endpoint).missing


def test_the_bytes_of_a_large_file_are_told_while_it_comes(hub: Hub, tmp_path: Path) -> None:
    hub.slow[UNET] = 2.0
    told: list[tuple[str, int]] = []
    plan = plan_fetch("latentsync-1.6", tmp_path / "c", endpoint=hub.endpoint)
    sizes = {file.path: file.size for file in plan.missing}
    before = sum(file.size for file in plan.missing[: list(sizes).index(UNET)])
    fetch(plan, tmp_path / "c", endpoint=hub.endpoint, progress=lambda file, come: told.append((file.path, come)))
    assert [come for _, come in told] == sorted(come for _, come in told)
    part = [(come - before) / sizes[UNET] for path, come in told if path == UNET]
    assert part[0] == 0
    assert any(0.2 < share <= 0.5 for share in part)
    assert told[-1][1] <= plan.bytes


def test_what_came_is_told_while_it_is_hashed(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.slow[UNET] = 0.5  # long enough for a look at what has come
    monkeypatch.setattr(fetching, "_PAUSE", 0.02)
    told: list[int] = []
    looked = threading.Condition()

    def tell(come: int) -> None:
        with looked:
            told.append(come)
            looked.notify_all()

    def hashed(path: Path) -> str:
        with looked:
            enough = len(told) + 2
            if path.name == UNET and ".download" in path.parts:
                looked.wait_for(lambda: len(told) >= enough, timeout=60)
        return sha256_of(path)

    monkeypatch.setattr(fetching, "sha256_of", hashed)
    target = tmp_path / "c"
    plan = plan_fetch("latentsync-1.6", target, endpoint=hub.endpoint)
    fetch(plan, target, endpoint=hub.endpoint, progress=lambda _, come: tell(come))
    assert told == sorted(told)


def test_what_is_not_the_hubs_is_removed(hub: Hub, tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    hub.lies.add("whisper/tiny.pt")
    plan = plan_fetch("latentsync-1.6", target, endpoint=hub.endpoint)
    with pytest.raises(CheckpointError, match=r"whisper/tiny.pt .* damaged"):
        fetch(plan, target, endpoint=hub.endpoint)
    assert not list(target.rglob("tiny.pt"))
    hub.lies.clear()
    plan = plan_fetch("latentsync-1.6", target, endpoint=hub.endpoint)
    assert UNET not in {file.path for file in plan.missing}  # what was whole is kept
    fetch(plan, target, endpoint=hub.endpoint)
    assert (target / "source.json").is_file()


def test_refusals(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"latentsync-1.5, latentsync-1.6"):
        plan_fetch("latentsync-2", tmp_path / "c", endpoint=hub.endpoint)
    with pytest.raises(CheckpointError, match=r"LatentSync-1.5: the hub does not give it"):
        plan_fetch("latentsync-1.5", tmp_path / "c", endpoint=hub.endpoint)
    with pytest.raises(CheckpointError, match="HF_ENDPOINT"):
        plan_fetch("latentsync-1.6", tmp_path / "c", endpoint="http://127.0.0.1:9")
    del hub.files["ByteDance/LatentSync-1.6"][UNET]
    with pytest.raises(CheckpointError, match=r"has no latentsync_unet.pt"):
        plan_fetch("latentsync-1.6", tmp_path / "c", endpoint=hub.endpoint)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "holiday.jpg").touch()
    with pytest.raises(OutputError, match=r"holds holiday.jpg"):
        plan_fetch("latentsync-1.6", tmp_path / "other", endpoint=hub.endpoint)


def test_a_full_disk(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_fetch("latentsync-1.6", tmp_path / "c", endpoint=hub.endpoint)

    class Usage:
        free = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(OutputError, match="are free"):
        fetch(plan, tmp_path / "c", endpoint=hub.endpoint)
