"""Secrets from files: the variable NAME_FILE names a file whose content is the value of the setting NAME.

A variable can be read by all users who may inspect the process or its container; a file has its own permissions.
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
_WITH_A_SECRET: Final = frozenset({"aws_access_key_id"})  # not a secret, but kept with the secret that it belongs to


class SecretFiles(PydanticBaseSettingsSource):
    """The settings source that reads values from files; `environment` defaults to that of the process."""

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
    """Whether the setting may be read from a file."""
    return SecretStr in (field.annotation, *get_args(field.annotation)) or name in _WITH_A_SECRET


def setting_variables(name: str, field: FieldInfo, prefix: str) -> tuple[str, ...]:
    """The environment variables that a setting is read from."""
    alias = field.validation_alias
    if alias is None:
        return (f"{prefix}{name}".upper(),)
    return tuple(str(one).upper() for one in (alias.choices if isinstance(alias, AliasChoices) else [alias]))


def read_secret(variable: str, path: Path) -> str:
    """The content of the file, without the newline that editors and `echo` put at its end.

    Raises:
        Misconfigured: the file cannot be read, is empty or is not text; the message names the variable and the file,
            and quotes nothing of its content.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        problem = "it is not UTF-8 text"  # the decoder's own message would quote the content
    except OSError as error:
        problem = error.strerror or "it cannot be read"
    else:
        if value := text.removesuffix("\n"):
            return value
        problem = "it is empty"
    raise Misconfigured(f"{variable} names {path}, and {problem}")
