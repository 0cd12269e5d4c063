"""The app in this process, on a fresh database of each kind, and nothing of it faked but the hints."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.app import create_app
from api.dependencies import Service
from core.errors import BasinError
from core.settings import Settings
from tests.support.jobs import HeardHints

HERE = "http://127.0.0.1:8000"


def settings_for(home: Path, url: str) -> Settings:
    """Settings of a service at rest: its reconciler makes no round during a test."""
    return Settings(home=home, database_url=SecretStr(url), tick_seconds=600, host="127.0.0.1")


@pytest.fixture
def app(tmp_path: Path, database_url: str) -> FastAPI:
    """The app, not started, on SQLite and on PostgreSQL."""
    return create_app(settings_for(tmp_path, database_url))


def started(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as client:
        app.state.service = replace(app.state.service, hints=HeardHints())
        with suppress(BasinError):  # as every worker does before its first claim: the store gets its marker
            app.state.service.store.ping()
        yield client


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """A client of the started app."""
    yield from started(app)


@pytest.fixture
def light(tmp_path: Path, sqlite_url: str) -> Iterator[TestClient]:
    """The same on SQLite alone, for what no database has a say in."""
    yield from started(create_app(settings_for(tmp_path, sqlite_url)))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[TestClient]:
    """One for a whole file of tests that leave nothing behind, on SQLite."""
    home = tmp_path_factory.mktemp("shared")
    url = f"sqlite:///{shutil.copy(sqlite_template, home / 'shared.db')}"
    yield from started(create_app(settings_for(home, url)))


def service_of(client: TestClient) -> Service:
    app: Any = client.app
    service: Service = app.state.service
    return service


@pytest.fixture
def service(client: TestClient) -> Service:
    """The parts behind `client`."""
    return service_of(client)
