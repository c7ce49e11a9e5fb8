"""Record inputs for INT8, and prove a bundle: python examples/04_calibrate_and_verify.py BUNDLE CLIP CALIB."""

import sys
from pathlib import Path

from lsx import Bundle, EngineOptions, SamplingOptions
from lsx.calibration.calibrate import CalibrationOptions, calibrate
from lsx.calibration.clips import ClipOptions
from lsx.verify.verify import VerifyOptions, verify

SAMPLING = SamplingOptions(steps=2, cache_interval=2)  # of both: those that will be run


def main(path: Path, clip: Path, output: Path) -> None:
    """Calibrate on faces of `clip`, then compare the bundle's engines with PyTorch on it."""
    bundle = Bundle.open(path)
    settings = CalibrationOptions(samples=2, clips=ClipOptions(min_seconds=1.0, max_seconds=2.0))
    calibration = calibrate(bundle, [clip], output, settings, options=SAMPLING)
    print(f"calibration: {len(calibration.entries('unet'))} samples of the U-Net")
    report = verify(bundle, VerifyOptions(clip=(clip, clip), max_chunks=2), options=SAMPLING, engine=EngineOptions())
    for row in report.graphs:
        print(f"{row.graph}.{row.output}: cosine {row.figures.cosine:.6f}")
    print("verified" if report.passed else f"failed: {report.failures[0]}; to blame: {report.failing_graph}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
