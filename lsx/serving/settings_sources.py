"""Where settings come from: flags go before the environment, and that before a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lsx.errors import UsageError

__all__ = ["layered", "variable_of"]

_PREFIX = "LSX_SERVE_"


def variable_of(name: str) -> str | None:
    """The variable of the environment that has a setting; None where none has."""
    return next((variable for variable in os.environ if variable.upper() == _PREFIX + name.upper()), None)


def layered(model: type[BaseModel], config: Path | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """What is given in any of the three places, from the one that goes first.

    Raises UsageError for a variable that cannot be read or is none of a setting's, ValidationError, ValueError.
    """
    from pydantic_settings import (
        BaseSettings,
        EnvSettingsSource,
        PydanticBaseSettingsSource,
        SettingsConfigDict,
        TomlConfigSettingsSource,
    )

    _check_variables(list(model.model_fields))

    class Environment(EnvSettingsSource):
        def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
            del field
            return _items(field_name, value)

    class Configured(BaseSettings, model):  # type: ignore[misc, valid-type]
        model_config = SettingsConfigDict(env_prefix=_PREFIX, toml_file=config, extra="forbid")

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            del env_settings, dotenv_settings, file_secret_settings
            return init_settings, Environment(settings_cls), TomlConfigSettingsSource(settings_cls)

    values: dict[str, Any] = Configured(**flags).model_dump(exclude_unset=True)
    return values


def _items(name: str, text: str) -> Any:
    """The values of a list, with commas between or as JSON. Raises UsageError."""
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return json.loads(text)
    except ValueError:
        raise UsageError(f"{variable_of(name)} is {text!r}; give values with commas between, or a JSON list") from None


def _check_variables(names: list[str]) -> None:
    """Raise UsageError for a variable that looks like a setting's, and is none."""
    known = [_PREFIX + name.upper() for name in names]
    for variable in os.environ:
        if variable.upper().startswith(_PREFIX) and variable.upper() not in known:
            close = get_close_matches(variable.upper(), known, 1)
            hint = f"; did you mean {close[0]}?" if close else "; lsx serve --print-config has all settings"
            raise UsageError(f"{variable}: there is no such setting{hint}")
