"""Arguments and options that several commands take, with the same words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lsx.bundle.bundle import Bundle
from lsx.core.sampling import SamplingOptions
from lsx.core.speaker_rule import SPEAKERS
from lsx.errors import UsageError
from lsx.faces.avatar_folder import is_avatar
from lsx.media.regular_files import check_regular

__all__ = [
    "BackendName",
    "BundlePath",
    "CacheInterval",
    "CheckpointDir",
    "End",
    "Faces",
    "Fps",
    "Guidance",
    "Provider",
    "SamplerName",
    "Seed",
    "Speaker",
    "Start",
    "Steps",
    "Threads",
    "TrustCode",
    "check_checkpoint",
    "check_clip",
    "check_inputs",
    "names_of",
    "parse_interval",
    "sampling_keywords",
]

BundlePath = Annotated[Path, typer.Argument(help="Bundle made by lsx export.")]
CheckpointDir = Annotated[
    Path | None, typer.Option(help="Folder of the PyTorch checkpoint, default where the export found it.")
]
BackendName = Annotated[str, typer.Option(help="auto, tensorrt, tensorrt-rtx, onnxruntime or torch.")]
Provider = Annotated[str, typer.Option(help="onnxruntime's provider: cpu or cuda.")]
Threads = Annotated[int | None, typer.Option(help="Threads of the CPU provider.")]
Steps = Annotated[int | None, typer.Option(help="Denoising steps; default 20, or a student's own.")]
Guidance = Annotated[
    float | None,
    typer.Option(help="Guidance scale, default 1.5; 1 is off and halves the work, and is a student's own."),
]
Seed = Annotated[int, typer.Option(help="Seed of the noise.")]
CacheInterval = Annotated[
    str | None, typer.Option(help="DeepCache: a full U-Net every so many steps, default 3, or off.")
]
TrustCode = Annotated[bool, typer.Option("--trust-code", help="Load version-compatible plans, which carry code.")]
Start = Annotated[str, typer.Option(help="Where in the video to begin: seconds, or 1:02.5.")]
End = Annotated[str | None, typer.Option(help="Where in the video to end.")]
Fps = Annotated[
    str, typer.Option(help="Frames a second of the result: 25, another number, or source: the video's own.")
]
Speaker = Annotated[str, typer.Option(help=f"Whose mouth moves: {SPEAKERS}.")]
Faces = Annotated[
    Path | None, typer.Option(help="Faces that lsx faces found in the video: they are not looked for again.")
]
SamplerName = Annotated[
    str | None,
    typer.Option(help="ddim, the default; dpm++2m (DPM-Solver++ 2M) for fewer steps; ddim-trailing for very few."),
]


def check_checkpoint(bundle: Bundle, folder: Path | None) -> None:
    """Refuse a checkpoint that is not there or lacks a file, before PyTorch is imported. Raises CheckpointError."""
    from lsx.models.checkpoint_files import files_behind

    files_behind(bundle.path, folder or Path(bundle.manifest.model.source))


def check_inputs(video: Path, *sounds: Path | None) -> None:
    """Refuse a video, avatar or sound that is not there, before what reads it is imported. Raises MediaError."""
    for path in (video, *sounds):
        if path is not None and not is_avatar(path):
            check_regular(path)


def check_clip(clip: tuple[Path, Path] | None, truth: Path | None = None) -> None:
    """Refuse a video, a sound or a truth that cannot be read, before anything heavy is imported. Raises MediaError."""
    if clip is not None:
        from lsx.media.given import open_sound, open_video

        open_video(clip[0])
        open_sound(clip[1])
        if truth is not None:
            open_video(truth)


def parse_interval(text: str) -> int | None:
    """`off` or a whole number. Raises UsageError."""
    if text == "off":
        return None
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--cache-interval is {text}; give a whole number from 1 on (3 is usual), or off")
    return int(text)


def sampling_keywords(
    *,
    steps: int | None,
    guidance: float | None,
    cache_interval: str | None,
    seed: int = 0,
    sampler: str | None = None,
) -> dict[str, Any]:
    """What was chosen, as keywords of SamplingOptions, which it was held to. Raises UsageError."""
    given = {"steps": steps, "guidance": guidance, "seed": seed, "sampler": sampler}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if cache_interval is not None:
        chosen["cache_interval"] = parse_interval(cache_interval)
    SamplingOptions(**chosen)
    return chosen


def names_of(text: str | None) -> tuple[str, ...]:
    """The names in a list with commas."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())
