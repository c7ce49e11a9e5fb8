"""Backends by name. The one place that picks a class; a backend is an entry point in the group `lsx.backends`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from lsx.core.keywords import named_alone
from lsx.engines.engine import Engine
from lsx.errors import BackendUnavailable, UsageError

if TYPE_CHECKING:
    from lsx.bundle.bundle import Bundle
    from lsx.bundle.manifest import FileEntry

__all__ = [
    "AUTO",
    "Backend",
    "EngineKeywords",
    "EngineOptions",
    "backend_named",
    "backend_names",
    "reasons_of",
]

AUTO = "auto"
"""Stands for the best backend that works."""
_GROUP = "lsx.backends"
_PREFERENCE = ("tensorrt", "tensorrt-rtx", "onnxruntime", "torch")


@named_alone
@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How engines are loaded; a backend takes what concerns it. Raises UsageError for a value out of its range.

    Examples
    --------
    >>> EngineOptions(threads=4).provider
    'cpu'
    """

    provider: str = "cpu"
    """onnxruntime's execution provider: `cpu` or `cuda`."""
    threads: int | None = None
    """Threads of a CPU engine; None for all cores."""
    checkpoint_dir: Path | str | None = None
    """Folder of the PyTorch checkpoint, for the torch backend; None for where the export found it."""
    trust_code: bool = False
    """Whether the bundle is trusted to carry code: version-compatible TensorRT plans do."""
    guidance_batch: int = 2
    """Length of axis `b` to load for first: 2 with guidance, 1 without. Either may be run."""
    float32: bool = False
    """Whether torch is to be a reference: float32 on a GPU too, where it else takes the bundle's precision."""

    def __post_init__(self) -> None:
        threads: object = self.threads
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 0):
            raise UsageError(f"threads is {threads!r}; give a whole number, or 0 or None for all cores")
        if self.checkpoint_dir is not None and not isinstance(self.checkpoint_dir, Path | str):
            raise UsageError(f"checkpoint_dir is {self.checkpoint_dir!r}; give a folder")
        if self.guidance_batch not in (1, 2):
            raise UsageError(f"guidance_batch is {self.guidance_batch!r}; give 2 with guidance, 1 without")


class EngineKeywords(TypedDict, total=False):
    """EngineOptions' fields as keywords."""

    provider: str
    threads: int | None
    checkpoint_dir: Path | str | None
    trust_code: bool
    guidance_batch: int
    float32: bool


class Backend(ABC):
    """A library that runs graphs."""

    name: str

    @abstractmethod
    def availability(self) -> tuple[bool, str]:
        """Whether it works on this machine, and its version or the reason why not. Never raises."""

    @abstractmethod
    def engine(self, bundle: Bundle, graph: str, options: EngineOptions) -> Engine:
        """Load a graph of a bundle. Raises BackendUnavailable or EngineError."""

    def reason_unsupported(self, bundle: Bundle) -> str | None:
        """Why it cannot run `bundle` on this machine, or None. Asked when a backend is to be chosen."""
        del bundle
        return None

    def missing(self, bundle: Bundle) -> list[str]:
        """All that it lacks here for `bundle`, each with its remedy: library, driver, plans. Never raises."""
        del bundle
        works, reason = self.availability()
        return [] if works else [reason]

    def check(self, bundle: Bundle, options: EngineOptions | None = None) -> None:
        """Refuse what could not be loaded, before any work. options : how engines are to be, where that is known.

        Raises BackendUnavailable with all that is missing.
        """
        del options
        self.refuse(bundle, self.missing(bundle))

    def refuse(self, bundle: Bundle, missing: Sequence[str]) -> None:
        """Raise BackendUnavailable where anything is missing that `bundle` needs."""
        if missing:
            raise BackendUnavailable(f"{self.name} does not run {bundle.path} here: {'; '.join(missing)}")

    def files(self, bundle: Bundle) -> list[FileEntry]:
        """The files of `bundle` that it loads on this machine. Raises StaleEngine where there are none that fit."""
        return [file for graph in bundle.manifest.graphs for file in bundle.files(graph)]

    def supports(self, graph: str) -> bool:
        """Whether it can run the graph `graph` at all."""
        del graph
        return True


def reasons_of(*looks: Callable[[], object]) -> list[str]:
    """Why things are not there: what each of `looks` raises BackendUnavailable with."""
    reasons = []
    for look in looks:
        try:
            look()
        except BackendUnavailable as error:
            reasons.append(str(error))
    return reasons


@cache
def _points() -> tuple[EntryPoint, ...]:
    """What installed packages register; looked up once, for which each of them is read."""
    return tuple(entry_points(group=_GROUP))


def backend_names() -> list[str]:
    """Names of all registered backends, best first."""
    names = {point.name for point in _points()}
    return sorted(names, key=lambda n: (_PREFERENCE.index(n) if n in _PREFERENCE else len(_PREFERENCE), n))


def backend_named(name: str) -> Backend:
    """The backend `name`. Raises UsageError naming the choices, BackendUnavailable when its library is absent."""
    for point in _points():
        if point.name == name:
            try:
                backend: Backend = point.load()()
            except ImportError as error:
                raise BackendUnavailable(
                    f"backend {name} needs {error.name}, which is not installed. See: lsx doctor"
                ) from error
            return backend
    raise UsageError(f"backend is {name}; choose one of {AUTO}, {', '.join(backend_names())}")
