"""Backends at work: which one is chosen, what is said of those that are not, and engines that come all or none."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from lsx.bundle.bundle import Bundle
from lsx.engines import loading
from lsx.engines.engine import Engine
from lsx.engines.loading import best_backend, load_engine, load_engines
from lsx.engines.registry import Backend, EngineOptions
from lsx.errors import BackendUnavailable, EngineError, UsageError
from tests.unit.test_program import toy_engines

EARLIER = Path(__file__).parent / "earlier" / "bundle"


class Toy(Backend):
    """A backend of which a test says what it can; it loads toy engines, and counts those that are open."""

    name = "toy"

    def __init__(self, works: bool = True, unsupported: str | None = None, refused: str | None = None) -> None:
        self.works, self.unsupported, self.refused = works, unsupported, refused
        self.opened: list[Engine] = []
        self.options: list[EngineOptions] = []

    def availability(self) -> tuple[bool, str]:
        return self.works, "1.0" if self.works else "no driver"

    def reason_unsupported(self, bundle: Bundle) -> str | None:
        del bundle
        return self.unsupported

    def engine(self, bundle: Bundle, graph: str, options: EngineOptions) -> Engine:
        del bundle
        if graph == self.refused:
            raise EngineError(f"{graph}: refused")
        self.options.append(options)
        self.opened.append(toy_engines()[graph])
        return self.opened[-1]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Toy]:
    """The backends there are, best first; a test fills it."""
    backends: dict[str, Toy] = {}

    def named(name: str) -> Backend:
        if name not in backends:
            raise BackendUnavailable(f"{name} is not installed")
        return backends[name]

    monkeypatch.setattr(loading, "backend_names", lambda: ["tensorrt", "absent", "broken", "first", "second"])
    monkeypatch.setattr(loading, "backend_named", named)
    return backends


def test_auto_is_the_best_that_works(registered: dict[str, Toy]) -> None:
    """TensorRT works, but the bundle has no plans; one is not installed, one has no driver."""
    registered.update(tensorrt=Toy(), broken=Toy(works=False), first=Toy(), second=Toy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert best_backend(Bundle.open(EARLIER)) == "first"


def test_one_that_does_not_run_the_bundle_is_told_of(registered: dict[str, Toy]) -> None:
    registered.update(first=Toy(unsupported="it is fp8"), second=Toy())
    with pytest.warns(RuntimeWarning, match="first is not used: it is fp8"):
        assert best_backend(Bundle.open(EARLIER)) == "second"


def test_where_none_works_doctor_is_named(registered: dict[str, Toy]) -> None:
    registered.update(broken=Toy(works=False))
    with pytest.raises(BackendUnavailable, match="lsx doctor"):
        best_backend(Bundle.open(EARLIER))


def test_one_that_was_asked_for_is_taken_or_refused_with_its_reason(registered: dict[str, Toy]) -> None:
    registered.update(broken=Toy(works=False), first=Toy(), second=Toy())
    assert best_backend(Bundle.open(EARLIER), "second") == "second"
    with pytest.raises(BackendUnavailable, match=r"toy does not run .*: no driver"):
        best_backend(Bundle.open(EARLIER), "broken")


def test_options_and_keywords_are_one(registered: dict[str, Toy]) -> None:
    registered.update(first=Toy())
    load_engine(Bundle.open(EARLIER), "unet", "first", EngineOptions(threads=3, provider="cuda"), threads=2).close()
    assert registered["first"].options == [EngineOptions(threads=2, provider="cuda")]
    with pytest.raises(UsageError, match="did you mean threads"):
        load_engine(Bundle.open(EARLIER), "unet", "first", thread=2)  # type: ignore[call-arg]


def test_a_path_is_no_opened_bundle() -> None:
    with pytest.raises(UsageError, match=r"^bundle is 'bundle'; give an opened one: Bundle.open\(PATH\)$"):
        load_engine("bundle", "unet")  # type: ignore[arg-type]


def test_engines_come_all_or_none(registered: dict[str, Toy], monkeypatch: pytest.MonkeyPatch) -> None:
    toy = registered["first"] = Toy(refused="step")
    closed: list[str] = []
    for kind in {type(engine) for engine in toy_engines().values()}:
        monkeypatch.setattr(kind, "close", lambda self: closed.append(self.graph))
    with pytest.raises(EngineError, match="step: refused"):
        load_engines(Bundle.open(EARLIER), "first", ["unet", "vae_decoder", "step"])
    assert closed == ["vae_decoder", "unet"]
    toy.refused = None
    assert [*load_engines(Bundle.open(EARLIER), "first", ["unet", "step"])] == ["unet", "step"]
