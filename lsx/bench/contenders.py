"""What a bench compares: bundles of one model in several precisions, and the backends that run all of them."""

from __future__ import annotations

from collections.abc import Sequence

from lsx.bench.options import BenchOptions
from lsx.bench.workloads import runnable_backends
from lsx.bundle.bundle import Bundle
from lsx.engines.registry import EngineOptions, backend_named
from lsx.errors import BackendUnavailable, UsageError

__all__ = ["chosen_backends", "chosen_bundles", "label_of"]


def label_of(bundle: Bundle) -> str:
    """What tells a bundle from others of its model: its precision, and a student's steps."""
    student = bundle.manifest.student
    steps = "" if student is None else f", student of {student.steps} step{'s' * (student.steps > 1)}"
    return bundle.manifest.precision + steps


def chosen_bundles(bundle: Bundle, settings: BenchOptions) -> tuple[Bundle, ...]:
    """The bundle, its fallback and those beside it, by the precisions asked for; students are of their teacher's model.

    Raises UsageError, BundleError.
    """
    fallback = bundle.fallback()
    known: dict[str, Bundle] = {label_of(bundle): bundle}
    if fallback is not None:
        known[label_of(fallback)] = fallback
    default: list[Bundle] = [bundle]
    for path in settings.beside:
        other = Bundle.open(path)
        label = label_of(other)
        if not _are_comparable(bundle, other):
            raise UsageError(f"--beside {path} is of another checkpoint or size than {bundle.path}: nothing to compare")
        if label in known:
            raise UsageError(f"--beside {path} is {label}, and so is {known[label].path}; give one of each")
        known[label] = other
        default.append(other)
    chosen = [
        one for name in settings.precisions for one in known.values() if one.manifest.precision == name
    ] or default
    unknown = [name for name in settings.precisions if all(one.manifest.precision != name for one in known.values())]
    if unknown:
        raise UsageError(
            f"{bundle.path} has no {unknown[0]}; there are {', '.join(known)}. Give a bundle of it: --beside DIR"
        )
    students = [one for one in chosen if one.manifest.student is not None]
    if settings.sweep and students:
        raise UsageError(f"--sweep: {students[0].path} is a student, made for one setting; there is nothing to sweep")
    return tuple(chosen)


def _are_comparable(one: Bundle, other: Bundle) -> bool:
    """Whether two bundles are of one size, and of one checkpoint; or of one first teacher, where one is a student."""
    if one.model != other.model:
        return False
    if one.manifest.student is None and other.manifest.student is None:
        return one.manifest.model.checkpoint == other.manifest.model.checkpoint
    return _origin(one) == _origin(other)


def _origin(bundle: Bundle) -> str:
    """SHA-256 of the U-Net, or of that which a student was made of."""
    student = bundle.manifest.student
    return bundle.manifest.model.checkpoint["unet"] if student is None else student.teacher


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
