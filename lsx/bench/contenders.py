"""What a bench compares: bundles of one model in several precisions, and the backends that run all of them."""

from __future__ import annotations

from collections.abc import Sequence

from lsx.bench.options import BenchOptions
from lsx.bench.workloads import runnable_backends
from lsx.bundle.bundle import Bundle
from lsx.engines.registry import EngineOptions, backend_named
from lsx.errors import BackendUnavailable, UsageError

__all__ = ["chosen_backends", "chosen_bundles"]


def chosen_bundles(bundle: Bundle, settings: BenchOptions) -> tuple[Bundle, ...]:
    """The bundle, its fallback and those beside it, by the precisions asked for. Raises UsageError, BundleError."""
    own, fallback = bundle.manifest.precision, bundle.fallback()
    known: dict[str, Bundle] = {own: bundle}
    if fallback is not None:
        known[fallback.manifest.precision] = fallback
    default: list[str] = [own]
    for path in settings.beside:
        other = Bundle.open(path)
        precision = other.manifest.precision
        if other.manifest.model.checkpoint != bundle.manifest.model.checkpoint or other.model != bundle.model:
            raise UsageError(f"--beside {path} is of another checkpoint or size than {bundle.path}: nothing to compare")
        if precision in known:
            raise UsageError(f"--beside {path} is {precision}, and so is {known[precision].path}; give one of each")
        known[precision] = other
        default.append(precision)
    unknown = [name for name in settings.precisions if name not in known]
    if unknown:
        raise UsageError(
            f"{bundle.path} has no {unknown[0]}; there are {', '.join(known)}. Give a bundle of it: --beside DIR"
        )
    return tuple(known[name] for name in settings.precisions or default)


def chosen_backends(bundles: Sequence[Bundle], settings: BenchOptions) -> tuple[str, ...]:
    """The backends that run every bundle, of those asked for or of all that there are. Raises BackendUnavailable."""
    chosen = settings.backends or _shared_backends(bundles)
    for name in chosen:
        backend = backend_named(name)
        for bundle in bundles:
            backend.check(bundle, EngineOptions(provider=settings.provider))
            refused = backend.reason_unsupported(bundle)
            backend.refuse(bundle, [] if refused is None else [refused])
    return chosen


def _shared_backends(bundles: Sequence[Bundle]) -> tuple[str, ...]:
    first, *others = (runnable_backends(bundle) for bundle in bundles)
    shared = tuple(name for name in first if all(name in names for names in others))
    if not shared:
        which = "all of these bundles" if others else "this bundle"
        raise BackendUnavailable(f"no backend runs {which} here. See: lsx doctor")
    return shared
