"""A bundle on disk: opened, hashed, changed by two at once, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import MANIFEST, FileEntry, PlanEntry
from lsx.core.atomic_files import sha256_of
from lsx.errors import BundleError, IntegrityError, SchemaMismatch

EMPTY: dict[str, Any] = {
    "schema_version": 1,
    "lsx_version": "0.1.0",
    "created": "2026-01-01",
    "precision": "fp16",
    "model": {
        "version": "latentsync-1.5", "resolution": 256, "frames": 16, "video_fps": 25, "sample_rate": 16000,
        "audio_window": [2, 2], "audio_states": 5, "audio_dim": 384, "max_frames": 24, "mask": "released",
        "checkpoint": {}, "source": "/nowhere",
    },
    "faces": {"family": "mediapipe", "source": {}},
    "graphs": {},
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / MANIFEST).write_text(json.dumps(EMPTY))
    (tmp_path / "plans").mkdir()
    return tmp_path


def _plan(path: Path, name: str) -> PlanEntry:
    file = path / "plans" / name
    file.write_bytes(name.encode())
    entry = FileEntry(path=f"plans/{name}", sha256=sha256_of(file), size=file.stat().st_size)
    return PlanEntry(
        graph="step", precision="fp16", file=entry, backend="tensorrt-rtx", library_version="1", target="sm89",
        key=name, onnx=(), profiles=(), options={}, seconds=1.0, peak_bytes=1,
    )  # fmt: skip


def test_two_that_add_plans_lose_none(path: Path) -> None:
    first, second = Bundle.open(path), Bundle.open(path)
    first.add_plan(_plan(path, "a.plan"))
    second.add_plan(_plan(path, "b.plan"))
    first.add_plan(_plan(path, "c.plan"))
    names = [plan.file.path for plan in Bundle.open(path).manifest.plans]
    assert names == ["plans/a.plan", "plans/b.plan", "plans/c.plan"]


def test_a_changed_file_and_one_outside(path: Path) -> None:
    bundle = Bundle.open(path)
    plan = _plan(path, "a.plan")
    bundle.add_plan(plan)
    bundle.verify([plan.file])
    (path / "plans" / "a.plan").write_bytes(b"other")
    fresh = Bundle.open(path)
    with pytest.raises(IntegrityError, match=r"lsx build .* --backend tensorrt-rtx --graphs step"):
        fresh.verify([plan.file])
    with pytest.raises(IntegrityError, match="outside the bundle"):
        fresh.verify([FileEntry(path="../x", sha256="0", size=0)])


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        ("{", BundleError, "not a manifest"),
        ("[]", BundleError, "not a manifest"),
        (json.dumps(EMPTY | {"schema_version": 99}), SchemaMismatch, "schema 99"),
        (json.dumps(EMPTY | {"precision": "fp64"}), BundleError, "precision"),
        (json.dumps(EMPTY | {"surprise": 1}), BundleError, "surprise"),
    ],
)
def test_what_is_no_bundle(path: Path, content: str, kind: type[Exception], said: str) -> None:
    (path / MANIFEST).write_text(content)
    with pytest.raises(kind, match=said):
        Bundle.open(path)


def test_an_unknown_graph_names_what_there_is(path: Path) -> None:
    with pytest.raises(BundleError, match="no graph vae; it has"):
        Bundle.open(path).graph("vae")
