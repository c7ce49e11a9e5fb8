"""The place of a live avatar in its loop: what is shown, what is planned, how it waits for what is being computed."""

from __future__ import annotations

from lsx.core.clock import FPS

__all__ = ["FADE", "Playhead"]

FADE = 3
"""Frames over which the avatar's own mouth leads over to a made one, and back."""


class Playhead:
    """Positions in an avatar's endless loop, from 0 on. Of one talker, under its lock."""

    def __init__(self) -> None:
        self.shown = -1
        """The position of the frame that was shown last."""
        self.planned: int | None = None
        """The position after all that is said, while that is not shown."""
        self._waiting_at: int | None = None  # the position at which the next spoken frame will be
        self._waited = 0  # idle frames since
        self._fading = 0

    def begin(self) -> tuple[int, bool]:
        """The position at which an utterance that comes now begins, and whether nothing else is being said."""
        if self.planned is not None:
            return self.planned, False
        self.planned = self._waiting_at = self.shown + 1
        self._waited = 0
        return self.planned, True

    def plan(self, end: int) -> None:
        """Something will be said until before `end`."""
        self.planned = end

    def clear(self) -> None:
        """Nothing is planned any more."""
        self.planned = self._waiting_at = None

    def speak(self, position: int, last: bool) -> None:
        """A spoken frame is shown. last : whether it is its utterance's last."""
        self.shown, self._fading = position, FADE
        if last and position + 1 == self.planned:
            self.clear()
        elif self.planned is not None:  # else it was given up just now, and there is nothing to wait for
            self._waiting_at, self._waited = position + 1, 0

    def fade(self, position: int) -> float | None:
        """Show a frame of what was given up: how much of its mouth is left, or None where it does not follow on."""
        if not self._fading or position != self.shown + 1:
            return None
        share = self._fading / (FADE + 1)
        self._fading -= 1
        self.shown = position
        return share

    def idle(self, computing: float) -> int:
        """Show an idle frame: its position. Where speech is about to come, out and back to where that begins.

        computing : seconds that a chunk takes, in which there should be one way out and back.
        """
        self._fading = 0
        if self._waiting_at is None:
            self.shown += 1
        else:
            half = max(round(computing * FPS / 2), 1)
            place = self._waited % (2 * half)
            self.shown = self._waiting_at + min(place, 2 * half - place)
            self._waited += 1
        return self.shown
