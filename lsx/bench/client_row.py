"""A row of the bench of several clients, as the report keeps it and the tables show it."""

from __future__ import annotations

from lsx.bundle.manifest import Entry

__all__ = ["HEAD", "ClientRow"]

HEAD = ("clients", "s", "frames/s", "against in turn", "first s", "chunk p50 s", "p95 s", "engines idle", "same bytes")


class ClientRow(Entry):
    """So many clients at once, each with the same clip, on engines that are loaded once."""

    clients: int
    rounds: int
    seconds: float
    """Seconds until all of them had their whole result, the median of the rounds."""
    frames_per_second: float
    """Frames of all of them together."""
    gain: float
    """Seconds of as many runs one after the other over `seconds`, formed round by round, the median."""
    gain_low: float
    gain_high: float
    """Its quartiles."""
    first_frame: float
    """Seconds to a client's first finished frame, the median."""
    chunk_p50: float
    chunk_p95: float
    """Seconds from one of a client's chunks to its next one, as that client sees it."""
    idle: float
    """Share of the time in which no engine of the loop ran: what host stages left of the GPU, or of the CPU's part."""
    same: bool
    """Whether each result is, byte for byte, that of a run alone."""

    @property
    def cells(self) -> tuple[str, ...]:
        """The columns of HEAD."""
        return (
            str(self.clients),
            f"{self.seconds:.2f}",
            f"{self.frames_per_second:.2f}",
            f"{self.gain:.2f}x ({self.gain_low:.2f} to {self.gain_high:.2f})",
            f"{self.first_frame:.2f}",
            f"{self.chunk_p50:.2f}",
            f"{self.chunk_p95:.2f}",
            f"{100 * self.idle:.1f} %",
            "yes" if self.same else "NO",
        )
