"""How lsx-tiny was trained and how well its lips move, written beside its weights: training.json and the card."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["curves", "write_card", "write_student_card"]

_POINTS = 40

_CARD = """---
license: apache-2.0
tags: [lip-sync, latentsync, test-model]
---
# lsx-tiny

A LatentSync of {unet:.1f} million parameters at 128 px, with a VAE of {vae:.1f} million and a StableSyncNet of
{syncnet:.1f} million, that moves the lips of drawn faces. It is a test model: every speed option of lsx can be held to
visible lips with it, without real weights. It knows drawn faces only; on photographs it makes nothing of use.

- Data: {clips} clips that `examples/tiny` draws and speaks itself (faces by seed, a formant synthesiser); no picture,
  no sound and no weights came from elsewhere. Seeds from 1,000,000 on were never trained on.
- Training: `make tiny`, which is `lsx train` for both stages and for SyncNet; on two cores
  {minutes:.0f} minutes: {parts}.
  Steps: {steps}. Losses over the steps: `training.json`.
- SyncNet: of faces and sound that it never saw, {accuracy:.0f} % of pairs are told right at a cosine of 0.5.
- Audio encoder: Whisper tiny's architecture with random weights of seed 0, made on the spot, not stored.
- Files: float16, in the released names and keys.

{lips}"""

_LIPS = """## Lips on {identities} faces and voices that it never saw

{options}; the whole path with detection, against what the generator draws for the voice.

| | mean | at worst |
|---|---|---|
| correlation of the mouth's opening with the truth | {correlation:.3f} | {worst_correlation:.3f} |
| the same with the truth of another voice | {wrong_sound:.3f} | |
| lag, frames | | {lag:.0f} |
| PSNR of the mouth's region, dB | {psnr:.2f} | {worst_psnr:.2f} |
| closed in a voice's pauses, share of frames | {closed_in_silence:.3f} | |
| difference from the video beyond the aligned face, levels | | {outside:.0f} |
| closed where all is silence, share of frames | {shut:.3f} | |

Weights: Apache-2.0, like the rest of this repository.
"""

_STUDENT_CARD = """---
license: apache-2.0
tags: [lip-sync, latentsync, test-model]
---
# The student of lsx-tiny that makes do with {steps} steps and no guidance

`difference.safetensors` is how its U-Net differs from the teacher's (`../model`), in 8 bits;
`examples.tiny.student.student_checkpoint` puts it together. `sampling.json` says how it is sampled.

- Training: `make distill-tiny`, which is `lsx distill` over the clips that lsx-tiny was trained on; on two cores
  {minutes:.0f} minutes for the students of {students} steps. Stages and their losses: `training.json`.

{lips}"""


def curves(log: Path) -> dict[str, Any]:
    """Steps and thinned losses of a training's TensorBoard folder."""
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    events = EventAccumulator(str(log), size_guidance={"scalars": 0})
    events.Reload()
    found: dict[str, Any] = {}
    for tag in events.Tags()["scalars"]:
        if not tag.startswith("loss/"):
            continue
        points = events.Scalars(tag)
        # each point is the mean of the steps up to it: single steps draw their own noise level, and jump
        parts = np.array_split(np.array([(p.step, p.value) for p in points]), min(_POINTS, len(points)))
        found[tag] = [[int(part[-1, 0]), round(float(part[:, 1].mean()), 5)] for part in parts]
        found["steps"] = points[-1].step
    return found


def write_card(folder: Path, model: Path, parameters: dict[str, float], acceptance: dict[str, Any]) -> None:
    """Write training.json and README.md into `model`, of the trainings in `folder`.

    parameters : millions of `unet`, `vae` and `syncnet`; acceptance : what `examples.tiny.acceptance --report` wrote.
    """
    stages = {name: curves(folder / name / "log") for name in ("stage1", "stage2", "syncnet")}
    vae = json.loads((folder / "vae.json").read_text(encoding="utf-8"))
    seconds = json.loads((folder / "seconds.json").read_text(encoding="utf-8"))
    (evaluation,) = (folder / "syncnet" / "validation").glob("*/evaluation.json")
    told = json.loads(evaluation.read_text(encoding="utf-8"))
    report = {"machine": platform.machine(), "seconds": seconds, "vae": vae} | stages
    report |= {"pairs": told, "acceptance": acceptance}
    _write_report(model, report)
    text = _CARD.format(
        **parameters,
        clips=vae["clips"],
        accuracy=100 * told["accuracy"],
        minutes=sum(seconds.values()) / 60,
        parts=", ".join(f"{part} {took / 60:.0f}" for part, took in seconds.items()),
        steps=", ".join(f"{name} {stage['steps']:,}" for name, stage in ({"vae": vae} | stages).items()),
        lips=_lips(acceptance),
    )
    (model / "README.md").write_text(text, encoding="utf-8")


def write_student_card(folder: Path, student: Path, steps: int, acceptance: dict[str, Any]) -> None:
    """Write training.json and README.md into `student`, of the distillation in `folder`.

    steps : of the student; acceptance : as in `write_card`.
    """
    stages = {path.name: curves(path / "log") for path in sorted((folder / "students" / "stages").iterdir())}
    seconds = json.loads((folder / "seconds.json").read_text(encoding="utf-8"))
    _write_report(student, {"machine": platform.machine(), "seconds": seconds} | stages | {"acceptance": acceptance})
    made = sorted((int(name.split("-")[0]) for name in stages if name != "guidance"), reverse=True)
    text = _STUDENT_CARD.format(
        steps=steps,
        minutes=seconds["distillation"] / 60,
        students=", ".join(str(number) for number in made),
        lips=_lips(acceptance),
    )
    (student / "README.md").write_text(text, encoding="utf-8")


def _write_report(folder: Path, report: dict[str, Any]) -> None:
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in report.items())
    (folder / "training.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def _lips(acceptance: dict[str, Any]) -> str:
    chosen = acceptance["options"]
    cache = chosen["cache_interval"] or "off"
    return _LIPS.format(
        identities=len(acceptance["clips"]),
        options=f"{chosen['steps']} steps, guidance {chosen['guidance']:g}, DeepCache {cache}",
        **{name.replace(" ", "_"): value for name, value in acceptance["summary"].items()},
    )
