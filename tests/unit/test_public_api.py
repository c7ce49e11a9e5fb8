"""The public API of the last version still holds: names may come; names, parameters, types and defaults stay."""

from __future__ import annotations

import re
from pathlib import Path

import griffe
import pytest

import lsx
from scripts.public_api import ROOT, api_of, breaks, public_api, text_of

BEFORE = """
@dataclass(frozen=True, kw_only=True)
class Options:
    steps: int = 20
    scale: float = 1.5

    def check(self, size: int = 1) -> bool: ...


def run(video: Path, audio: Path | None = None) -> Report: ...
"""


def _api(code: str) -> griffe.Module:
    return griffe.visit("lsx", filepath=Path("lsx.py"), code=code)


def test_nothing_public_has_changed_or_gone() -> None:
    last = max((ROOT / "docs").glob("api-*.json"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.stem)])
    assert breaks(api_of(last.read_text(encoding="utf-8")), public_api()) == []


def test_what_is_not_released_has_a_version_of_its_own() -> None:
    """Bundles, records and reports carry it: with the last release's they would say what that could not write."""
    log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    news = log.partition("## Unreleased\n")[2].partition("\n## ")[0].strip()
    released = re.search(r"^## (\d+)\.(\d+)\.(\d+) ", log, re.MULTILINE)
    assert released is not None
    here = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)(\.dev0)?", lsx.__version__)
    assert here is not None
    later = [int(n) for n in here.groups()[:3]] > [int(n) for n in released.groups()]
    assert (later, here[4] is not None) == (bool(news), bool(news))


def test_all_exports_are_looked_at() -> None:
    assert {*lsx.__all__} - {"__version__"} <= {*public_api().members}


def test_what_is_written_is_read_back() -> None:
    api = public_api()
    read = api_of(text_of(api))
    assert breaks(read, api) == breaks(api, read) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("steps: int", "count: int", "Options.steps: Public object was removed"),
        ("steps: int = 20", "steps: int = 50", "Options.steps is int = 50, not int = 20"),
        ("steps: int", "steps: str", "Options.steps is str = 20, not int = 20"),
        ("size: int = 1", "size: int = 2", "Options.check: Parameter default was changed"),
        ("size: int", "size: str", "Options.check(size) is str, not int"),
        (") -> bool", ") -> int", "Options.check() is int, not bool"),
        ("audio: Path | None = None", "audio: Path | None", "Parameter is now required"),
        ("audio: Path | None = None", "audio: Path = None", "run(audio) is Path, not Path | None"),
        ("    scale", "    seed: int\n    scale", "Options now requires seed"),
        ("video: Path", "video: Path, sound: Path", "Parameter was added as required"),
    ],
)
def test_it_would_be_seen(old: str, new: str, said: str) -> None:
    assert old in BEFORE
    found = breaks(_api(BEFORE), _api(BEFORE.replace(old, new)))
    assert any(said in line for line in found), found


def test_what_is_new_and_optional_breaks_nobody() -> None:
    after = BEFORE.replace("audio: Path | None = None", "audio: Path | None = None, loud: bool = False")
    after = after.replace("audio: Path | None", "audio: Path | bytes | None")
    after = after.replace("    scale", "    seed: int = 0\n    scale") + "\ndef more(a: int) -> int: ...\n"
    assert breaks(_api(BEFORE), _api(after)) == []
