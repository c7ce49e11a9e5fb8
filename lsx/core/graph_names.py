"""The graphs of a bundle, by name."""

from __future__ import annotations

__all__ = ["FACE_GRAPHS", "GRAPH_WORDS", "LOOP_GRAPHS", "MODEL_GRAPHS"]

FACE_GRAPHS = ("face_detector", "face_landmarks")


LOOP_GRAPHS = ("vae_encoder", "unet", "unet_shallow", "step", "vae_decoder")
"""The graphs that a chunk runs."""


MODEL_GRAPHS = ("audio_encoder", *LOOP_GRAPHS)
"""All but the face detector's."""


GRAPH_WORDS = {
    "audio_encoder": "30 s of sound to features",
    "vae_encoder": "faces to latents",
    "unet": "a full denoising evaluation",
    "unet_shallow": "a shallow one, on kept features (DeepCache)",
    "step": "guidance and one sampler step",
    "vae_decoder": "latents to faces",
    "face_detector": "where a face is",
    "face_landmarks": "where its brows and nose are",
}
"""What each graph does, in a few words."""
