"""What lsx 0.1.0 (9d4d468) wrote still opens: a bundle's manifest, a calibration's, a report of `lsx bench`.

The files in `earlier` were written by that version, of a random checkpoint at 64 px, with `lsx verify --steps 2`,
`lsx bench --sections graphs,call --graphs step --steps 1` and `lsx calibrate --calls 2 --steps 2`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lsx.bench.report import SCHEMA_VERSION, changes, read_report
from lsx.bundle.bundle import Bundle
from lsx.bundle.records import Coverage
from lsx.calibration.store import Calibration
from lsx.core.graph_names import FACE_GRAPHS, MODEL_GRAPHS

EARLIER = Path(__file__).parent / "earlier"


def _holds(old: Any, new: Any) -> bool:
    """Whether all that `old` says stands in `new`, which may say more."""
    if isinstance(old, dict):
        return all(name in new and _holds(value, new[name]) for name, value in old.items())
    if isinstance(old, list):
        return len(old) == len(new) and all(_holds(a, b) for a, b in zip(old, new, strict=True))
    return bool(old == new)


def test_a_bundle() -> None:
    bundle = Bundle.open(EARLIER / "bundle")
    assert (bundle.manifest.lsx_version, bundle.model.resolution) == ("0.1.0", 64)
    assert {*bundle.manifest.graphs} == {*MODEL_GRAPHS, *FACE_GRAPHS}
    (record,) = bundle.manifest.records
    coverage = Coverage.of(record, "fp32")
    assert coverage.frames == 16
    assert coverage.smoke_check is not None


def test_a_bundle_is_written_back_by_the_names_on_disk() -> None:
    before = json.loads((EARLIER / "bundle" / "manifest.json").read_text(encoding="utf-8"))
    after = json.loads(Bundle.open(EARLIER / "bundle").manifest.text())
    assert _holds(before, after)


def test_a_calibration() -> None:
    calibration = Calibration.open(EARLIER / "calibration")
    assert calibration.manifest.samples == 2
    assert [len(calibration.entries(graph)) for graph in ("unet", "unet_shallow", "vae_decoder")] == [2, 2, 2]


def test_a_report() -> None:
    content = json.loads((EARLIER / "bench" / "report.json").read_text(encoding="utf-8"))
    assert content["schema_version"] == 1
    report = read_report(EARLIER / "bench")
    assert report.schema_version == SCHEMA_VERSION
    assert {row.section for row in report.rows} == {"graphs", "chunk"}
    assert {change.change for change in changes(report, report)} == {0}
