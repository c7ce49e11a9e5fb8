"""The graphs of a bundle, by name."""

from __future__ import annotations

__all__ = ["FACE_GRAPHS", "LOOP_GRAPHS", "MODEL_GRAPHS"]

FACE_GRAPHS = ("face_detector", "face_landmarks")


LOOP_GRAPHS = ("vae_encoder", "unet", "unet_shallow", "step", "vae_decoder")
"""The graphs that a chunk runs."""


MODEL_GRAPHS = ("audio_encoder", *LOOP_GRAPHS)
"""All but the face detector's."""
