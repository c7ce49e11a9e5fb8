"""The two TensorRTs. All that differs between them, and between their versions, stands in this file.

`tensorrt` builds on the GPU that a plan will run on. `tensorrt-rtx` also builds ahead of time, on a machine without a
GPU, for one compute capability or for all that it supports. Neither is imported before it is asked for.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lsx.engines.gpu_info import first_gpu
from lsx.engines.registry import reasons_of
from lsx.errors import BackendUnavailable, UsageError

if TYPE_CHECKING:
    import tensorrt_rtx_bindings as trt

__all__ = [
    "CURRENT",
    "LIBRARIES",
    "PORTABLE",
    "DataCentre",
    "Library",
    "Rtx",
    "has_fp8",
    "libraries_that_build",
    "library_named",
    "sm_of",
]

PORTABLE = "portable"
"""TensorRT-RTX's own default target: compute capabilities 8.0, 8.6, 8.9, and 12.0 and later."""

CURRENT = "current"
"""TensorRT-RTX's target for the GPU at hand, listed or not; recorded as `current-sm90`."""


def sm_of(capability: tuple[int, int]) -> str:
    """`sm89` of (8, 9)."""
    return f"sm{capability[0]}{capability[1]}"


class Library(ABC):
    """One of the two libraries."""

    backend: str
    """Name of the backend."""
    modules: tuple[str, ...]
    """Names to import it by, the first that is there."""
    extra: str
    """lsx's extra that brings it."""
    minimum: tuple[int, int]
    """Oldest version that lsx knows, major and minor."""
    default_targets: tuple[str, ...] = ()
    """What is built where no target is named; empty for the GPU at hand."""
    fp8_targets: tuple[str, ...] = ()
    """The same for a bundle with FP8 graphs."""
    builds_on_gpu: bool
    """Whether it builds where there is a GPU alone."""
    user_allocation: bool
    """Whether plans must be told that activation memory comes from the user, to be captured into CUDA graphs."""
    refused: tuple[tuple[int, int], ...] = ()
    """Compute capabilities for which it builds plans and then does not load them."""

    def module(self) -> Any:
        """The imported library. Raises BackendUnavailable naming the extra, or the version that is too old."""
        return _imported(self.backend, self.modules, self.extra, self.minimum)

    @property
    def version(self) -> str:
        """The library's version."""
        return str(self.module().__version__)

    def network_flags(self) -> int:
        """Flags of create_network: strongly typed, which TensorRT 10 has to be asked for and later ones always are."""
        if TYPE_CHECKING:
            import tensorrt_rtx_bindings as trt
        else:
            trt = self.module()
        asked = _version(self.version)[0] == 10
        return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if asked else 0

    def check_builds_here(self) -> None:
        """Raise BackendUnavailable, with all that is missing, where the library cannot build."""
        reasons = reasons_of(self.module, first_gpu) if self.builds_on_gpu else reasons_of(self.module)
        if reasons:
            raise BackendUnavailable(f"{self.backend} does not build here: {'; '.join(reasons)}")

    @abstractmethod
    def targets(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """The targets to build for: `wanted`, or this machine's default. Raises UsageError, BackendUnavailable."""

    @abstractmethod
    def configure_target(self, config: trt.IBuilderConfig, target: str) -> None:
        """Configure a build for `target`."""

    @abstractmethod
    def bound(self, target: str) -> bool:
        """Whether a plan for `target` is made on, and for, the GPU at hand."""

    @abstractmethod
    def fits(self, target: str, capability: tuple[int, int], *, hardware_compatible: bool) -> bool:
        """Whether a plan for `target` runs on a GPU of `capability`."""


class DataCentre(Library):
    """TensorRT. A plan is for the GPU that it was built on."""

    backend = "tensorrt"
    modules = ("tensorrt",)
    extra = "tensorrt"
    minimum = (10, 14)  # before, its parser has no Attention
    builds_on_gpu = True
    user_allocation = False

    def targets(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        here = sm_of(first_gpu().capability)
        for target in wanted:
            if target != here:
                raise UsageError(
                    f"--target {target}: tensorrt builds for the GPU at hand, {here}. Build on that GPU, or with "
                    "--backend tensorrt-rtx"
                )
        return (here,)

    def configure_target(self, config: trt.IBuilderConfig, target: str) -> None:
        del config, target

    def bound(self, target: str) -> bool:
        del target
        return True

    def fits(self, target: str, capability: tuple[int, int], *, hardware_compatible: bool) -> bool:
        return target == sm_of(capability) or (hardware_compatible and capability >= (8, 0))


def has_fp8(target: str) -> bool:
    """Whether every GPU that `target` means computes in FP8: from SM 8.9 on."""
    number = re.search(r"sm(\d+)(\d)$", target)
    return number is not None and (int(number[1]), int(number[2])) >= (8, 9)


class Rtx(Library):
    """TensorRT for RTX. Plans are compiled to the end on the GPU, when first run there."""

    backend = "tensorrt-rtx"
    modules = ("tensorrt_rtx", "tensorrt_rtx_bindings")
    extra = "rtx"
    minimum = (1, 7)
    default_targets = (PORTABLE,)
    fp8_targets = ("sm89", "sm120")
    builds_on_gpu = False
    user_allocation = True
    refused = ((9, 0),)  # 1.7.1 on an H200: "does not support this compute capability", once all plans are built

    def _capabilities(self) -> dict[str, Any]:
        members = self.module().ComputeCapability.__members__
        return {name.lower(): value for name, value in members.items() if re.fullmatch(r"SM\d+", name)}

    def targets(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        known = [PORTABLE, CURRENT, *self._capabilities()]
        for target in wanted:
            if target not in known:
                elsewhere = "; for another GPU build on it, with --backend tensorrt" if target.startswith("sm") else ""
                raise UsageError(f"--target {target}: tensorrt-rtx knows {', '.join(known)}{elsewhere}")
        here = {CURRENT: f"{CURRENT}-{self._capability_at_hand()}"} if CURRENT in wanted else {}
        return tuple(here.get(target, target) for target in wanted) or self.default_targets

    def _capability_at_hand(self) -> str:
        gpu = first_gpu()
        if gpu.capability in self.refused:
            raise BackendUnavailable(
                f"--target {CURRENT}: tensorrt-rtx does not run on {gpu.name} (compute capability "
                f"{gpu.capability[0]}.{gpu.capability[1]}). Build with --backend tensorrt"
            )
        return sm_of(gpu.capability)

    def configure_target(self, config: trt.IBuilderConfig, target: str) -> None:
        if target == PORTABLE:
            return
        config.num_compute_capabilities = 1
        if target.startswith(CURRENT):
            config.set_compute_capability(self.module().ComputeCapability.CURRENT, 0)
        else:
            config.set_compute_capability(self._capabilities()[target], 0)

    def bound(self, target: str) -> bool:
        return target.startswith(CURRENT)

    def fits(self, target: str, capability: tuple[int, int], *, hardware_compatible: bool) -> bool:
        del hardware_compatible
        if target == PORTABLE:
            return capability in ((8, 0), (8, 6), (8, 9)) or capability >= (12, 0)
        return target.removeprefix(f"{CURRENT}-") == sm_of(capability) and capability not in self.refused


LIBRARIES: dict[str, Library] = {library.backend: library for library in (DataCentre(), Rtx())}


def library_named(backend: str) -> Library:
    """The library of a backend. Raises UsageError naming the choices."""
    if backend not in LIBRARIES:
        raise UsageError(f"backend is {backend}; plans are built for {' or '.join(LIBRARIES)}")
    return LIBRARIES[backend]


def libraries_that_build() -> tuple[str, ...]:
    """The backends whose library is installed and can build on this machine."""
    names = []
    for name, library in LIBRARIES.items():
        try:
            library.check_builds_here()
        except BackendUnavailable:
            continue
        names.append(name)
    return tuple(names)


@lru_cache
def _imported(backend: str, modules: tuple[str, ...], extra: str, minimum: tuple[int, int]) -> Any:
    for name in modules:
        try:
            module = import_module(name)
        except ImportError as error:
            if error.name == name:
                continue
            raise BackendUnavailable(f"{backend}: {name} is installed but does not load: {error}") from error
        version = str(module.__version__)
        if _version(version) < minimum:
            oldest = ".".join(str(n) for n in minimum)
            raise BackendUnavailable(
                f"{backend} {version} is older than {oldest}. Upgrade it: pip install -U 'lsx[{extra}]'"
            )
        return module
    raise BackendUnavailable(f"{backend} is not installed. Install it: pip install 'lsx[{extra}]'")


def _version(text: str) -> tuple[int, int]:
    numbers = [int(n) for n in re.findall(r"\d+", text)[:2]]
    return numbers[0], numbers[1]
