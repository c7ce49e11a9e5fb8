"""Backends at work: choosing one, loading a graph or all of them, and what records say of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

from lsx.bundle.bundle import Bundle
from lsx.bundle.records import Coverage
from lsx.core.keywords import options_of
from lsx.core.sampling import SamplingOptions
from lsx.engines.engine import Engine
from lsx.engines.registry import AUTO, Backend, EngineKeywords, EngineOptions, backend_named, backend_names
from lsx.errors import BackendUnavailable, NotVerified, UsageError

if TYPE_CHECKING:
    from lsx.bundle.manifest import VerificationRecord

__all__ = [
    "AUTO",
    "best_backend",
    "check_record",
    "load_engine",
    "load_engines",
    "loaded_files",
    "opened_engines",
    "records_of",
]


def loaded_files(bundle: Bundle, backend: str) -> dict[str, str]:
    """SHA-256 by path of everything that `backend` may load of `bundle` here, its fallback's files among them."""
    return bundle.hashes(backend_named(backend).files)


def records_of(bundle: Bundle, backend: str) -> list[tuple[VerificationRecord, Coverage]]:
    """The records of `lsx verify` for what `backend` loads here, newest first; none whose files have changed since."""
    loaded = loaded_files(bundle, backend)
    valid = []
    for record in reversed(bundle.manifest.records):
        same_model = all(record.checkpoint.get(name) == h for name, h in bundle.manifest.model.checkpoint.items())
        if record.backend == backend and same_model and loaded.items() <= record.files.items():
            valid.append((record, Coverage.of(record, bundle.manifest.precision)))
    return valid


def check_record(
    bundle: Bundle, backend: str, *, required: bool, provider: str = "cpu", options: SamplingOptions | None = None
) -> None:
    """Look whether a record covers what is to be run; options : None for any settings at all.

    Raises NotVerified where one is required and none does, with the command that makes it. Else warns, of TensorRT
    plans and quantized graphs: an ONNX graph that is not quantized was checked when it was exported.
    """
    quantized = any(entry.coverage is not None for entry in bundle.manifest.graphs.values())
    if backend == "torch" or not (required or quantized or backend.startswith("tensorrt")):
        return
    reason = _uncovered([coverage for _, coverage in records_of(bundle, backend)], provider, options)
    if reason is None:
        return
    command = f"lsx verify {bundle.path} --backend {backend} --checkpoint-dir CHECKPOINT --clip VIDEO AUDIO"
    message = f"{bundle.path} is not verified on {backend}: {reason}. Verify it: {command}{_flags(provider, options)}"
    if required:
        raise NotVerified(message)
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def _uncovered(records: list[Coverage], provider: str, options: SamplingOptions | None) -> str | None:
    """Why no record, newest first, covers these settings, told of the one that comes closest; None where one does."""
    if not records:
        return "there is no record of it, or the bundle has changed since"
    full = [coverage for coverage in records if coverage.smoke_check is None and coverage.runs_on(provider)]
    if not full:
        smoke = records[0].smoke_check
        if smoke is None:
            return f"its record is another's (it was on {records[0].engine})"
        return f"its record is of a smoke check ({smoke})"
    if options is None:
        return None
    differences = [coverage.differs(options, provider) for coverage in full]
    return None if None in differences else min((text for text in differences if text is not None), key=len)


def _flags(provider: str, options: SamplingOptions | None) -> str:
    """The options of `lsx verify` that these settings need."""
    flags = "" if provider == "cpu" else f" --provider {provider}"
    if options is not None:
        interval = "off" if options.cache_interval is None else options.cache_interval
        flags += f" --steps {options.steps} --guidance {options.guidance:g} --cache-interval {interval}"
        flags += f" --sampler {options.sampler}"
    return flags


def best_backend(bundle: Bundle, name: str = AUTO, engine: EngineOptions | None = None) -> str:
    """`name`, or for `auto` the best backend that works here and has what it needs in the bundle.

    engine : how its engines are to be loaded; what that lacks is refused, too. Raises UsageError, BackendUnavailable
    with all that is missing, CheckpointError.
    """
    chosen = _best_of(bundle) if name == AUTO else name
    backend_named(chosen).check(bundle, engine)
    return chosen


def _best_of(bundle: Bundle) -> str:
    for candidate, backend in _available_backends(bundle):
        reason = backend.reason_unsupported(bundle)
        if reason is None:
            return candidate
        warnings.warn(f"{candidate} is not used: {reason}", RuntimeWarning, stacklevel=4)
    raise BackendUnavailable("no backend works on this machine. See: lsx doctor")


def _available_backends(bundle: Bundle) -> Iterator[tuple[str, Backend]]:
    """The backends that work here, best first; TensorRT's only where the bundle has plans of theirs."""
    planned = {plan.backend for plan in bundle.manifest.plans}
    for name in backend_names():
        if name.startswith("tensorrt") and name not in planned:
            continue
        try:
            backend = backend_named(name)
        except BackendUnavailable:
            continue
        if backend.availability()[0]:
            yield name, backend


def load_engine(
    bundle: Bundle,
    graph: str,
    backend: str = "onnxruntime",
    options: EngineOptions | None = None,
    **keywords: Unpack[EngineKeywords],
) -> Engine:
    """Load `graph` of a bundle on `backend`, its files hashed first.

    Parameters
    ----------
    bundle : an opened Bundle.
    graph : one of its graphs, as `unet`; `lsx inspect BUNDLE` lists them.
    backend : `onnxruntime`, `tensorrt`, `tensorrt-rtx` or `torch`.
    options, keywords : how, as EngineOptions, by its fields, or both, where a keyword goes first.

    Raises UsageError, IntegrityError, BackendUnavailable, EngineError.

    Examples
    --------
    >>> from lsx import Bundle, load_engine
    >>> with load_engine(Bundle.open(BUNDLE), "vae_decoder", threads=1) as engine:
    ...     [spec.name for spec in engine.inputs.values()]
    ['latents', 'faces']
    """
    if not isinstance(bundle, Bundle):
        raise UsageError(f"bundle is {bundle!r}; give an opened one: Bundle.open(PATH)")
    chosen = options_of(EngineOptions, options, keywords, "options")
    if bundle.manifest.student is not None:  # it has no guidance: no session or plan of two halves is ever needed
        chosen = replace(chosen, guidance_batch=bundle.sampling.guidance_batch)
    return backend_named(backend).engine(bundle, graph, chosen)


def load_engines(
    bundle: Bundle, backend: str, graphs: Iterable[str], options: EngineOptions | None = None
) -> dict[str, Engine]:
    """The engines of `graphs`, all or none; what `backend` does not support is ONNX Runtime's. The caller closes them.

    Raises IntegrityError, BackendUnavailable, EngineError.
    """
    supported = backend_named(backend)
    with ExitStack() as opened:
        engines = {
            graph: opened.enter_context(
                load_engine(bundle, graph, backend if supported.supports(graph) else "onnxruntime", options)
            )
            for graph in graphs
        }
        opened.pop_all()
    return engines


@contextmanager
def opened_engines(
    bundle: Bundle, backend: str, graphs: Iterable[str], options: EngineOptions | None = None
) -> Iterator[dict[str, Engine]]:
    """`load_engines`, closed in the end."""
    engines = load_engines(bundle, backend, graphs, options)
    with ExitStack() as stack:
        for engine in engines.values():
            stack.enter_context(engine)
        yield engines
