"""No secret of a key in any log or answer, with everything logged and keys in all the wrong places."""

import logging
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
import typer
from typer.testing import CliRunner

from basin.cli import app as cli
from core.db.session import open_database
from core.jobs.keys import create_key, get_key
from core.logs import configure_logging
from core.redact import redact_secrets
from core.settings import Limits
from local.keys import key as key_commands
from local.projects import project as project_commands
from tests.support.broker import Broker
from tests.support.service import Service, until

Serve = Callable[[str, Broker | None], Service]


def test_a_key_loses_its_secret_and_keeps_its_id() -> None:
    bare = "bsn_01m84c0rnffgxad9jfym4h0ta6"
    assert redact_secrets(f"GET /v1/jobs/{bare}_{'0a' * 26}?x=1") == f"GET /v1/jobs/{bare}_***?x=1"
    assert redact_secrets(f"'{bare}_{'Zz-_' * 13}'") == f"'{bare}_***'"
    assert redact_secrets(f"{bare} is only a prefix") == f"{bare} is only a prefix"


def test_no_secret_in_logs_and_answers(serve: Serve, sqlite_url: str, tmp_path: Path) -> None:
    """A real api beyond loopback, at its most talkative."""
    db = open_database(sqlite_url)
    _, good = create_key(db, owner="local", scopes=("read", "write", "admin"))
    db.close()
    wrong = good[:-6] + good[-6:][::-1]
    service = serve(sqlite_url, None)
    service.environment |= {"BASIN_LOG_LEVEL": "DEBUG", "BASIN_HOST": "0.0.0.0"}  # noqa: S104 - that is the point
    part = service.start_api()
    said = []
    for text in (good, wrong):
        service.http.headers["Authorization"] = f"Bearer {text}"
        said += [answer.text for answer in misplaced(service.http, text)]
    assert service.http.get("/v1/jobs").status_code == 401
    part.stop()
    assert "404" in part.said, "the access log was written"
    for text in (good, wrong):
        secret = text.rpartition("_")[2]
        assert secret not in part.said
        assert [answer for answer in said if secret in answer] == []


def misplaced(http: httpx2.Client, text: str) -> list[httpx2.Response]:
    """The key where no key belongs."""
    spec = {"model": {"name": text}, "data": {"name": "iris"}, "optimizer": {"name": "sgd"}, text: 1}
    return [
        http.get(f"/v1/jobs/{text}"),
        http.get(f"/{text}"),
        http.get(f"/v1/jobs?status={text}&{text}=1"),
        http.post("/v1/jobs", json=spec),
        http.post("/v1/jobs", json=spec, headers={"Idempotency-Key": text, "X-Request-ID": text}),
        http.post("/v1/jobs", content=f"[{text}", headers={"Content-Type": "application/json"}),
        http.post("/v1/keys", json={"name": text, "scopes": [text]}),
        http.put("/v1/jobs", headers={"Content-Type": text}),
    ]


def test_tracebacks_are_cleaned_too(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    secret = "7" * 52
    try:
        configure_logging("DEBUG", "json")
        try:
            int(f"bsn_01m84c0rnffgxad9jfym4h0ta6_{secret}")
        except ValueError:
            logging.getLogger("basin.api").exception("unforeseen")
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:] = before
        root.setLevel(level)
    said = capsys.readouterr().err
    assert "ValueError: invalid literal" in said
    assert "bsn_01m84c0rnffgxad9jfym4h0ta6_***" in said
    assert secret not in said


@pytest.fixture
def basin(monkeypatch: pytest.MonkeyPatch, sqlite_url: str, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """`basin key …` on a database of its own."""
    monkeypatch.setenv("BASIN_HOME", str(tmp_path))
    monkeypatch.setenv("BASIN_DATABASE_URL", sqlite_url)

    def run(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(key_commands, list(arguments))
        return done.exit_code, done.stdout, done.stderr

    return run


def test_keys_by_command(basin: Callable[..., tuple[int, str, str]]) -> None:
    """The key alone on standard output, so that `BASIN_API_KEY=$(basin key create)` works."""
    assert basin("list")[1:] == ("", "No keys yet. Create one:  basin key create\n")
    code, text, told = basin("create", "--name", "ci", "--owner", "team", "--scope", "read", "--days", "30")
    assert (code, text.count("\n")) == (0, 1)
    key_id = told.split()[0]
    secret = text.strip().rpartition("_")[2]
    assert text == f"bsn_{key_id.removeprefix('key_')}_{secret}\n"
    assert secret not in told
    code, listed, _ = basin("list")
    assert listed.split("  ")[:5] == [key_id, "active", "team", "team", "read"]
    assert listed.endswith("  never used  ci\n")
    assert basin("list", "--owner", "nobody")[1] == ""
    assert basin("revoke", key_id)[:2] == (0, f"{key_id}  revoked\n")
    assert basin("list")[1].split("  ")[1] == "revoked"
    assert secret not in listed


def test_limits_of_keys_by_command(basin: Callable[..., tuple[int, str, str]], sqlite_url: str) -> None:
    """Each field of Limits has an option."""
    options = [("--" + name.replace("_", "-"), str(number)) for number, name in enumerate(Limits.model_fields, 1)]
    code, _, told = basin("create", "--owner", "alice", *(word for option in options for word in option))
    assert code == 0, told
    db = open_database(sqlite_url)
    key = get_key(db, "alice", told.split()[0])
    db.close()
    assert list(key.limits.model_dump().values()) == [1, 2, 3, 4, 5, 6]


def test_projects_by_command(basin: Callable[..., tuple[int, str, str]]) -> None:
    """Made, listed, and named by keys; without a name a key is of its owner's own."""

    def project(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(project_commands, list(arguments))
        return done.exit_code, done.stdout, done.stderr

    assert project("create", "vision", "--owner", "alice")[:2] == (0, "vision\n")
    taken = "basin project create: There is a project with the name 'vision' already.\n"
    assert project("create", "vision") == (1, "", taken)
    assert project("create", "")[0] == 1
    assert basin("create", "--project", "visoin")[:2] == (1, "")
    told = [basin("create", *given)[2] for given in (("--project", "vision"), (), ("--owner", "bob"))]
    places = ("local in project vision", "local in project default", "bob in project bob")
    assert all(f" of {place}, without expiry" in one for one, place in zip(told, places, strict=True))
    listed = project("list")[1].splitlines()
    assert [(line.split("  ")[0], line.split()[-1]) for line in listed] == [
        ("bob", "bob"),
        ("default", "local"),
        ("vision", "alice"),
    ]
    assert basin("list", "--project", "vision")[1].split("  ")[2:4] == ["local", "vision"]


def test_mistakes_by_command_are_one_line(
    basin: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert basin("create", "--scope", "root")[2].startswith("basin key create: A key needs an owner and some of")
    assert basin("create", "--owner", " ")[0] == 1
    assert basin("revoke", "key_01hzzzzzzzzzzzzzzzzzzzzzzz") == (
        *(1, "", "basin key revoke: There is no key with this id.\n"),
    )
    monkeypatch.setenv("BASIN_DATABASE_URL", f"sqlite:///{tmp_path / 'empty.db'}")
    assert basin("list")[2].endswith("run `basin migrate`\n")
    monkeypatch.setenv("BASIN_DATABASE_URL", "postgresql://root:hunter2@127.0.0.1:1/x")
    assert basin("list")[1:] == ("", "basin key list: the database is away\n")


def test_a_group_of_commands_can_be_plugged_in() -> None:
    assert isinstance(key_commands, typer.Typer)
    group = typer.main.get_command(key_commands)
    assert sorted(getattr(group, "commands", {})) == ["create", "list", "revoke"]
    assert cli.info.name == "basin"


def test_a_key_opens_a_real_service_at_once(serve: Serve, sqlite_url: str) -> None:
    """On loopback without keys; then one is made beside the api, and within five seconds it is the only way in."""
    service = serve(sqlite_url, None)
    service.start_api()
    assert service.http.get("/v1/jobs").status_code == 200
    with service.database() as db:
        _, text = create_key(db, owner="local")
    until("the api asks for a key", lambda: service.http.get("/v1/jobs").status_code == 401, 5)
    service.http.headers["Authorization"] = f"Bearer {text}"
    assert service.http.get("/v1/jobs").status_code == 200
