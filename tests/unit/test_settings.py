"""Settings: the environment wins over basin.toml, and secrets never show."""

import os
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from core.errors import Misconfigured
from core.settings import Settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("BASIN_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_defaults_are_those_of_the_protocol(tmp_path: Path) -> None:
    settings = Settings()
    assert settings.home == tmp_path / ".basin"
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert (settings.lease_seconds, settings.beat_seconds, settings.tick_seconds) == (12.0, 3.0, 2.0)
    assert (settings.gap_seconds, settings.hold_seconds) == (6.0, 9.0)
    assert settings.resolved_database_url() == f"sqlite:///{tmp_path}/.basin/basin.db"
    assert settings.resolved_broker_url() == f"redis+socket://{settings.broker_socket}"
    assert settings.resolved_store_url() == f"file://{tmp_path}/.basin/store"
    assert [settings.datasets, settings.scratch, settings.run, settings.logs] == [
        tmp_path / ".basin" / name for name in ("datasets", "scratch", "run", "logs")
    ]


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "basin.toml").write_text('port = 8100\nhost = "127.0.0.2"\nlease_seconds = 6\n')
    monkeypatch.setenv("BASIN_PORT", "8200")
    monkeypatch.setenv("BASIN_BEAT_SECONDS", "0.5")
    monkeypatch.setenv("BASIN_STORE_URL", "")
    settings = Settings()
    assert (settings.port, settings.host) == (8200, "127.0.0.2")
    assert (settings.lease_seconds, settings.beat_seconds, settings.gap_seconds) == (6.0, 0.5, 6.0)
    assert settings.store_url is None


def test_a_relative_home_means_the_same_folder_for_every_part(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("BASIN_HOME", "data/../here")
    assert Settings().home == tmp_path / "here"
    monkeypatch.setenv("BASIN_HOME", "~/basin")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings().home == tmp_path / "basin"


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASIN_DATABASE_URL", "postgres://u:canary@host/basin")
    monkeypatch.setenv("BASIN_BROKER_URL", "redis://:canary@host/0")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "canary")
    settings = Settings()
    assert "canary" not in f"{settings!r} {settings}"
    assert settings.resolved_database_url() == "postgresql://u:canary@host/basin"
    assert settings.resolved_broker_url() == "redis://:canary@host/0"
    monkeypatch.setenv("BASIN_BEAT_SECONDS", "11")
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert "canary" not in str(refused.value)


def test_the_keys_of_s3_have_the_names_that_everybody_uses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert (Settings().aws_access_key_id, Settings().aws_region, Settings().s3_endpoint) == (None, "us-east-1", None)
    (tmp_path / "basin.toml").write_text('aws_region = "eu-west-1"\ns3_endpoint = "http://store:8333"\n')
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    settings = Settings()
    assert (settings.aws_access_key_id, settings.aws_region) == ("id", "eu-west-1")
    assert settings.s3_endpoint == "http://store:8333"
    assert settings.aws_secret_access_key is not None
    assert settings.aws_secret_access_key.get_secret_value() == "secret"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    assert Settings().aws_region == "eu-west-2"
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    assert Settings().aws_region == "eu-west-3"


@pytest.mark.parametrize(
    "line",
    [
        "prot = 8000",
        "port = 70000",
        "port = -1",
        "lease_seconds = 5",
        "tick_seconds = 0",
        "tick_seconds = inf",
        "downloads = 3",
    ],
)
def test_mistakes_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "basin.toml").write_text(line + "\n")
    with pytest.raises(ValidationError):
        Settings()


def test_a_socket_path_that_is_too_long_moves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BASIN_HOME", str(tmp_path / ("x" * 120)))
    first = Settings().broker_socket
    assert len(os.fsencode(first)) <= 100
    assert first == Settings().broker_socket
    monkeypatch.setenv("BASIN_HOME", str(tmp_path / ("y" * 120)))
    assert Settings().broker_socket.parent != first.parent


SECRETS = [
    "BASIN_DATABASE_URL",
    "BASIN_BROKER_URL",
    "BASIN_STORE_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "BASIN_S3_PROFILES",
]
VALUE = "redis://:canary@host/0"  # of a form that every one of them takes


def read(name: str) -> str:
    value = getattr(Settings(), name.removeprefix("BASIN_").lower())
    return str(value.get_secret_value() if isinstance(value, SecretStr) else value)


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_may_stand_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """Everybody who may ask Docker about a container reads its environment."""
    file = tmp_path / "secret"
    monkeypatch.setenv(f"{name}_FILE", str(file))
    for written in (VALUE, f"{VALUE}\n"):
        file.write_text(written)
        assert read(name) == VALUE
    if name != "BASIN_BROKER_URL":
        file.write_text("\n two lines \n\n")
        assert read(name) == "\n two lines \n", "only one newline at the end is the file's and not the value's"
    monkeypatch.setenv(name, "")
    file.write_text(VALUE)
    assert read(name) == VALUE


def test_every_secret_setting_may_stand_in_a_file() -> None:
    secret = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert secret <= {name.removeprefix("BASIN_").lower() for name in SECRETS}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_stands_in_one_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text(VALUE)
    monkeypatch.setenv(f"{name}_FILE", str(tmp_path / "secret"))
    monkeypatch.setenv(name, VALUE)
    with pytest.raises(Misconfigured) as refused:
        Settings()
    assert str(refused.value) == f"{name} and {name}_FILE are both set; leave one of them"


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "No such file"), (b"", "empty"), (b"\n", "empty"), (b"canary\xff", "not UTF-8 text")],
)
def test_a_file_that_cannot_be_read_is_named_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, problem: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("BASIN_DATABASE_URL_FILE", str(file))
    with pytest.raises(Misconfigured) as refused:
        Settings()
    assert f"BASIN_DATABASE_URL_FILE names {file}" in str(refused.value)
    assert problem in str(refused.value)
    assert "canary" not in str(refused.value)


def test_a_file_wins_over_basin_toml_and_no_other_setting_has_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "basin.toml").write_text('database_url = "postgresql://old"\n')
    (tmp_path / "secret").write_text("postgresql://new\n")
    monkeypatch.setenv("BASIN_DATABASE_URL_FILE", str(tmp_path / "secret"))
    monkeypatch.setenv("BASIN_HOST_FILE", str(tmp_path / "secret"))
    assert (Settings().resolved_database_url(), Settings().host) == ("postgresql://new", "127.0.0.1")
