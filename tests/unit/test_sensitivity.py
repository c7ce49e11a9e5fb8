"""How many layers the search keeps in fp16, on a network whose layers' errors are known and add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from lsx.errors import AccuracyError
from lsx.quantization.sensitivity import LayerError, Search, SearchOptions

ERRORS = {f"layer{i}": 0.004 * 0.5**i for i in range(20)}  # 0.008 in all, the first half of it in one layer
ONE = 1 / len(ERRORS)  # share of the FLOPs that each has


class KnownErrors(Search):
    """A search without a network: one less the sum of what is quantized is the cosine."""

    def __init__(self, options: SearchOptions) -> None:
        self._options, self._precision, self._total = options, "int8", 1.0
        self.flops = dict.fromkeys(ERRORS, ONE)
        self._feeds = [None] * 3  # type: ignore[list-item]
        self._target = type("Named", (), {"name": "unet"})()

    def _cosines(self, feeds: Sequence[int], kept: Mapping[str, str], label: str) -> list[float]:
        del label
        return [1 - sum(e for name, e in ERRORS.items() if name not in kept) for _ in feeds]

    def found(self) -> tuple[int, float]:
        errors = [LayerError(name=name, error=error, measured=True) for name, error in ERRORS.items()]
        kept, cosine = self._greedy(errors, {}, self._cosines(range(3), {}, ""))
        assert set(kept) == {*list(ERRORS)[: len(kept)]}  # the worst ones
        return len(kept), cosine


@pytest.mark.parametrize(
    ("least", "aimed", "kept", "cosine"),
    [
        (0.99, 0.99, 0, 0.992),  # held with every layer quantized
        (0.995, 0.995, 1, 0.996),
        (0.99, 0.995, 1, 0.996),  # aimed at, and reached within the coverage
        (0.995, 0.9999, 3, 0.999),  # out of reach: as near as the coverage allows
    ],
)
def test_layers_that_are_kept(least: float, aimed: float, kept: int, cosine: float) -> None:
    search = KnownErrors(SearchOptions(min_cosine=least, aimed_cosine=aimed, min_coverage=0.849))
    count, reached = search.found()
    assert count == kept
    assert reached == pytest.approx(cosine, abs=1e-5)


def test_a_target_that_the_coverage_does_not_allow() -> None:
    search = KnownErrors(SearchOptions(min_cosine=0.9995, aimed_cosine=0.9999, min_coverage=0.849))
    with pytest.raises(AccuracyError, match=r"cosine 0.99900 with 85.0 % of the FLOPs quantized; 0.9995 is wanted"):
        search.found()
