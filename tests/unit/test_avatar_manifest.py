"""avatar.json: written and read back, its files, and the clock of a proxy's frames."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from typing import Any

import pytest
from pydantic import ValidationError

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import FileEntry
from lsx.faces.avatar_manifest import AVATAR_SCHEMA, AvatarManifest, PlaceEntry, ProxyEntry, encoder_of
from lsx.faces.speaker import SpeakerChoice
from lsx.faces.track_file import VideoIdentity
from lsx.media.colours import ColourTags
from tests.unit.test_console import EARLIER


def entry(path: str) -> FileEntry:
    return FileEntry(path=path, sha256=hashlib.sha256(path.encode()).hexdigest(), size=len(path))


def proxy(starts: tuple[int, ...] | None) -> ProxyEntry:
    tick = Fraction(1001, 30000) if starts is None else Fraction(1, 1000)
    return ProxyEntry(tick=tick, starts=starts, pixel_aspect=Fraction(4, 3), colours=ColourTags(), has_sound=True)


def manifest(**changes: Any) -> AvatarManifest:
    fields: dict[str, Any] = {
        "schema_version": AVATAR_SCHEMA,
        "lsx_version": "0",
        "created": "now",
        "resolution": 64,
        "encoder": "abc",
        "backend": "by hand",
        "video": VideoIdentity(name="v.mp4", frames=3, width=64, height=48, bytes=7),
        "start": 0.0,
        "end": None,
        "fps": "25",
        "speaker": "largest",
        "frames": 3,
        "choices": (SpeakerChoice(frame=0, track=1, lost=False),),
        "source": entry("source.mkv"),
        "proxy": proxy((0, 40, 73, 140)),
        "faces": entry("faces.safetensors"),
        "places": tuple(PlaceEntry(crops=entry(f"crops.{n}"), moments=entry(f"moments.{n}")) for n in range(2)),
    }
    return AvatarManifest(**fields | changes)


def test_it_is_read_back_as_it_was_written() -> None:
    written = manifest()
    assert AvatarManifest.model_validate(json.loads(written.model_dump_json())) == written
    with pytest.raises(ValidationError, match="resolution"):
        manifest(resolution="large")


def test_all_files_are_named() -> None:
    names = ["source.mkv", "faces.safetensors", "crops.0", "moments.0", "crops.1", "moments.1"]
    assert [file.path for file in manifest().files()] == names


def test_a_proxys_clock_is_exact() -> None:
    even, uneven = proxy(None).clock, proxy((0, 40, 73, 140)).clock
    assert even.rate == Fraction(30000, 1001)
    assert [uneven.seconds(number) for number in range(3)] == [0, Fraction(40, 1000), Fraction(73, 1000)]
    assert uneven.rate == 3 / Fraction(140, 1000)


def test_an_encoder_is_known_by_its_graph_and_its_weights() -> None:
    opened = Bundle.open(EARLIER / "bundle")
    hashes = [file.sha256 for file in opened.files("vae_encoder")]
    assert hashes
    assert encoder_of(opened) == "+".join(hashes)
    assert encoder_of(opened) != "+".join(file.sha256 for file in opened.files("vae_decoder"))
