"""How `lsx serve` is set up: flags go before LSX_SERVE_* of the environment, and those before the file of --config."""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lsx.errors import UsageError
from lsx.serving.settings_sources import layered, variable_of

__all__ = ["ServeSettings", "is_loopback", "settings_of", "without_secrets"]

_HOUR = 3600.0
_HIDDEN = "hidden"
_SECRETS = ("database", "hook_secret")
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_WORKERS = re.compile(r"auto|none|cpu:[0-9]{1,4}|gpu:[0-9]{1,4}(,gpu:[0-9]{1,4})*")
_LABEL = r"[0-9A-Za-z_]([0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?"
_NAME = re.compile(rf"({_LABEL}\.)*(?![0-9]+\.?$){_LABEL}\.?")


class ServeSettings(BaseModel):
    """Everything that a process of `lsx serve` is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bundle: Path | None = Field(default=None, description="The bundle that is served")
    data: Path = Field(default=Path("lsx-data"), description="Folder of jobs, uploads and results")
    database: str | None = Field(default=None, description="postgresql://...; default a SQLite file in the data folder")
    store: str | None = Field(default=None, description="s3://BUCKET/PREFIX and the like; default the data folder")
    redirect_outputs: bool = Field(
        default=True, description="Send clients to the object store's own address for a result, which they must reach"
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on; others than loopback need a key")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one")
    workers: str = Field(default="auto", description="auto, cpu:N, or GPUs as gpu:0,gpu:1")
    machine: str = Field(
        default_factory=socket.gethostname, description="Name of this machine among those that share the database"
    )
    backend: str = Field(default="auto", description="Backend that runs the bundle")
    provider: str = Field(default="cpu", description="ONNX Runtime's provider")
    threads: int | None = Field(default=None, ge=1, description="CPU threads of a worker")
    live: bool = Field(default=True, description="Whether workers take live sessions, one each, beside their jobs")
    live_host: str = Field(
        default="127.0.0.1",
        description="Address on which workers take live sessions from HTTP processes; not loopback where those are on "
        "other machines",
    )
    require_verified: bool = Field(default=False, description="Refuse settings that no record of lsx verify covers")

    max_upload_bytes: int = Field(default=2 << 30, ge=1, description="Bytes of an upload at most")
    max_seconds: float = Field(default=2 * _HOUR, gt=0, description="Seconds of a video or sound at most")
    max_pixels: int = Field(default=4096 * 2304, ge=1, description="Pixels of a frame at most")
    max_streams: int = Field(default=16, ge=1, description="Streams in an upload at most")
    max_steps: int = Field(default=100, ge=1, le=1000, description="Denoising steps at most")
    max_queued: int = Field(default=100, ge=1, description="Jobs that wait or run at most, of all keys together")
    max_queued_per_key: int = Field(default=50, ge=1, description="Jobs that wait or run at most, of one key")
    max_event_streams: int = Field(default=16, ge=1, description="Event streams open at once at most, of one key")
    max_live: int = Field(default=16, ge=1, description="Live sessions open at once at most, of one key")
    requests_a_minute: int = Field(default=1200, ge=1, description="Requests of one key a minute at most")
    min_free_bytes: int = Field(default=1 << 30, ge=0, description="Below this free disk uploads are refused")

    deadline_seconds: float = Field(default=600, gt=0, description="A job's time limit, beside what its length adds")
    deadline_factor: float = Field(default=120, ge=0, description="Seconds that a second of output adds to the limit")
    keep_hours: float = Field(default=168, gt=0, description="Hours for which results and ended jobs are kept")
    keep_upload_hours: float = Field(default=48, gt=0, description="Hours for which uploads are kept that no job uses")
    resume_every: float = Field(
        default=60, gt=0, description="Seconds of output that a job keeps at a time: a killed worker loses no more"
    )
    avatar_cache_bytes: int = Field(
        default=20 << 30, ge=0, description="Bytes of avatars that a worker keeps at most of what an object store gave"
    )
    grace_seconds: float = Field(default=600, ge=0, description="Time that a running job gets to end at SIGTERM")
    takeover_seconds: float = Field(
        default=60, ge=5, description="A worker not seen for so long loses its job to another"
    )
    poll_seconds: float = Field(default=0.25, ge=0.05, le=10, description="Pause between a worker's looks for a job")
    progress_seconds: float = Field(
        default=0.5, ge=0.1, le=60, description="Pause between a job's marks of progress, at which it learns of its end"
    )
    job_attempts: int = Field(default=5, ge=1, description="Starts of a job before it counts as what kills workers")

    allow_url: tuple[str, ...] = Field(default=(), description="Hosts from which inputs may be downloaded")
    allow_hook: tuple[str, ...] = Field(default=(), description="Private hosts to which webhooks may go all the same")
    hook_secret: str | None = Field(default=None, description="whsec_..., signs webhooks; default one of its own")
    hook_pauses: tuple[float, ...] = Field(
        default=(5, 300, 1800, 7200, 18000, 36000), description="Seconds before each further try of a webhook"
    )
    traces: tuple[str, ...] = Field(
        default=(), description="OTLP addresses, as http://host:4318/v1/traces, that get a span of each job and step"
    )
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR")

    @field_validator("host", "live_host")
    @classmethod
    def _is_host(cls, value: str) -> str:
        if _ip(value) is None and not (_NAME.fullmatch(value) and len(value) < 255):
            raise ValueError("give an address of this machine, as 127.0.0.1 or ::1, or its name")
        return value

    @field_validator("workers")
    @classmethod
    def _are_workers(cls, value: str) -> str:
        if not _WORKERS.fullmatch(value):
            raise ValueError("give auto, none, cpu:N, or GPUs as gpu:0,gpu:1")
        return value

    @field_validator("log_level")
    @classmethod
    def _is_level(cls, value: str) -> str:
        if value.upper() not in _LEVELS:
            raise ValueError("give DEBUG, INFO, WARNING or ERROR")
        return value.upper()

    @property
    def is_loopback(self) -> bool:
        """Whether nobody on other machines can reach it."""
        return is_loopback(self.host)

    @property
    def url(self) -> str:
        """Where its page is."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"

    def executor(self, kind: str) -> str:
        """The name of this machine's process of that kind among all machines'."""
        return f"{self.machine}/{kind}"

    def shown(self) -> dict[str, Any]:
        """All values, secrets hidden, as `--print-config` and logs show them."""
        values = self.model_dump(mode="json")
        if values["hook_secret"] is not None:
            values["hook_secret"] = _HIDDEN
        if self.database is not None:
            values["database"] = without_secrets(self.database)
        if self.store is not None and "://" in self.store:
            values["store"] = without_secrets(self.store)
        values["traces"] = [without_secrets(address) for address in self.traces]
        return values


def without_secrets(address: str) -> str:
    """An address without its user, its password and the values of its query; one that is none is hidden whole."""
    scheme, slashes, rest = address.partition("://")
    if not slashes:
        return _HIDDEN
    place, mark, query = rest.partition("?")
    who, at, host = place.rpartition("@")
    query = re.sub(r"=[^&]*", f"={_HIDDEN}", query)
    return f"{scheme}://{_HIDDEN if who else ''}{at}{host}{mark}{query}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone, by its own name or address."""
    address = _ip(host)
    return host == "localhost" if address is None else address.is_loopback


def _ip(host: str) -> IPv4Address | IPv6Address | None:
    """A host that is an address; None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def settings_of(config: Path | None = None, **flags: Any) -> ServeSettings:
    """The settings of a file, the environment and flags; a flag that is None was not given. Raises UsageError."""
    if config is not None and not config.is_file():
        raise UsageError(f"{config}: no such file")
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return ServeSettings(**layered(ServeSettings, config, given))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            raise UsageError(f"{config}: there is no setting {name}") from error
        given_value = _HIDDEN if name in _SECRETS else repr(first["input"])
        where = name if name in given else variable_of(name) or name
        raise UsageError(f"{where} is {given_value}: {first['msg'].removeprefix('Value error, ')}") from None
    except ValueError as error:
        raise UsageError(f"{config}: not readable as TOML: {error}") from error
