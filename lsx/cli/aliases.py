"""Other names of flags: those of the original's scripts and of demoDiffusion, and lsx's own of the last release."""

from __future__ import annotations

from lsx.errors import UsageError

__all__ = ["current_arguments"]

_SAMPLING = {
    "--guidance-scale": "--guidance",
    "--guidance_scale": "--guidance",
    "--inference-steps": "--steps",
    "--inference_steps": "--steps",
    "--num-inference-steps": "--steps",
    "--num_inference_steps": "--steps",
    "--denoising-steps": "--steps",
    "--enable-deepcache": "--cache-interval=3",
    "--enable_deepcache": "--cache-interval=3",
}
_CHECKPOINT = {"--reference": "--checkpoint-dir"}
_ALIASES: dict[str, dict[str, str]] = {
    "run": _SAMPLING
    | _CHECKPOINT
    | {
        "--video_out_path": "--output",
        "--video-out-path": "--output",
    },
    "verify": _SAMPLING | _CHECKPOINT | {"--calls": "--max-chunks", "--stamp": "--record", "--no-stamp": "--no-record"},
    "prepare": _CHECKPOINT,
    "batch": _CHECKPOINT,
    "bench": _SAMPLING | _CHECKPOINT,
    "calibrate": _SAMPLING | _CHECKPOINT | {"--calls": "--samples"},
}
"""Other names by command; what is not lsx's own word is not in the help."""
_WARM_UP_RUNS = ("--num-warmup-runs", "--num_warmup_runs")
"""Names that take a number where lsx's own flag, --warm-up, takes none."""


def current_arguments(arguments: list[str]) -> list[str]:
    """`arguments` with every other name of a flag replaced by lsx's own, its value kept. Raises UsageError."""
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    known = _ALIASES.get(command, {})
    current: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            return [*current, argument, *rest]
        name, equals, value = argument.partition("=")
        if command == "run" and name in _WARM_UP_RUNS:
            current += _warm_up(name, value if equals else next(rest, ""))
            continue
        current.append(known[name] + equals + value if name in known else argument)
    return current


def _warm_up(name: str, count: str) -> list[str]:
    """What `name` with this number means in lsx's own words. Raises UsageError."""
    if not count.isdecimal():
        raise UsageError(f"{name} is {count or 'without a number'}; give a whole number from 0 on, or lsx's --warm-up")
    return ["--warm-up"] if int(count) else []
