"""The service's settings: environment (prefix BASIN_), then `basin.toml` in the working directory, then defaults.

A secret may be in a file that the variable NAME_FILE names, see core/secret_files.py.
"""

import hashlib
import os
import tempfile
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from core.secret_files import SecretFiles

# sun_path holds 108 bytes on Linux and 104 on macOS, the closing NUL included.
_LONGEST_SOCKET_PATH = 100
_BROKERS = ("redis", "rediss", "redis+socket")

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Limits(BaseModel):
    """The quotas of a key; None is no limit.

    Jobs and what they store are counted by project, requests by key and api process.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    queued_jobs: int | None = Field(default=None, ge=1, le=10**9)
    running_jobs: int | None = Field(default=None, ge=1, le=10**6)
    stored_bytes: int | None = Field(default=None, ge=1, le=10**18)
    datasets: int | None = Field(default=None, ge=1, le=10**9)
    dataset_bytes: int | None = Field(default=None, ge=1, le=10**18)
    requests_per_minute: int | None = Field(default=None, ge=1, le=100_000)

    def with_defaults(self, defaults: "Limits | None") -> "Limits":
        """These limits, with the defaults where none is set."""
        if defaults is None:
            return self
        return Limits(**(defaults.model_dump() | self.model_dump(exclude_none=True)))


class Settings(BaseSettings):
    """All settings of the service. Durations are in seconds; URLs with passwords never show in a repr."""

    model_config = SettingsConfigDict(
        env_prefix="BASIN_",
        toml_file="basin.toml",
        extra="forbid",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,
        env_ignore_empty=True,
    )

    home: Path = Path(".basin")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    database_url: SecretStr | None = None
    broker_url: SecretStr | None = None
    store_url: SecretStr | None = None
    s3_endpoint: str | None = None
    downloads: Literal["redirect", "stream"] = "redirect"

    # These have the names that every S3 tool reads, without our prefix.
    aws_access_key_id: str | None = Field(default=None, validation_alias="aws_access_key_id")
    aws_secret_access_key: SecretStr | None = Field(default=None, validation_alias="aws_secret_access_key")
    aws_session_token: SecretStr | None = Field(default=None, validation_alias="aws_session_token")
    aws_region: str = Field(
        default="us-east-1", validation_alias=AliasChoices("aws_region", "aws_default_region"), min_length=1
    )

    lease_seconds: Seconds = 12.0
    beat_seconds: Seconds = 3.0
    tick_seconds: Seconds = 2.0
    poll_seconds: Seconds = 2.0
    hint_after_seconds: Seconds = 15.0
    cancel_grace_seconds: Seconds = 8.0
    stop_grace_seconds: Seconds = 25.0
    stall_seconds: Seconds = 60.0
    zygote_silence_seconds: Seconds = 10.0
    outage_seconds: Seconds = 660.0  # an outage of ten minutes, and a minute to recover
    age_step_seconds: Seconds = 60.0
    care_seconds: Seconds = 60.0
    keep_keys_seconds: Seconds = 86400.0
    orphan_seconds: Seconds = 86400.0
    max_losses: int = Field(default=3, ge=1)
    prepare_seconds: Seconds = 3600.0  # of one process that prepares a dataset; then the file is refused as too large
    dataset_cache_bytes: int = Field(default=50 << 30, ge=0, le=10**18)  # of prepared datasets on a worker's disk
    light_lane: bool = True  # of each worker: a place beside its slots for short jobs, such as preparing a dataset
    runner_user: str | None = None  # a name or a uid; None is the worker's own
    key_limits: Limits | None = None
    machine_pause_seconds: Seconds = (
        15.0  # of a slot whose own machine failed: time for healthy workers to take the job
    )
    fetch_seconds: Seconds = 10.0  # after this time a checkpoint that the store does not return counts as damaged
    unkillable_seconds: Seconds = 60.0  # how long to wait for a runner that SIGKILL does not end
    device_locks: Path = Path("/tmp/basin-devices")  # noqa: S108 - all workers of a host share it, whatever their TMPDIR
    device_probe_seconds: Seconds = 300.0  # between two probes of a GPU that stays out of service
    gpu_free_share: float = Field(default=0.5, ge=0, le=1)  # of a GPU's memory, before it is offered to a job
    prepare_confined: Literal["required", "best"] = "best"  # see worker/prepare/confine.py
    worker_state: Path | None = None  # a file that says whether the worker can run jobs, see worker/health_file.py
    max_streams: int = Field(default=500, ge=1)  # of one project in one api: event streams, and requests that wait
    upload_bytes: int = Field(default=100 << 30, ge=1, le=10**18)  # of one dataset
    uploads_at_once: int = Field(default=16, ge=1, le=1000)  # in one api process; each takes up to 16 MiB of memory
    keep_uploads_seconds: Seconds = 86400.0  # an upload that does not continue
    dataset_roots: Annotated[tuple[Path, ...], NoDecode] = ()  # folders whose content may be named as a dataset
    s3_profiles: SecretStr | None = (
        None  # JSON: buckets whose content may be named as a dataset, see core/store/profiles
    )
    header_seconds: Seconds = 30.0
    body_seconds: Seconds = 30.0  # a body of 1 MiB that takes longer is an attack or comes over a dead connection
    database_seconds: Seconds = 14.0  # with the time to detect it, no request waits for more than 15
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...] | None, NoDecode] = None

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "json", "text"] = "auto"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's; there is no .env
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above; ours are named one by one
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, SecretFiles(settings_cls), TomlConfigSettingsSource(settings_cls)

    @field_validator("home")
    @classmethod
    def _make_absolute(cls, home: Path) -> Path:
        # Parts of the service run with other working directories; they must all use the same folder.
        return Path(os.path.abspath(home.expanduser()))  # noqa: PTH100 - resolve() would follow a symlinked home

    @field_validator("trusted_proxies", "dataset_roots", mode="before")
    @classmethod
    def _split_list(cls, given: object) -> object:
        """An environment variable holds a list separated by commas; `basin.toml` holds a list."""
        return [one.strip() for one in given.split(",") if one.strip()] if isinstance(given, str) else given

    @field_validator("broker_url")
    @classmethod
    def _known_scheme(cls, url: SecretStr | None) -> SecretStr | None:
        """Refuse a broker URL that Celery cannot use: the worker would end at each start."""
        if url is not None and url.get_secret_value().partition("://")[0] not in _BROKERS:
            raise ValueError(f"must begin with one of {', '.join(f'{scheme}://' for scheme in _BROKERS)}")
        return url

    @model_validator(mode="after")
    def _lease_outlives_beats(self) -> Self:
        if self.lease_seconds < 2 * self.beat_seconds:
            raise ValueError("lease_seconds must be at least twice beat_seconds, or one late heartbeat loses the job")
        return self

    @property
    def gap_seconds(self) -> float:
        """After this long without a tick of any reconciler, leases are extended, not expired (6 s by default)."""
        return max(3 * self.tick_seconds, self.lease_seconds / 2)

    @property
    def hold_seconds(self) -> float:
        """After this long without a successful heartbeat, a supervisor holds its writes (9 s by default)."""
        return 0.75 * self.lease_seconds

    @property
    def datasets(self) -> Path:
        return self.home / "datasets"

    @property
    def prepared(self) -> Path:
        """The cache of prepared datasets."""
        return self.datasets / "prepared"

    @property
    def scratch(self) -> Path:
        return self.home / "scratch"

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def broker_socket(self) -> Path:
        """Where the embedded broker listens: under home, or in the temporary folder when that path is too long."""
        path = self.run / "broker.sock"
        if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
            return path
        mark = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"basin-{os.getuid()}-{mark}" / "broker.sock"

    def resolved_database_url(self) -> str:
        """The SQLAlchemy URL; by default an SQLite file under home."""
        if self.database_url is None:
            return f"sqlite:///{self.home / 'basin.db'}"
        url = self.database_url.get_secret_value()
        # Many hosting providers still give URLs with the scheme that libpq accepts and SQLAlchemy does not.
        return "postgresql://" + url.removeprefix("postgres://") if url.startswith("postgres://") else url

    def resolved_broker_url(self) -> str:
        """The broker's URL; by default the embedded broker's unix socket."""
        if self.broker_url is None:
            return f"redis+socket://{self.broker_socket}"
        return self.broker_url.get_secret_value()

    def resolved_store_url(self) -> str:
        """The object store's URL; by default a folder under home."""
        if self.store_url is None:
            return (self.home / "store").as_uri()
        return self.store_url.get_secret_value()
