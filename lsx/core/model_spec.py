"""The numbers of a model."""

from __future__ import annotations

from dataclasses import dataclass

from lsx.errors import UsageError

__all__ = ["LATENT_SCALE", "ModelSpec", "tokens_per_frame"]

LATENT_SCALE = 0.18215
"""Factor of the VAE's latents, as the U-Net takes them."""


def tokens_per_frame(window: tuple[int, int], states: int) -> int:
    """Audio tokens that one video frame sees: 2 feature rows a video frame over `window`, `states` each.

    Source: LatentSync's `audio_feat_length` [2, 2] gives rows 2i-4 .. 2i+5, 10 rows of 5 states.
    """
    return 2 * (window[0] + window[1] + 1) * states


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What of a LatentSync model the runtime has to know. Resolutions in pixels."""

    version: str
    """`latentsync-1.5`, `latentsync-1.6`, or a name of the user's own."""
    resolution: int
    """Edge of the square face, in pixels; a multiple of 64."""
    frames: int = 16
    """Video frames in one chunk."""
    video_fps: int = 25
    """Frames per second that the model was trained on."""
    sample_rate: int = 16000
    """Audio samples per second that the encoder takes, mono."""
    audio_window: tuple[int, int] = (2, 2)
    """Video frames before and after, whose audio a frame sees (`audio_feat_length`)."""
    audio_states: int = 5
    """Encoder states a feature row carries: convolution output and one a block."""
    audio_dim: int = 384
    """Width of one audio token."""
    max_frames: int = 24
    """Longest frame axis that the temporal positions allow."""

    def __post_init__(self) -> None:
        if self.resolution < 64 or self.resolution % 64:
            raise UsageError(f"resolution is {self.resolution}; it must be a positive multiple of 64")
        if not 1 <= self.frames <= self.max_frames:
            raise UsageError(f"num_frames is {self.frames}; it must be in 1..{self.max_frames}")
        if self.video_fps != 25 or self.sample_rate != 16000:
            raise UsageError(
                f"video_fps {self.video_fps} and audio_sample_rate {self.sample_rate} are not supported: "
                "every released LatentSync model takes 25 and 16000"
            )

    @property
    def latent(self) -> int:
        """Edge of the latents: resolution / 8."""
        return self.resolution // 8

    @property
    def tokens(self) -> int:
        """Audio tokens a frame (50 for the released models)."""
        return tokens_per_frame(self.audio_window, self.audio_states)

    @property
    def vae_frames(self) -> int:
        """Frames that the VAE takes at a time. It treats frames one by one, so this bounds memory and nothing else."""
        return self._frames_within(4 * 512**2)

    @property
    def host_vae_frames(self) -> int:
        """The same on a CPU: a frame of 256 px at a time takes a twelfth of the memory of 16, and less time."""
        return self._frames_within(256**2)

    def _frames_within(self, pixels: int) -> int:
        """The most frames that divide a chunk and have no more pixels in all; at least one."""
        most = max(pixels // self.resolution**2, 1)
        return max(n for n in range(1, self.frames + 1) if self.frames % n == 0 and n <= most)

    @property
    def samples_per_frame(self) -> int:
        """Audio samples a video frame (640)."""
        return self.sample_rate // self.video_fps
