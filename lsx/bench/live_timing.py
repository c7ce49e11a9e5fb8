"""What a live talker took, as the report keeps it."""

from __future__ import annotations

from lsx.bundle.manifest import Entry

__all__ = ["LiveTiming"]


class LiveTiming(Entry):
    """Utterances of a chunk each, said at once, by an avatar of the clip; seconds."""

    utterances: int
    latency_p50: float
    latency_p95: float
    """The time from the sound being complete to the first spoken picture, in JPEG."""
    computing_p50: float
    computing_p95: float
    """The chunk's own tokens and engines in that."""
    overhead_p50: float
    overhead_p95: float
    """The rest, formed utterance by utterance."""
    late: int
    """Pictures that came over 40 ms after their time, all in all."""
    pictures: int

    @property
    def line(self) -> str:
        """All of it, for page and terminal."""
        return (
            f"live: {self.utterances} utterances, sound complete to first picture p50 {1e3 * self.latency_p50:.0f}, "
            f"p95 {1e3 * self.latency_p95:.0f} ms; of it the chunk's own computing p50 {1e3 * self.computing_p50:.0f}, "
            f"p95 {1e3 * self.computing_p95:.0f} ms, overhead p50 {1e3 * self.overhead_p50:.1f}, "
            f"p95 {1e3 * self.overhead_p95:.1f} ms; {self.late} of {self.pictures} pictures over 40 ms late"
        )
