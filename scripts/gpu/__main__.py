"""`make gpu`: every stage in turn, and the report.

python -m scripts.gpu [-o gpu-report] [--only 1,2,3] [--size small|full] [--resolutions 256,512]
python -m scripts.gpu --check     whether there is a GPU, by the standard library alone
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from scripts.gpu.driver import gpus
from scripts.gpu.stages import STAGES, run_stages


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 where every stage that could run went well."""
    parser = argparse.ArgumentParser(prog="make gpu", description="The first hour on a GPU.")
    parser.add_argument("-o", "--output", type=Path, default=Path("gpu-report"), help="folder of the report and logs")
    parser.add_argument("--only", default="", help="numbers of stages, such as 1,2,3")
    parser.add_argument("--size", choices=("small", "full"), default="full", help="of the models of stages 5 to 7")
    parser.add_argument("--resolutions", default="256,512", help="of the same")
    parser.add_argument("--check", action="store_true", help="only say whether there is a GPU")
    given = parser.parse_args(arguments)
    if given.check:
        return _check()
    numbers = {int(n) for n in given.only.split(",") if n}
    unknown = numbers - {stage.number for stage in STAGES}
    if unknown:
        parser.error(f"--only {given.only}: stages are 1 to {len(STAGES)}")
    chosen = [stage for stage in STAGES if not numbers or stage.number in numbers]
    outcomes = []
    for outcome in run_stages(chosen, given.output, ["--size", given.size, "--resolutions", given.resolutions]):
        outcomes.append(outcome)
        reason = f": {outcome.reason}" if outcome.reason else ""
        print(f"({outcome.stage}) {outcome.title}: {outcome.state}, {outcome.seconds:.0f} s{reason}", flush=True)
    from scripts.gpu.report import write_report

    page = write_report(given.output, outcomes, chosen)
    print(f"report: {page}\nPlease send it, with gpu-report.json and logs/ beside it, with your issue.")
    good = all(outcome.state in ("ok", "skipped") for outcome in outcomes) and len(outcomes) == len(chosen)
    return 0 if good else 1


def _check() -> int:
    try:
        found = gpus()
    except RuntimeError as error:
        print(
            f"(1) {STAGES[0].title}: failed: {error}. `make gpu` is for a machine with an NVIDIA GPU", file=sys.stderr
        )
        return 1
    print(f"GPU: {', '.join(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
