"""The sounds of a run's plan, as the U-Net hears them."""

from __future__ import annotations

from lsx.core.footage import FootageOptions
from lsx.core.model_spec import ModelSpec
from lsx.engines.engine import Engine
from lsx.runtime.audio_features import AudioTokens
from lsx.runtime.run_plan import RunPlan

__all__ = ["voices_of"]


def voices_of(
    plan: RunPlan, encoder: Engine, model: ModelSpec, footage: FootageOptions, length: int
) -> list[AudioTokens]:
    """The tokens of each voice, at the times of the first `length` output frames."""
    clock = plan.timeline.shown(length)
    return [
        AudioTokens(
            encoder,
            voice.samples,
            model,
            context=footage.audio_context,
            speech=voice.speech if footage.silence == "close" else None,
            clock=clock,
            first=voice.part.start,
        )
        for voice in plan.voices
    ]
