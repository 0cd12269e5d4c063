"""The settings: whether they are valid, where each comes from, and likely mistakes."""

from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError

from core import secret_files
from core.errors import BasinError
from core.settings import Settings
from core.suggest import did_you_mean
from local.doctor.checks import CheckResult, failed_check, first_line, passed_check, warning_check

NAME: Final = "settings"
PREFIX: Final = "BASIN_"
OTHERS: Final = frozenset(
    {"BASIN_URL", "BASIN_API_KEY", "BASIN_SLOTS", "BASIN_SECRETS"}
)  # the client's, and the compose file's
BEATS: Final = 4  # the heartbeats that should fit into a lease
WHERE: Final = "settings come from BASIN_… variables, then basin.toml in this folder; docs/settings.md lists them"


def read_settings() -> tuple[Settings | None, list[CheckResult]]:
    """The settings, or None and the problems that make them invalid."""
    try:
        return Settings(), []
    except ValidationError as error:
        return None, [
            failed_check(NAME, f"{'.'.join(map(str, problem['loc'])) or 'together'}: {problem['msg']}", WHERE)
            for problem in error.errors(include_input=False, include_url=False, include_context=False)
        ]
    except (BasinError, ValueError, OSError) as error:  # the file of a secret, JSON or TOML that cannot be parsed
        return None, [failed_check(NAME, first_line(error), WHERE)]


def settings_checks(settings: Settings, environment: Mapping[str, str]) -> Iterator[CheckResult]:
    """What is set and where; secrets are not shown."""
    present = {name.upper() for name, value in environment.items() if value}
    given = [
        f"{field}{display_value(settings, field)} ({setting_source(field, present)})"
        for field in sorted(settings.model_fields_set)
    ]
    yield passed_check(NAME, f"{', '.join(given)}; all else at its default" if given else "all at their defaults")
    known = {name for field in Settings.model_fields for name in variables_of_field(field)} | OTHERS
    for name in sorted(name for name in present if name.startswith(PREFIX) and name not in known):
        yield warning_check(NAME, f"{name} is no setting", did_you_mean(name, known) or "remove it")
    if settings.lease_seconds < BEATS * settings.beat_seconds:
        found = (
            f"a lease of {settings.lease_seconds:g} s is less than {BEATS} heartbeats of {settings.beat_seconds:g} s"
        )
        yield warning_check(
            NAME, found, "increase BASIN_LEASE_SECONDS: a worker whose heartbeat is late loses its jobs"
        )


def variables_of_field(field: str) -> tuple[str, ...]:
    """The environment variables that a setting is read from, those that name its file included."""
    info = Settings.model_fields[field]
    names = secret_files.setting_variables(field, info, PREFIX)
    files = [name + secret_files.SUFFIX for name in names] if secret_files.from_file(field, info) else []
    return (*names, *files)


def setting_source(field: str, present: set[str]) -> str:
    """The environment variable if it is set, since it takes precedence; else the file."""
    return next((name for name in variables_of_field(field) if name in present), "basin.toml")


def display_value(settings: Settings, field: str) -> str:
    """The value as text; of a URL without its credentials, of a secret nothing."""
    value = getattr(settings, field)
    if isinstance(value, SecretStr):
        value = display_url(value.get_secret_value())
    return "" if value is None or field == "aws_access_key_id" else f"={value}"


def display_url(url: str) -> str | None:
    """Scheme, host, port and path of a URL: no user, no password, no parameters. None: it is no URL."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return None
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}" if "://" in url else None
