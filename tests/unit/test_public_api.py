"""The public API of the last version still holds: names and parameters may come, but not go."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.public_api import lines

ROOT = Path(__file__).parents[2]


def _parsed(text: list[str]) -> dict[str, list[str] | None]:
    found: dict[str, list[str] | None] = {}
    for line in text:
        match = re.fullmatch(r"([\w.]+)(?:\((.*)\))?", line)
        assert match, line
        found[match[1]] = None if match[2] is None else [p for p in match[2].split(", ") if p]
    return found


def breaks(old: list[str], new: list[str]) -> list[str]:
    """What callers of `old` would miss in `new`."""
    before, after = _parsed(old), _parsed(new)
    said = [f"{name} is gone" for name in before if name not in after]
    for name, parameters in before.items():
        now = after.get(name)
        if parameters is None or now is None:
            continue
        names = [parameter.rstrip("=") for parameter in now]
        said += [f"{name} lost {p}" for p in parameters if p.rstrip("=") not in names]
        said += [f"{name} now requires {p}" for p in now if not p.endswith("=") and p not in parameters and p[0] != "*"]
    return said


def test_nothing_public_has_gone() -> None:
    last = max((ROOT / "docs").glob("api-*.txt"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.stem)])
    assert breaks(last.read_text().splitlines(), lines()) == []


def test_it_would_be_seen() -> None:
    assert breaks(["f(a, b=)", "g"], ["f(b=, c)"]) == ["g is gone", "f lost a", "f now requires c"]
    assert breaks(["f(a=)"], ["f(a=, b=)", "h"]) == []
    assert breaks(["f(a=)"], ["f(a)"]) == ["f now requires a"]
