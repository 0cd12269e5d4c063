"""Settings: the environment wins over basin.toml, and secrets never show."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

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
