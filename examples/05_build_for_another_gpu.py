"""TensorRT-RTX plans for a GPU that is not here: python examples/05_build_for_another_gpu.py BUNDLE sm89."""

import sys

from lsx import Bundle
from lsx.engines.tensorrt.build_options import BuildOptions
from lsx.engines.tensorrt.building import build_plans


def main(path: str, target: str) -> None:
    """Build the small graphs' plans; leave `graphs` out for all of them."""
    bundle = Bundle.open(path)
    report = build_plans(
        bundle,
        "tensorrt-rtx",
        targets=(target,),
        graphs=("step", "unet_shallow"),
        options=BuildOptions(opt_level=2, guidance="both"),
        progress=lambda what, share: print(f"\r{what}: {100 * share:.0f} %   ", end="", file=sys.stderr),
    )
    for plan in (*report.built, *report.kept):
        print(f"{plan.file.path}: {plan.file.size / 2**20:.1f} MiB for {plan.target}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
