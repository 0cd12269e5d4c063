"""Secrets from files: the variable NAME_FILE names a file whose content is the value of the setting NAME.

What stands in a variable is for everybody to read who may look at the process or at its container; a file need not be.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from core.errors import Misconfigured

SUFFIX: Final = "_FILE"
_WITH_A_SECRET: Final = frozenset({"aws_access_key_id"})  # no secret itself, but kept with the one that goes with it


class SecretFiles(PydanticBaseSettingsSource):
    """The settings whose values stand in files; `environment` by names in capitals."""

    def __init__(self, settings: type[BaseSettings], environment: Mapping[str, str] | None = None) -> None:
        super().__init__(settings)
        given = os.environ if environment is None else environment
        self._given = {name.upper(): value for name, value in given.items() if value}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        """The value (None where no file is named), the field's name, and that it is no JSON."""
        for name in setting_variables(field_name, field, str(self.config.get("env_prefix") or "")):
            path = self._given.get(name + SUFFIX)
            if path is None:
                continue
            if name in self._given:
                raise Misconfigured(f"{name} and {name}{SUFFIX} are both set; leave one of them")
            return read_secret(name + SUFFIX, Path(path)), field_name, False
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, field in self.settings_cls.model_fields.items():
            value = self.get_field_value(field, name)[0] if from_file(name, field) else None
            if value is not None:
                found[name] = value
        return found


def from_file(name: str, field: FieldInfo) -> bool:
    """Whether the setting may stand in a file."""
    return SecretStr in (field.annotation, *get_args(field.annotation)) or name in _WITH_A_SECRET


def setting_variables(name: str, field: FieldInfo, prefix: str) -> tuple[str, ...]:
    """The environment variables that a setting is read from."""
    alias = field.validation_alias
    if alias is None:
        return (f"{prefix}{name}".upper(),)
    return tuple(str(one).upper() for one in (alias.choices if isinstance(alias, AliasChoices) else [alias]))


def read_secret(variable: str, path: Path) -> str:
    """What stands in the file, without the newline that editors and `echo` put at its end.

    Raises:
        Misconfigured: there is nothing to read; the message names the variable and the file, and quotes nothing.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        problem = "it is no text"  # the decoder's own words would quote it
    except OSError as error:
        problem = error.strerror or "it cannot be read"
    else:
        if value := text.removesuffix("\n"):
            return value
        problem = "it is empty"
    raise Misconfigured(f"{variable} names {path}, and {problem}")
