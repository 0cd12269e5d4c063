"""The schema that the migrations make is the schema that the code believes in."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from core.db.migrate import (
    MIGRATIONS,
    at_head,
    current_revision,
    head_revision,
    migration_config,
    too_old,
    upgrade_schema,
)
from core.db.session import Database, open_database
from core.db.tables import metadata
from core.errors import Misconfigured
from core.jobs.changes import mark_job_deleted
from core.jobs.health.workers import SlotState, SlotUsage, WorkerReport, list_worker_views, report_worker
from core.jobs.projects import list_projects
from core.jobs.queries import list_job_views
from core.jobs.queue.submit import Idempotency, create_job
from tests.support.jobs import set_state, small_spec


def test_migrations_and_tables_agree(db: Database) -> None:
    with db.write() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_check_constraints_refuse_what_the_lifecycle_does_not_know(db: Database) -> None:
    # compare_metadata does not look at check constraints.
    columns = "job_id, status, desired, needs, attempt, losses, failures, rank, version, progress"
    for values in (
        "'j', 'runing', 'run', 'any', 0, 0, 0, 0, 1, '{}'",
        "'j', 'queued', 'walk', 'any', 0, 0, 0, 0, 1, '{}'",
        "'j', 'queued', 'run', 'tpu', 0, 0, 0, 0, 1, '{}'",
    ):
        with pytest.raises(Exception, match=r"(?i)check constraint"), db.write() as connection:
            connection.execute(text(f"INSERT INTO job_state ({columns}) VALUES ({values})"))  # noqa: S608 - literals


def test_head_is_the_newest_file() -> None:
    assert head_revision() == "0014"


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new folder' / 'empty.db'}"
    return str(request.getfixturevalue("empty_postgresql_url"))


def test_an_empty_database_is_not_at_head_until_it_is_upgraded(empty_url: str) -> None:
    database = open_database(empty_url)
    try:
        assert not at_head(database)
        upgrade_schema(empty_url)
        assert at_head(database)
        upgrade_schema(empty_url)
        assert at_head(database)
    finally:
        database.close()


def test_what_the_first_release_wrote_is_brought_along(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners for the claim to count, and metadata to search by; what the release before still writes is taken too."""
    database = open_database(empty_url)
    first = "INSERT INTO job (id, owner, kind, spec, created_at) VALUES (:id, 'alice', 'train', :spec, 1.0)"
    state = (
        "INSERT INTO job_state (job_id, status, desired, needs, attempt, losses, failures, rank, version, progress)"
        " VALUES (:id, 'queued', 'run', 'any', 0, 0, 0, 0.0, 1, '{}')"
    )
    try:
        with monkeypatch.context() as older:
            older.setattr(command, "upgrade", lambda config, _, full=command.upgrade: full(config, "0001"))
            upgrade_schema(empty_url)
        with database.write() as connection:
            for job_id, spec in (("job_a", '{"metadata": {"team": "x"}}'), ("job_b", "{}")):
                connection.execute(text(first), {"id": job_id, "spec": spec})
                connection.execute(text(state), {"id": job_id})
        upgrade_schema(empty_url)
        with database.write() as connection:
            connection.execute(text(first), {"id": "job_c", "spec": "{}"})
            connection.execute(text(state), {"id": "job_c"})
        with database.read() as connection:
            columns = "SELECT job_id, owner, project FROM job_state ORDER BY job_id"
            owners = connection.execute(text(columns)).all()
            labels = connection.execute(text("SELECT * FROM job_label")).all()
        assert [tuple(row) for row in owners] == [
            ("job_a", "alice", "alice"),
            ("job_b", "alice", "alice"),
            ("job_c", None, None),
        ]
        assert [tuple(row) for row in labels] == [("job_a", "team", "x")]
    finally:
        database.close()


JOB = "INSERT INTO job (id, owner, kind, spec, created_at) VALUES (:id, :owner, 'train', '{}', 1.0)"
STATE = (
    "INSERT INTO job_state (job_id, owner, status, desired, needs, attempt, losses, failures, rank, version, progress)"
    " VALUES (:id, :owner, 'queued', 'run', 'any', 0, 0, 0, 0.0, 1, '{}')"
)
KEY = (
    "INSERT INTO api_key (id, owner, prefix, sha256, scopes, limits, created_at)"
    " VALUES (:id, :owner, 'bsn', :id, '[]', '{}', 1.0)"
)
PROMISE = "INSERT INTO idempotency (owner, key, body_digest, job_id, created_at) VALUES (:owner, 'once', 'd', :id, 1.0)"


def write_as_before(database: Database, number: int, owner: str) -> None:
    """A job, a key and a promise, as the release before projects writes them."""
    with database.write() as connection:
        for statement, prefix in ((JOB, "job"), (STATE, "job"), (KEY, "key")):
            connection.execute(text(statement), {"id": f"{prefix}_{number}", "owner": owner})
        connection.execute(text(PROMISE), {"id": f"job_{number}", "owner": owner})


def projects_by_id(database: Database) -> dict[str, str]:
    tables = ("id, project FROM job", "job_id, project FROM job_state", "id, project FROM api_key")
    found: dict[str, str] = {}
    with database.read() as connection:
        for rows in (connection.execute(text(f"SELECT {table}")).all() for table in tables):
            assert all(found.setdefault(row[0], row[1]) == row[1] for row in rows), "a job and its state agree"
    return found


def test_what_was_made_before_projects_is_seen_by_those_who_saw_it(empty: Database) -> None:
    """Each owner's rows in a project of their own, local's in the default one; also what the release before writes
    while it is being replaced. Promises are kept in both directions.
    """
    step(empty, "0010")
    write_as_before(empty, 1, "local")
    write_as_before(empty, 2, "alice")
    write_as_before(empty, 3, "default")
    step(empty, "0011")
    assert [one.name for one in list_projects(empty)] == ["alice", "default", "local"]
    expected = {1: "default", 2: "alice", 3: "local"}
    with empty.write() as connection:
        connection.execute(text("DELETE FROM idempotency WHERE owner = 'alice'"))
    assert create_job(empty, small_spec(), owner="local", idempotency=Idempotency("once", "d")).job_id == "job_1"
    assert create_job(empty, small_spec(), owner="default", idempotency=Idempotency("once", "d")).job_id == "job_3"
    fresh = create_job(empty, small_spec(), owner="alice", idempotency=Idempotency("once", "d")).job_id
    with empty.read() as connection:
        rows = connection.execute(text("SELECT job_id FROM idempotency WHERE owner = 'alice'")).scalars().all()
    assert rows == [fresh], "the release before finds it, too"
    with empty.write() as connection:
        connection.execute(text("DELETE FROM idempotency"))
    for number, owner in ((4, "local"), (5, "carol")):
        write_as_before(empty, number, owner)
    expected |= {4: "default", 5: "carol"}
    found = projects_by_id(empty)
    assert found.pop(fresh) == "alice"
    assert found == {f"{prefix}_{n}": project for n, project in expected.items() for prefix in ("job", "key")}
    assert [one.name for one in list_projects(empty)] == ["alice", "carol", "default", "local"]


def test_a_job_that_the_release_before_deletes_is_gone(empty: Database) -> None:
    """It hands the job to nobody; so does this release, and the one before must find that."""
    step(empty, head_revision())
    write_as_before(empty, 1, "local")
    (kept,) = (create_job(empty, small_spec(), owner="local").job_id,)
    with empty.write() as connection:
        for table, column in (("job_state", "job_id"), ("job", "id")):
            connection.execute(text(f"UPDATE {table} SET owner = '' WHERE {column} = 'job_1'"))  # noqa: S608 - literals
    assert [view.id for view in list_job_views(empty, "default")[0]] == [kept]
    set_state(empty, kept, status="cancelled")
    mark_job_deleted(empty, "default", kept)
    with empty.read() as connection:
        owners = connection.execute(text("SELECT owner, project FROM job")).all()
    assert [tuple(row) for row in owners] == [("", "")] * 2


def test_the_light_lane_is_let_in_and_everything_about_the_table_stays(empty: Database) -> None:
    """SQLite makes the table anew: rows, indices and the triggers for the release before have to come along."""
    step(empty, "0012")
    write_as_before(empty, 1, "alice")
    with pytest.raises(Exception, match=r"(?i)check constraint"), empty.write() as connection:
        connection.execute(text("UPDATE job_state SET needs = 'light'"))
    with empty.read() as connection:
        rows = connection.execute(text("SELECT * FROM job_state")).all()
    step(empty, "0013")
    with empty.read() as connection:
        assert connection.execute(text("SELECT * FROM job_state")).all() == rows
    write_as_before(empty, 2, "carol")
    with empty.write() as connection:
        connection.execute(text("UPDATE job_state SET needs = 'light' WHERE job_id = 'job_2'"))
        connection.execute(text("UPDATE job_state SET owner = '' WHERE job_id = 'job_1'"))
        found = connection.execute(text("SELECT job_id, needs, project FROM job_state ORDER BY job_id")).all()
    assert [tuple(row) for row in found] == [("job_1", "any", ""), ("job_2", "light", "carol")]
    with pytest.raises(Exception, match=r"(?i)check constraint"), empty.write() as connection:
        connection.execute(text("UPDATE job_state SET needs = 'tpu'"))


def test_several_processes_may_upgrade_at_once(empty_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(upgrade_schema, empty_url) for _ in range(4)]:
            done.result()
    database = open_database(empty_url)
    try:
        assert at_head(database)
    finally:
        database.close()


@pytest.fixture
def empty(empty_url: str) -> Iterator[Database]:
    with closing(open_database(empty_url)) as database:
        yield database


def shape(database: Database) -> dict[str, Any]:
    """Every table with all that the database itself knows about it, whatever order it was made in."""
    with database.read() as connection:
        found = inspect(connection)
        return {
            name: {
                "columns": {each["name"]: (str(each["type"]), each["nullable"]) for each in found.get_columns(name)},
                "key": found.get_pk_constraint(name)["constrained_columns"],
                "indexes": sorted(str(sorted(each.items())) for each in found.get_indexes(name)),
                "foreign": sorted(str(sorted(each.items())) for each in found.get_foreign_keys(name)),
                "checks": sorted(str(each["sqltext"]) for each in found.get_check_constraints(name)),
            }
            for name in found.get_table_names()
            if name != "alembic_version"
        }


def step(database: Database, target: str, *, down: bool = False) -> None:
    with migration_config(database) as config:
        (command.downgrade if down else command.upgrade)(config, target)


def test_each_migration_is_undone_by_its_way_back(empty: Database) -> None:
    """Up one by one, and down again over the same shapes; what the first release wrote stays all the way."""
    names = sorted(path.name[:4] for path in MIGRATIONS.glob("[0-9]*.py"))
    shapes: list[dict[str, Any]] = []
    for name in names:
        step(empty, name)
        shapes.append(shape(empty))
    assert all(before != after for before, after in pairwise(shapes))
    with empty.write() as connection:
        row = "INSERT INTO job (id, owner, kind, spec, created_at) VALUES ('job_a', 'alice', 'train', '{}', 1.5)"
        connection.execute(text(row))
    for name, expected in reversed(list(zip(names[:-1], shapes[:-1], strict=True))):
        step(empty, name, down=True)
        assert (current_revision(empty), shape(empty)) == (name, expected)
    with empty.read() as connection:
        kept = connection.execute(text("SELECT id, owner, spec, created_at FROM job")).one()
    assert tuple(kept) == ("job_a", "alice", "{}", 1.5)
    step(empty, names[-1])
    assert shape(empty) == shapes[-1]
    step(empty, "base", down=True)
    assert shape(empty) == {}


def test_a_newer_schema_is_left_alone_unless_it_is_too_new(empty: Database, empty_url: str) -> None:
    """Migrations keep the releases before them running, and one that does not says so."""
    upgrade_schema(empty_url)
    with empty.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    upgrade_schema(empty_url)
    assert (current_revision(empty), too_old(empty)) == ("9999", None)
    with empty.write() as connection:
        connection.execute(text("UPDATE generation SET oldest = 2"))
    with pytest.raises(Misconfigured, match=r"too old for the database, .* install a newer release here"):
        upgrade_schema(empty_url)


def test_there_is_one_generation(db: Database) -> None:
    with pytest.raises(Exception, match=r"(?i)check constraint"), db.write() as connection:
        connection.execute(text("INSERT INTO generation (id, oldest) VALUES (2, 2)"))


@pytest.mark.parametrize("one", [1, 2])
def test_a_database_has_one_store(db: Database, one: int) -> None:
    row = "INSERT INTO store_identity VALUES (:one, 'a', 0.0)"
    with db.write() as connection:
        connection.execute(text(row), {"one": 1})
    with pytest.raises(Exception, match=r"(?i)check constraint|unique"), db.write() as connection:
        connection.execute(text(row), {"one": one})


def test_workers_of_this_release_and_of_the_one_before_read_each_others_rows(db: Database) -> None:
    """As 0009 had the table: no devices, and readers that know two numbers of each kind of slot."""
    columns, values = "id, host, pid, slots, release, started_at, seen_at", "'old', 'h', 1, :slots, '0.0.9', 0, 0"
    old_row = f"INSERT INTO worker ({columns}) VALUES ({values})"  # noqa: S608 - literals
    with db.write() as connection:
        connection.execute(text(old_row), {"slots": '{"cpu":{"slots":2,"free":1}}'})
    out = SlotState("gpu", "GPU-a", in_service=False, since=1.5, reason="timeout", detail="no answer")
    report_worker(db, WorkerReport("new", {"gpu": SlotUsage(1, 1, ("timeout",))}, (out,)))
    new, old = list_worker_views(db, "alice")
    assert (old.slots, old.states) == ({"cpu": SlotUsage(2, 1)}, ())
    assert (new.slots, new.states) == ({"gpu": SlotUsage(1, 1, ("timeout",))}, (out,))
    with db.read() as connection:
        slots = connection.execute(text("SELECT slots FROM worker WHERE id = 'new'")).scalar_one()
    assert json.loads(slots) == {"gpu": {"slots": 1, "free": 1}}
    with db.write() as connection:
        later = json.dumps([asdict(out) | {"temperature": 91}])
        connection.execute(text("UPDATE worker SET devices = :later WHERE id = 'new'"), {"later": later})
    assert list_worker_views(db, "alice")[0].states == (out,)
