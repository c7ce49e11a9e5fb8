"""The graphs of a bundle, by name."""

from __future__ import annotations

__all__ = ["FACE_GRAPHS", "GRAPH_WORDS", "LOOP_GRAPHS", "MODEL_GRAPHS", "SYNC_GRAPHS"]

FACE_GRAPHS = ("face_detector", "face_landmarks")


SYNC_GRAPHS = ("syncnet_lips", "syncnet_sound")
"""Graphs of bundles that were exported with StableSyncNet's weights."""


LOOP_GRAPHS = ("vae_encoder", "unet", "unet_shallow", "step", "vae_decoder")
"""The graphs that a chunk runs."""


MODEL_GRAPHS = ("audio_encoder", *LOOP_GRAPHS)
"""All but those of faces and of StableSyncNet."""


GRAPH_WORDS = {
    "audio_encoder": "30 s of sound to features",
    "vae_encoder": "faces to latents",
    "unet": "a full denoising evaluation",
    "unet_shallow": "a shallow one, on kept features (DeepCache)",
    "step": "guidance and one sampler step",
    "vae_decoder": "latents to faces",
    "face_detector": "where a face is",
    "face_landmarks": "where its brows and nose are",
    "syncnet_lips": "16 faces to what they say (StableSyncNet)",
    "syncnet_sound": "their sound to what it says (StableSyncNet)",
}
"""What each graph does, in a few words."""
