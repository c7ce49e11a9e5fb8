"""How `lsx serve` is set up: flags go before LSX_SERVE_* of the environment, and those before the file of --config."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lsx.errors import UsageError

__all__ = ["ServeSettings", "settings_of"]

_HOUR = 3600.0
_HIDDEN = "hidden"
_SECRETS = ("database", "hook_secret")


class ServeSettings(BaseModel):
    """Everything that a process of `lsx serve` is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bundle: Path | None = Field(default=None, description="The bundle that is served")
    data: Path = Field(default=Path("lsx-data"), description="Folder of jobs, uploads and results")
    database: str | None = Field(default=None, description="postgresql://...; default a SQLite file in the data folder")
    store: str | None = Field(default=None, description="s3://BUCKET/PREFIX and the like; default the data folder")
    host: str = Field(default="127.0.0.1", description="Address to listen on; others than loopback need a key")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one")
    workers: str = Field(default="auto", description="auto, cpu:N, or GPUs as gpu:0,gpu:1")
    machine: str = Field(
        default_factory=socket.gethostname, description="Name of this machine among those that share the database"
    )
    backend: str = Field(default="auto", description="Backend that runs the bundle")
    provider: str = Field(default="cpu", description="ONNX Runtime's provider")
    threads: int | None = Field(default=None, ge=1, description="CPU threads of a worker")
    require_verified: bool = Field(default=False, description="Refuse settings that no record of lsx verify covers")

    max_upload_bytes: int = Field(default=2 << 30, ge=1, description="Bytes of an upload at most")
    max_seconds: float = Field(default=2 * _HOUR, gt=0, description="Seconds of a video or sound at most")
    max_pixels: int = Field(default=4096 * 2304, ge=1, description="Pixels of a frame at most")
    max_streams: int = Field(default=16, ge=1, description="Streams in an upload at most")
    max_steps: int = Field(default=100, ge=1, le=1000, description="Denoising steps at most")
    max_queued: int = Field(default=100, ge=1, description="Jobs that wait or run at most, of all keys together")
    max_queued_per_key: int = Field(default=50, ge=1, description="Jobs that wait or run at most, of one key")
    max_event_streams: int = Field(default=16, ge=1, description="Event streams open at once at most, of one key")
    requests_a_minute: int = Field(default=1200, ge=1, description="Requests of one key a minute at most")
    min_free_bytes: int = Field(default=1 << 30, ge=0, description="Below this free disk uploads are refused")

    deadline_seconds: float = Field(default=600, gt=0, description="A job's time limit, beside what its length adds")
    deadline_factor: float = Field(default=120, ge=0, description="Seconds that a second of output adds to the limit")
    keep_hours: float = Field(default=168, gt=0, description="Hours for which results and ended jobs are kept")
    keep_upload_hours: float = Field(default=48, gt=0, description="Hours for which uploads are kept that no job uses")
    grace_seconds: float = Field(default=600, ge=0, description="Time that a running job gets to end at SIGTERM")
    takeover_seconds: float = Field(
        default=60, ge=5, description="A worker not seen for so long loses its job to another"
    )
    poll_seconds: float = Field(default=0.25, ge=0.05, le=10, description="Pause between a worker's looks for a job")
    job_attempts: int = Field(default=5, ge=1, description="Starts of a job before it counts as what kills workers")

    allow_url: tuple[str, ...] = Field(default=(), description="Hosts from which inputs may be downloaded")
    allow_hook: tuple[str, ...] = Field(default=(), description="Private hosts to which webhooks may go all the same")
    hook_secret: str | None = Field(default=None, description="whsec_..., signs webhooks; default one of its own")
    hook_pauses: tuple[float, ...] = Field(
        default=(5, 300, 1800, 7200, 18000, 36000), description="Seconds before each further try of a webhook"
    )
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR")

    @property
    def is_loopback(self) -> bool:
        """Whether nobody on other machines can reach it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    def executor(self, kind: str) -> str:
        """The name of this machine's process of that kind among all machines'."""
        return f"{self.machine}/{kind}"

    def shown(self) -> dict[str, Any]:
        """All values, secrets hidden, as `--print-config` and logs show them."""
        values = self.model_dump(mode="json")
        if values["hook_secret"] is not None:
            values["hook_secret"] = _HIDDEN
        if self.database is not None:
            text = self.database
            if "@" in text:
                scheme, _, rest = text.partition("://")
                text = f"{scheme}://{_HIDDEN}@{rest.rpartition('@')[2]}"
            values["database"] = re.sub(r"([?&]\w*password=)[^&]*", rf"\1{_HIDDEN}", text)
        return values


def settings_of(config: Path | None = None, **flags: Any) -> ServeSettings:
    """The settings of a file, the environment and flags; a flag that is None was not given. Raises UsageError."""
    if config is not None and not config.is_file():
        raise UsageError(f"{config}: no such file")
    given = {name: value for name, value in flags.items() if value is not None}

    try:
        return ServeSettings(**_layered(config, given))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            raise UsageError(f"{config}: there is no setting {name}") from error
        given_value = _HIDDEN if name in _SECRETS else repr(first["input"])
        raise UsageError(f"{name} is {given_value}: {first['msg']}") from None
    except ValueError as error:
        raise UsageError(f"{config}: not readable as TOML: {error}") from error


def _layered(config: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    """What is given in any of the three places, from the one that goes first."""
    from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

    class Configured(BaseSettings, ServeSettings):
        model_config = SettingsConfigDict(env_prefix="LSX_SERVE_", toml_file=config, extra="forbid")

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            del dotenv_settings, file_secret_settings
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    return Configured(**flags).model_dump(exclude_unset=True)
