"""Other names of flags: those of the original's scripts and of demoDiffusion, and lsx's own of the last release."""

from __future__ import annotations

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
        "--num-warmup-runs": "--warm-up",
        "--num_warmup_runs": "--warm-up",
        "--video_out_path": "--output",
        "--video-out-path": "--output",
    },
    "verify": _SAMPLING | _CHECKPOINT | {"--calls": "--max-chunks", "--stamp": "--record", "--no-stamp": "--no-record"},
    "bench": _SAMPLING | _CHECKPOINT,
    "calibrate": _SAMPLING | _CHECKPOINT | {"--calls": "--samples"},
}
"""By command; what is not lsx's own word is not in the help."""


def current_arguments(arguments: list[str]) -> list[str]:
    """`arguments` with every other name of a flag replaced by lsx's own, its value kept."""
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    known = _ALIASES.get(command, {})
    current: list[str] = []
    for number, argument in enumerate(arguments):
        if argument == "--":
            return current + arguments[number:]
        name, equals, value = argument.partition("=")
        current.append(known[name] + equals + value if name in known else argument)
    return current
