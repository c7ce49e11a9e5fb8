"""The errors that lsx raises, one tree.

    LsxError                    every error that lsx means to raise; the CLI prints it as one line
    ├── UsageError              an option or argument outside its range (exit code 2)
    ├── MissingDependency       a library that this command needs is not installed
    ├── CheckpointError         a checkpoint that is absent, damaged, of another shape, or unsafe
    ├── ExportError             a graph that could not be exported
    │   └── ParityError         an exported graph whose numbers differ from its module's
    ├── BundleError             a bundle that is absent, incomplete or not a bundle
    │   ├── SchemaMismatch      a bundle written by an lsx with another schema
    │   ├── NotVerified         a bundle without a record, where one is required
    │   └── IntegrityError      a file in a bundle that is not the one its manifest describes
    ├── CalibrationError        calibration data that is absent, damaged, or of another model
    ├── AccuracyError           a result further from the reference than its thresholds allow
    ├── EngineError             a backend that cannot load or run a graph
    │   ├── BackendUnavailable  a backend or provider that this machine does not have
    │   ├── BuildError          a plan that could not be built
    │   ├── StaleEngine         a plan that was built for another GPU, library, graph or batch
    │   ├── EngineClosed        a LipSync that was closed, also while a run of it was under way
    │   ├── DeviceLost          a GPU that this process can no longer use: restart the process
    │   ├── OutOfDeviceMemory   less free GPU memory than a bundle needs
    │   └── NonFiniteOutput     a chunk whose result has NaN or infinite values
    ├── Cancelled               a run whose cancel token was cancelled
    ├── BatchFailed             some jobs of a batch failed; the others are done
    ├── BenchFailed             a bench that found figures slower, or memory that grew, or could not measure
    ├── TrainingFailed          a training whose numbers stay NaN or infinite
    ├── MediaError              a video or audio file that cannot be read
    ├── FaceNotFound            no face in a frame (or in any frame) where one is required
    ├── OutputError             a result that cannot be written
    ├── ServerRefused           an answer of `lsx serve` other than what was asked for
    └── ServerUnreachable       an `lsx serve` that gave no answer

Every message says what is wrong, where, and what to do, on one line.
"""

from __future__ import annotations

__all__ = [
    "AccuracyError",
    "BackendUnavailable",
    "BatchFailed",
    "BenchFailed",
    "BuildError",
    "BundleError",
    "CalibrationError",
    "Cancelled",
    "CheckpointError",
    "DeviceLost",
    "EngineClosed",
    "EngineError",
    "ExportError",
    "FaceNotFound",
    "IntegrityError",
    "LsxError",
    "MediaError",
    "MissingDependency",
    "NonFiniteOutput",
    "NotVerified",
    "OutOfDeviceMemory",
    "OutputError",
    "ParityError",
    "SchemaMismatch",
    "ServerRefused",
    "ServerUnreachable",
    "StaleEngine",
    "TrainingFailed",
    "UsageError",
]


class LsxError(Exception):
    """An error with a message for the user. `exit_code` is what the CLI ends with."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class UsageError(LsxError):
    """An option or argument outside its range."""

    exit_code = 2


class MissingDependency(LsxError):
    """A library that this command needs is not installed."""

    @classmethod
    def of(cls, library: str, extra: str) -> MissingDependency:
        """The error for `library`, which the extra named `extra` brings."""
        return cls(f"{library} is not installed. Install it: pip install 'lsx[{extra}]'")


class CheckpointError(LsxError):
    """A checkpoint that is absent, damaged, of another shape, or unsafe."""


class ExportError(LsxError):
    """A graph that could not be exported."""


class ParityError(ExportError):
    """An exported graph whose numbers differ from its module's."""


class BundleError(LsxError):
    """A bundle that is absent, incomplete or not a bundle."""


class SchemaMismatch(BundleError):
    """A bundle written by an lsx with another schema."""


class NotVerified(BundleError):
    """A bundle that no `lsx verify` covers as it is, where one is required."""


class IntegrityError(BundleError):
    """A file in a bundle that is not the one its manifest describes."""


class CalibrationError(LsxError):
    """Calibration data that is absent, damaged, or of another model."""


class AccuracyError(LsxError):
    """A result further from the reference than its thresholds allow."""


class EngineError(LsxError):
    """A backend that cannot load or run a graph."""


class BackendUnavailable(EngineError):
    """A backend or provider that this machine does not have."""


class BuildError(EngineError):
    """A plan that could not be built."""


class StaleEngine(EngineError):
    """A plan that was built for another GPU, library, graph or batch."""


class EngineClosed(EngineError):
    """A LipSync that was closed, also while a run of it was under way."""


class DeviceLost(EngineError):
    """A GPU that failed so that CUDA refuses every later call of this process: only a new process can use it."""


class OutOfDeviceMemory(EngineError):
    """Less free GPU memory than a bundle needs."""


class NonFiniteOutput(EngineError):
    """A chunk whose result has NaN or infinite values."""


class Cancelled(LsxError):
    """A run whose cancel token was cancelled; nothing is left under the output's name."""

    exit_code = 130


class BatchFailed(LsxError):
    """Some jobs of a batch failed; the others are done."""


class BenchFailed(LsxError):
    """A bench that found figures slower than before, or memory that grew, or whose measuring process failed."""


class TrainingFailed(LsxError):
    """A training that was stopped because its numbers stay NaN or infinite."""


class MediaError(LsxError):
    """A video or audio file that cannot be read."""


class FaceNotFound(LsxError):
    """No face in a frame (or in any frame) where one is required."""


class OutputError(LsxError):
    """A result that cannot be written."""


class ServerRefused(LsxError):
    """An answer of `lsx serve` other than what was asked for, to its client."""

    def __init__(self, message: str, *, status: int, code: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code
        """HTTP's status, and the API's word for the reason, such as `queue_full`."""


class ServerUnreachable(LsxError):
    """An `lsx serve` that gave its client no answer."""
