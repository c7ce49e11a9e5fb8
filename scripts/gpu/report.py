"""gpu-report.json and gpu-report.html: one page that can be sent."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from lsx.reporting.html import document, table
from scripts.gpu.stages import Outcome, Stage

__all__ = ["write_report"]


def write_report(folder: Path, outcomes: Sequence[Outcome], chosen: Sequence[Stage]) -> Path:
    """Write both files; returns the page."""
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    done = {outcome.stage for outcome in outcomes}
    left = [stage for stage in chosen if stage.number not in done]
    content = {
        "schema_version": 1,
        "created": created,
        "stages": [asdict(outcome) for outcome in outcomes],
        "not_run": [stage.name for stage in left],
    }
    (folder / "gpu-report.json").write_text(json.dumps(content, indent=1, default=str) + "\n")
    path = folder / "gpu-report.html"
    path.write_text(document("lsx on a GPU", _parts(outcomes, left, created)), encoding="utf-8")
    return path


def _parts(outcomes: Sequence[Outcome], left: Sequence[Stage], created: str) -> Iterator[str]:
    yield f"<h1>lsx on a GPU</h1><p>{escape(created)}</p>"
    rows: list[tuple[object, ...]] = [(o.stage, o.title, o.state, f"{o.seconds:.0f} s", o.reason) for o in outcomes]
    yield table(
        ("stage", "what", "state", "time", "why"), [*rows, *((s.number, s.title, "not run", "", "") for s in left)]
    )
    for outcome in outcomes:
        yield f"<h2>{outcome.stage}. {escape(outcome.title)}</h2>"
        lines = ((row["check"], row["state"], f"{row['seconds']:.1f} s", _short(row["said"])) for row in outcome.checks)
        yield table(("check", "state", "time", "said"), lines, numbers=False)


def _short(said: Any) -> str:
    """What a check returned, for a table's cell."""
    if said is None:
        return ""
    if isinstance(said, dict):
        return "; ".join(f"{name}: {_number(value)}" for name, value in said.items() if not isinstance(value, list))
    return str(said)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
