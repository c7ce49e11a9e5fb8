"""The bundle: a folder with a manifest, ONNX graphs and plans, all hashed. Reading it executes nothing."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from lsx.bundle.manifest import (
    FORMS,
    MANIFEST,
    SCHEMA_VERSION,
    FileEntry,
    Form,
    GraphEntry,
    Manifest,
    PlanEntry,
    VerificationRecord,
)
from lsx.bundle.records import Coverage
from lsx.core.atomic_files import sha256_of, write_whole
from lsx.core.sampling import SamplingOptions
from lsx.errors import BundleError, IntegrityError, OutputError, SchemaMismatch, UsageError

__all__ = ["Bundle"]

Engine: TypeAlias = Any
"""lsx.engines.engine.Engine. Named, not imported: engines build on bundles, not the other way."""


class Bundle:
    """An opened bundle. Opening reads the manifest; a graph's files are hashed when its engine is asked for.

    Open one with `Bundle.open(path)`.

    Examples
    --------
    >>> from lsx import Bundle
    >>> Bundle.open(BUNDLE).model.resolution
    64
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.model = manifest.model.spec()
        self._intact: set[str] = set()

    @classmethod
    def open(cls, path: Path | str) -> Bundle:
        """Open the bundle in the folder `path`.

        Raises BundleError when it is none, SchemaMismatch when another lsx wrote it, UsageError for what is no path.

        Examples
        --------
        >>> Bundle.open("nowhere")
        Traceback (most recent call last):
        ...
        lsx.errors.BundleError: nowhere: not a bundle ...
        """
        if not isinstance(path, Path | str):
            raise UsageError(f"the bundle is {path!r}; give its folder")
        path = Path(path)
        file = path / MANIFEST
        if path.is_file():
            raise BundleError(f"{path}: not a bundle, but a file. Give the folder that lsx export wrote")
        if not path.is_dir() or not file.is_file():
            missing = f"no {MANIFEST} in it" if path.is_dir() else "no such folder"
            raise BundleError(f"{path}: not a bundle ({missing}). Make one: lsx export CHECKPOINT -o {path}")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            version = content["schema_version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(
                f"{file}: not a manifest ({error}). Export again: lsx export CHECKPOINT -o {path}"
            ) from error
        if version != SCHEMA_VERSION:
            raise SchemaMismatch(
                f"{path}: bundle schema {version}, but this lsx reads {SCHEMA_VERSION}. "
                f"Export again: lsx export CHECKPOINT -o {path}"
            )
        try:
            return cls(path, Manifest.model_validate(content))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise BundleError(
                f"{file}: {where}: {first['msg']}. Export again: lsx export CHECKPOINT -o {path}"
            ) from error

    @property
    def sampling(self) -> SamplingOptions:
        """How this bundle is sampled where nobody says: as the student was made for that is in it, else the defaults.

        Examples
        --------
        >>> Bundle.open(BUNDLE).sampling.steps
        20
        """
        student = self.manifest.student
        return SamplingOptions() if student is None else student.options()

    def check_sampling(self, options: SamplingOptions) -> None:
        """Refuse settings that the student in this bundle was not made for. Raises UsageError.

        Examples
        --------
        >>> from lsx import SamplingOptions
        >>> Bundle.open(BUNDLE).check_sampling(SamplingOptions(steps=4))
        """
        if self.manifest.student is None:
            return
        own = self.sampling
        for name in ("steps", "sampler", "guidance"):
            if getattr(options, name) != getattr(own, name):
                raise UsageError(
                    f"{name} is {getattr(options, name)}; {self.path} is a student, made for {own.steps} "
                    f"step{'s' * (own.steps > 1)} of {own.sampler} without guidance. Leave {name} out"
                )

    def fallback(self) -> Bundle | None:
        """The bundle inside this one that chunks are done again with when they overflow. Raises BundleError.

        Examples
        --------
        >>> Bundle.open(BUNDLE).fallback() is None
        True
        """
        return None if self.manifest.fallback is None else Bundle.open(self.path / self.manifest.fallback)

    def graph(self, name: str) -> GraphEntry:
        """The entry of the graph `name`. Raises BundleError when the bundle does not have it.

        Examples
        --------
        >>> Bundle.open(BUNDLE).graph("step").precision
        'fp32'
        """
        entry = self.manifest.graphs.get(name)
        if entry is None:
            raise BundleError(f"{self.path}: no graph {name}; it has {', '.join(sorted(self.manifest.graphs))}")
        return entry

    def files(self, graph: str, form: Form = "file") -> list[FileEntry]:
        """The files of one graph: the .onnx, in `form` where there is one, and the data that it refers to.

        Examples
        --------
        >>> [file.path for file in Bundle.open(BUNDLE).files("step")]
        ['onnx/step.onnx']
        """
        entry = self.graph(graph)
        data = {file.path: file for file in self.manifest.data}
        missing = [path for path in entry.data if path not in data]
        if missing:
            raise BundleError(f"{self.path}: the manifest names no hash for {missing[0]}. Export again")
        return [entry.in_form(form), *(data[path] for path in entry.data)]

    def graph_files(self) -> list[FileEntry]:
        """The files of all graphs, in every form that a backend may load.

        Examples
        --------
        >>> len(Bundle.open(BUNDLE).graph_files()) > 8
        True
        """
        return [file for name in self.manifest.graphs for form in FORMS for file in self.files(name, form)]

    def hashes(self, files: Callable[[Bundle], Iterable[FileEntry]]) -> dict[str, str]:
        """SHA-256 by path of what `files` names of this bundle, and of its fallback in its folder.

        Examples
        --------
        >>> "onnx/step.onnx" in Bundle.open(BUNDLE).hashes(lambda bundle: bundle.files("step"))
        True
        """
        digests = {file.path: file.sha256 for file in files(self)}
        fallback = self.fallback()
        if fallback is not None:
            digests |= {f"{self.manifest.fallback}/{path}": digest for path, digest in fallback.hashes(files).items()}
        return digests

    def add_plan(self, plan: PlanEntry) -> None:
        """Enter `plan` in the manifest, in place of one of the same file. Raises OutputError.

        Examples
        --------
        >>> bundle = Bundle.open(BUNDLE)
        >>> for plan in bundle.manifest.plans:
        ...     bundle.add_plan(plan)  # what `lsx build` does when a plan is made
        """
        newest = self._newest()
        plans = [other for other in newest.plans if other.file.path != plan.file.path]
        self._write(newest.model_copy(update={"plans": (*plans, plan)}))
        self._intact.discard(plan.file.path)

    def add_record(self, record: VerificationRecord) -> None:
        """Enter the verification record `record` in the manifest. Raises OutputError.

        It takes the place of one of the same files and settings, unless it is a smoke check and that one is not.

        Examples
        --------
        >>> bundle = Bundle.open(BUNDLE)
        >>> for record in bundle.manifest.records:
        ...     bundle.add_record(record)  # what `lsx verify` does when all holds
        """
        newest = self._newest()
        new = Coverage.of(record, newest.precision)
        records = []
        for other in newest.records:
            old = Coverage.of(other, newest.precision)
            if other.files == record.files and old.settings == new.settings:
                if new.smoke_check is not None and old.smoke_check is None:
                    return
                continue
            records.append(other)
        self._write(newest.model_copy(update={"records": (*records, record)}))

    def _newest(self) -> Manifest:
        """The manifest on disk: another process may have written since. Parsed only where it is not this one's."""
        try:
            unchanged = (self.path / MANIFEST).read_text(encoding="utf-8") == self.manifest.text()
        except OSError:
            unchanged = False
        return self.manifest if unchanged else Bundle.open(self.path).manifest

    def _write(self, manifest: Manifest) -> None:
        try:
            write_whole(self.path / MANIFEST, manifest.text().encode())
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from error
        self.manifest = manifest

    def verify(self, files: list[FileEntry] | None = None) -> None:
        """Hash `files` (default: every file of the bundle), each once in this object's life.

        Raises IntegrityError naming the first that is missing or another than the manifest's.

        Examples
        --------
        >>> Bundle.open(BUNDLE).verify()
        """
        if files is None:
            fallback = self.fallback()
            if fallback is not None:
                fallback.verify()
            files = self.graph_files()
            files += [file for plan in self.manifest.plans for file in (plan.file, plan.layers) if file is not None]
            files += [] if self.manifest.quantization is None else self.manifest.quantization.files
        for file in files:
            if file.path in self._intact:
                continue
            path = self.path / file.path
            if Path(file.path).is_absolute() or ".." in Path(file.path).parts:
                raise IntegrityError(f"{self.path}: the manifest names {file.path}, outside the bundle. Do not use it")
            if not path.is_file() or path.stat().st_size != file.size or sha256_of(path) != file.sha256:
                fault = "is not the file that the manifest describes" if path.is_file() else "is missing"
                plan = next((plan for plan in self.manifest.plans if plan.file.path == file.path), None)
                remedy = (
                    f"Copy the bundle again, or export it again: lsx export CHECKPOINT -o {self.path}"
                    if plan is None
                    else f"Build it again: lsx build {self.path} --backend {plan.backend} --graphs {plan.graph}"
                )
                raise IntegrityError(f"{path} {fault}: the copy is damaged. {remedy}")
            self._intact.add(file.path)

    def engine(self, *arguments: Any, **options: Any) -> Engine:
        """Load a graph: an lsx.engines.engine.Engine. Deprecated: call `lsx.load_engine(bundle, ...)`, which takes the
        same arguments.

        Examples
        --------
        >>> import pytest
        >>> with pytest.warns(DeprecationWarning):
        ...     Bundle.open(BUNDLE).engine("step").close()
        """
        warnings.warn(
            "Bundle.engine is deprecated: call lsx.load_engine(bundle, ...)", DeprecationWarning, stacklevel=2
        )
        return import_module("lsx").load_engine(self, *arguments, **options)
