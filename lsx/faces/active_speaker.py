"""The speaker: the face whose mouth opens as the sound says it should. Numbers alone.

Mouths open with some sounds more than with others, in every language alike. Which, is learnt from the footage itself: a
ridge regression from the sound's bands to how far the mouths are open, in which each frame is foretold by what other
frames taught. A mouth that goes with the sound follows what is foretold; one that moves by itself, or later, does not.
At first all mouths teach; then those that were found to speak, until nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lsx.core.sync_mel import SYNC_FRAMES
from lsx.faces.tracks import LONGEST_GAP

__all__ = ["Agreement", "Mouth", "active_tracks"]

_BLOCK = 50  # frames that are foretold together, by others
_FOLDS = 8
_RIDGE = 100.0  # of standardised bands, summed over frames
_ROUNDS = 8
_STILL = 0.2  # of a mouth's usual deviation, within `_MOMENT`: it does not speak
_MOMENT = 15  # frames
_SWITCH = 7.0  # evidence that must speak for another face, over all frames of its turn
_MOST = 1.0  # evidence of one frame
_AT_REST, _ABSENT = -0.4, -2.0  # evidence of a frame in which a mouth is still, or there is no face
_AGREES = 4.0  # evidence of a frame for each unit by which a face agrees more than the others
_LARGER = 1e-3  # for the track that comes first, where nothing is heard
_UNSURE, _SURE = 0.1, 0.9  # bounds of the correlation that is reckoned with


@dataclass(frozen=True, slots=True, eq=False)
class Mouth:
    """How far a track's mouth is open, frame by frame, at 25 a second."""

    start: int
    """The first frame."""
    openings: NDArray[np.float64]
    """[frames], NaN where the face was not seen."""

    @property
    def stop(self) -> int:
        """The frame after the last."""
        return self.start + len(self.openings)


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """How far a track's lips and the sound agree, as a network trained for that sees and hears it."""

    starts: tuple[int, ...]
    """First frames of the looks, 16 frames each, rising."""
    margins: tuple[float, ...]
    """Margin of each look: how much better lips and sound agree as they are than shifted."""

    def between(self, start: int, stop: int) -> NDArray[np.float64]:
        """The mean of the looks that have a frame, of frames start..stop: [stop - start], NaN where none has."""
        sums, counts = np.zeros(stop - start), np.zeros(stop - start)
        first, last = np.searchsorted(self.starts, [start - SYNC_FRAMES + 1, stop])
        for look, margin in zip(self.starts[first:last], self.margins[first:last], strict=True):
            seen = slice(max(look - start, 0), look - start + SYNC_FRAMES)
            sums[seen] += margin
            counts[seen] += 1
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def active_tracks(
    mouths: Mapping[int, Mouth],
    bands: NDArray[np.floating],
    speech: NDArray[np.bool_],
    cuts: Sequence[int],
    agreements: Mapping[int, Agreement] | None = None,
) -> NDArray[np.int64]:
    """The track that speaks in each frame, int64 [frames] at 25 a second; 0 where there is no track.

    A turn lasts 12 frames at least, or its shot. mouths : by track, none of them over a cut; where the sound says
    nothing of them the first is taken. bands : float [frames, n], how loud the sound is by frequency, in a logarithm.
    speech : [frames], whether anybody is heard. cuts : frames at which shots begin, rising. agreements : by track,
    where they are known: evidence beside that of the openings for whom agrees more than every other face then.
    """
    frames = len(speech)
    if not mouths:
        return np.zeros(frames, np.int64)
    tracks = [_Track(number, mouth, speech) for number, mouth in mouths.items()]
    heard = _standardised(np.asarray(bands, np.float64), speech)
    shots = _shots(tracks, agreements or {}, [0, *cuts, frames])
    usual = np.median([track.deviation for track in tracks if track.deviation > 0] or [1.0])
    for track in tracks:
        track.standardise(float(usual))
    spoken, chosen = [track.heard for track in tracks], np.zeros(frames, np.int64)
    for _ in range(_ROUNDS):
        foretold, correlation = _foretold(heard, tracks, spoken)
        before, chosen = chosen, np.zeros(frames, np.int64)
        for start, stop, there, agreed in shots:
            rows = np.stack([track.evidence(foretold, correlation, speech, start, stop) for track in there])
            rows += agreed * speech[start:stop]
            rows[0, 0] += _LARGER
            chosen[start:stop] = np.array([track.number for track in there])[_held(_likeliest(rows))]
        if np.array_equal(before, chosen):
            break
        spoken = [track.heard & (chosen[track.span] == track.number) for track in tracks]
    return chosen


class _Track:
    """A mouth in the numbers that are reckoned with."""

    def __init__(self, number: int, mouth: Mouth, speech: NDArray[np.bool_]) -> None:
        self.number, self.mouth = number, mouth
        self.span = slice(mouth.start, mouth.stop)
        seen = ~np.isnan(mouth.openings)
        self.heard: NDArray[np.bool_] = speech[self.span] & seen
        """Frames in which there is speech, and the face is seen."""
        self._seen = seen
        self._open = np.interp(np.arange(len(seen)), np.flatnonzero(seen), mouth.openings[seen])
        spoken = self._open[self.heard] if self.heard.any() else self._open
        self._mean = float(spoken.mean())
        self.deviation = float(spoken.std())
        self.opening = np.zeros(0)
        """How far it is open, in deviations from its mean: [frames]."""
        self._rests = np.zeros(0, bool)

    def standardise(self, usual: float) -> None:
        """usual : the deviation of the footage's mouths; what moves far less than that is noise."""
        self.opening = (self._open - self._mean) / max(self.deviation, usual / 2, 1e-9)
        moved = np.sqrt(np.maximum(_smooth(self.opening**2) - _smooth(self.opening) ** 2, 0))
        self._rests = moved < _STILL

    def evidence(
        self, foretold: NDArray[np.float64], correlation: float, speech: NDArray[np.bool_], start: int, stop: int
    ) -> NDArray[np.float64]:
        """Log of how much likelier its opening is if it speaks than if it moved by itself, by frame of a shot."""
        lost = 1 - correlation**2
        error = (self.opening - foretold[self.span]) ** 2 / lost
        likelier = np.clip((self.opening**2 - error - np.log(lost)) / 2, -_MOST, _MOST)
        own = np.where(self._seen, np.where(self._rests, _AT_REST, likelier), 0.0)
        whole = np.full(stop - start, _ABSENT)
        inside = slice(self.mouth.start - start, min(self.mouth.stop, stop) - start)
        whole[inside] = (own * speech[self.span])[: stop - self.mouth.start]
        return whole


def _shots(
    tracks: Sequence[_Track], agreements: Mapping[int, Agreement], bounds: Sequence[int]
) -> list[tuple[int, int, list[_Track], NDArray[np.float64]]]:
    """(start, stop, tracks, what their agreement says) of every shot in which there are tracks."""
    shots = []
    for start, stop in pairwise(bounds):
        there = [track for track in tracks if start <= track.mouth.start < stop]
        if there:
            shots.append((start, stop, there, _by_agreement([t.number for t in there], agreements, start, stop)))
    return shots


def _by_agreement(
    numbers: Sequence[int], agreements: Mapping[int, Agreement], start: int, stop: int
) -> NDArray[np.float64]:
    """Evidence [tracks, stop - start] of a shot's tracks: by how much each agrees more than the best of the others."""
    nothing = np.full(stop - start, np.nan)
    known = [agreements[number].between(start, stop) if number in agreements else nothing for number in numbers]
    agreed = np.where(np.isnan(known), -np.inf, known)
    best = agreed.argmax(0)
    ranked = np.sort(np.concatenate([agreed, np.full((1, stop - start), -np.inf)]), axis=0)
    others = np.where(best == np.arange(len(numbers))[:, None], ranked[-2], ranked[-1])
    with np.errstate(invalid="ignore"):
        lead = np.where(np.isfinite(agreed) & np.isfinite(others), agreed - others, 0.0)
    return np.asarray(np.clip(_AGREES * lead, -_MOST, _MOST))


def _standardised(bands: NDArray[np.float64], speech: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean 0 and deviation 1 where there is speech."""
    spoken = bands[speech] if speech.any() else bands
    return np.asarray((bands - spoken.mean(0)) / np.maximum(spoken.std(0), 1e-6))


def _foretold(
    heard: NDArray[np.float64], tracks: Sequence[_Track], spoken: Sequence[NDArray[np.bool_]]
) -> tuple[NDArray[np.float64], float]:
    """The opening that the sound foretells, [frames], and its correlation with the mouths that teach it.

    heard : [frames, bands]; spoken : of each track, its frames that teach.
    """
    frames, bands = heard.shape
    block = max(min(_BLOCK, frames // 2), 1)
    fold = np.arange(frames) // block % _FOLDS
    squares, products = np.zeros((_FOLDS, bands, bands)), np.zeros((_FOLDS, bands))
    taught = [
        (track.span.start + np.flatnonzero(own), track.opening[own]) for track, own in zip(tracks, spoken, strict=True)
    ]
    for at, opening in taught:
        for number in np.unique(fold[at]):
            mine = fold[at] == number
            rows = heard[at[mine]]
            squares[number] += rows.T @ rows
            products[number] += rows.T @ opening[mine]
    result = np.zeros(frames)
    for number in np.unique(fold):
        others = squares.sum(0) - squares[number] + _RIDGE * np.eye(bands)
        weights = np.linalg.solve(others, products.sum(0) - products[number])
        result[fold == number] = heard[fold == number] @ weights
    seen = np.concatenate([opening for _, opening in taught])
    said = np.concatenate([result[at] for at, _ in taught])
    if not len(seen):
        return result, _UNSURE
    deviation = float(said.std())
    spread = deviation * float(seen.std())
    correlation = float((seen * said).mean()) / spread if spread > 0 else 0.0
    correlation = min(max(correlation, _UNSURE), _SURE)
    return result * (correlation / max(deviation, 1e-9)), correlation


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over `_MOMENT` frames round each, fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - _MOMENT // 2, 0), np.minimum(at + _MOMENT // 2 + 1, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low))


def _likeliest(evidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """The row of each column on the way of most evidence, each change of rows costing `_SWITCH`: int64 [columns]."""
    rows, columns = evidence.shape
    came = np.zeros((columns, rows), np.int64)
    total = evidence[:, 0].copy()
    for column in range(1, columns):
        best = int(total.argmax())
        changed = total[best] - _SWITCH
        came[column] = np.where(total >= changed, np.arange(rows), best)
        total = np.maximum(total, changed) + evidence[:, column]
    way = np.zeros(columns, np.int64)
    way[-1] = total.argmax()
    for column in range(columns - 1, 0, -1):
        way[column - 1] = came[column, way[column]]
    return way


def _held(way: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same without turns of fewer than LONGEST_GAP frames: they are the turn before's, the first the next one's."""
    starts = [0, *(np.flatnonzero(np.diff(way)) + 1).tolist(), len(way)]
    held = way.copy()
    for start, stop in pairwise(starts):
        if stop - start < LONGEST_GAP and len(starts) > 2:
            held[start:stop] = held[start - 1] if start else way[stop]
    return held
