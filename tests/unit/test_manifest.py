"""manifest.json: what was written by lsx 0.1.0 is read, and is written under the same names."""

from __future__ import annotations

import json

from lsx.bundle.manifest import Manifest
from tests.unit.test_bundle import EMPTY

RECORD = {
    "backend": "onnxruntime", "lsx_version": "0.1.0", "created": "2026-01-01", "engine": "CPUExecutionProvider",
    "files": {}, "checkpoint": {}, "inputs": {}, "options": {"calls": "2"}, "thresholds": {}, "figures": {},
}  # fmt: skip
QUANTIZED = {"calibration": "0", "method": "percentile", "files": []}


def test_the_names_on_disk_stay() -> None:
    manifest = Manifest.model_validate(EMPTY | {"stamps": [RECORD], "quantisation": QUANTIZED})
    assert manifest.records[0].options == {"calls": "2"}
    assert manifest.quantization is not None
    written = json.loads(manifest.text())
    assert written["stamps"] == [RECORD]
    assert written["quantisation"] == QUANTIZED
    assert "records" not in written
    assert "quantization" not in written
    assert Manifest.model_validate(written) == manifest


def test_the_model_is_a_spec() -> None:
    spec = Manifest.model_validate(EMPTY).model.spec()
    assert (spec.version, spec.resolution, spec.latent, spec.tokens) == ("latentsync-1.5", 256, 32, 50)
