"""`basin doctor`: what works is called so, what does not is named with a way out, and nothing keeps it waiting."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from sqlalchemy import text
from typer.testing import CliRunner

from core.db.session import Database, open_database
from core.jobs.health.workers import SlotState, SlotUsage, WorkerReport, report_worker
from core.jobs.store_identity import IdentifiedStore, recorded_store_id
from core.settings import Settings
from core.store.base import Digest
from core.store.local import LocalStore
from core.store.marker import MARKER
from local.doctor import store as store_look
from local.doctor.checks import (
    CheckContext,
    CheckResult,
    CheckStatus,
    check_free_space,
    failed_check,
    passed_check,
    run_checks,
    worst_status,
)
from local.doctor.command import doctor
from local.doctor.database import database_checks
from local.doctor.devices import checks_of, device_checks
from local.doctor.home import home_checks
from local.doctor.settings import read_settings, settings_checks
from local.doctor.store import identity_checks
from tests.service.test_store_identity import stored_checkpoint
from tests.support.broker import Broker
from tests.support.jobs import last_tick, run_out, running, submitted
from tests.support.service import ROOT
from worker.devices.report import REMEDIES
from worker.verify import verify

SECRET = "c4n4ry-passphrase"  # noqa: S105 - must not show up anywhere


def verdicts(checks: list[CheckResult]) -> dict[str, CheckStatus]:
    """The worst of each name."""
    return {check.name: worst_status([each for each in checks if each.name == check.name]) for check in checks}


def settings_for(url: str, home: Path) -> Settings:
    return Settings.model_validate({"home": home, "database_url": url})


def looked(db: Database, url: str, home: Path) -> dict[str, CheckStatus]:
    found = list(database_checks(settings_for(url, home)))
    assert all(check.do for check in found if check.verdict is not CheckStatus.OK)
    return verdicts(found)


@pytest.fixture
def deaf() -> Iterator[int]:
    """The port of a server that takes every connection and never says a word."""
    server = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def hold() -> None:
        try:
            while True:
                held.append(server.accept()[0])
        except OSError:
            return

    thread = threading.Thread(target=hold)
    thread.start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    thread.join()
    for one in (*held, server):
        one.close()


def environment(**settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BASIN_", "AWS_"))}
    return kept | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'sdk'}"} | settings


def test_what_works_is_called_so(
    sqlite_url: str, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"HOME": str(tmp_path), "DATABASE_URL": sqlite_url, "BROKER_URL": broker.url}.items():
        monkeypatch.setenv(f"BASIN_{name}", value)
    (tmp_path / "store").mkdir()
    app = typer.Typer()
    app.command()(doctor)
    said = CliRunner().invoke(app, ["-o", "json"])
    assert said.exit_code == 0, said.output
    report = json.loads(said.stdout)
    found = {check["name"]: check for check in report["checks"]}
    assert {name for name, check in found.items() if check["verdict"] == "ok"} == {
        *("settings", "home", "disk", "permissions", "database", "writes", "clock", "schema", "leases"),
        *("broker", "store", "store disk", "devices", "parsers"),
    }
    assert found["workers"]["verdict"] == report["verdict"] == "warning"
    assert "basin worker" in found["workers"]["do"]
    assert f"home={tmp_path} (BASIN_HOME)" in found["settings"]["found"]
    assert list((tmp_path / "store").rglob("probe")) == []
    assert list(tmp_path.glob(".doctor*")) == []


def test_what_is_deaf_keeps_nobody_waiting(deaf: int, tmp_path: Path) -> None:
    """A process of its own: threads that hang in a driver must not keep it from ending either."""
    done = subprocess.run(
        [sys.executable, "-m", "basin", "doctor"],
        cwd=tmp_path,
        env=environment(
            BASIN_DATABASE_URL=f"postgresql://basin:{SECRET}@127.0.0.1:{deaf}/basin",
            BASIN_BROKER_URL=f"redis://:{SECRET}@127.0.0.1:{deaf}/0",
            BASIN_STORE_URL="s3://bucket",
            BASIN_S3_ENDPOINT=f"http://127.0.0.1:{deaf}",
            AWS_ACCESS_KEY_ID="somebody",
            AWS_SECRET_ACCESS_KEY=SECRET,
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    failed = [row.split()[1] for row in done.stdout.splitlines() if row.startswith("fail ")]
    assert failed == ["database", "broker", "store"]
    assert SECRET not in done.stdout
    assert f"database_url=postgresql://127.0.0.1:{deaf}/basin (BASIN_DATABASE_URL)" in done.stdout
    assert not (tmp_path / ".basin").exists()


def adopting(*arguments: str) -> tuple[int, list[dict[str, str]]]:
    app = typer.Typer()
    app.command()(doctor)
    said = CliRunner().invoke(app, [*arguments, "-o", "json"])
    return said.exit_code, [each for each in json.loads(said.stdout)["checks"] if each["name"] == "store"]


@pytest.fixture
def home(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose settings the command reads."""
    monkeypatch.setenv("BASIN_HOME", str(tmp_path))
    monkeypatch.setenv("BASIN_DATABASE_URL", database_url)
    return tmp_path


def test_a_store_that_is_not_the_databases_is_named_and_adopted(db: Database, home: Path) -> None:
    """The remedy is refused as long as the store has nothing of what the database names."""
    store = IdentifiedStore(LocalStore(home / "store"), db, where="here")
    stored_checkpoint(db, store, home)
    assert list(identity_checks(settings_for(str(os.environ["BASIN_DATABASE_URL"]), home))) == []
    (home / "store" / MARKER).unlink()
    (check,) = identity_checks(settings_for(str(os.environ["BASIN_DATABASE_URL"]), home))
    assert check.verdict is CheckStatus.FAIL
    assert check.found == f"the store at {home}/store is not the one that this database was made with"
    assert "basin doctor --adopt-store" in str(check.do)
    (home / "store" / "jobs").rename(home / "jobs")
    code, (refused,) = adopting("--adopt-store")
    assert (code, refused["verdict"]) == (1, "fail")
    assert "was not adopted: none of the checkpoints that the database names is in it" in refused["found"]
    (home / "jobs").rename(home / "store" / "jobs")
    code, (done,) = adopting("--adopt-store")
    assert (code, done["verdict"]) == (0, "ok")
    assert "its marker was written" in done["found"]
    store.ping()
    assert "nothing was changed" in adopting("--adopt-store")[1][0]["found"]


def test_a_check_of_all_jobs_cannot_tell_without_the_store(db: Database, home: Path) -> None:
    """One sentence and exit status 2, instead of a finding for each object; and the check makes no marker."""
    app = typer.Typer()
    app.command()(verify)
    assert CliRunner().invoke(app, []).exit_code == 0
    assert recorded_store_id(db) is None
    stored_checkpoint(db, IdentifiedStore(LocalStore(home / "store"), db, where="here"), home)
    (home / "store").rename(home / "elsewhere")
    said = CliRunner().invoke(app, [])
    assert (said.exit_code, said.stdout) == (2, "")
    assert "basin verify: The object store is not the one that this database was made with" in said.stderr


def test_adopting_without_a_database_makes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASIN_HOME", str(tmp_path))
    code, (refused,) = adopting("--adopt-store")
    assert (code, list(tmp_path.iterdir())) == (1, [])
    assert "there is no database yet" in refused["found"]


def test_a_database_without_jobs_needs_nobody(db: Database, database_url: str, tmp_path: Path) -> None:
    found = looked(db, database_url, tmp_path)
    assert {name for name, verdict in found.items() if verdict is CheckStatus.OK} == {
        *("database", "writes", "clock", "schema", "leases"),
    }
    assert found["reconciler"] is found["workers"] is CheckStatus.WARNING


def test_jobs_that_nobody_looks_after_are_a_failure(db: Database, database_url: str, tmp_path: Path) -> None:
    run_out(db, running(db).job_id)
    submitted(db)
    report_worker(db, WorkerReport("host:1", {"cpu": SlotUsage(2, 1)}))
    found = {check.name: check for check in database_checks(settings_for(database_url, tmp_path))}
    assert found["reconciler"].verdict is CheckStatus.FAIL
    assert "2 jobs are open" in found["reconciler"].found
    assert found["leases"].verdict is CheckStatus.OK  # over for a second; a reconciler may take eight
    assert found["workers"].verdict is CheckStatus.OK
    assert "1 live, 1 of 2 slots free, 1 jobs wait, the oldest for 0 s" in found["workers"].found
    with db.write() as connection:
        connection.execute(text("UPDATE job_state SET lease_until = lease_until - 100 WHERE status = 'running'"))
        connection.execute(text("UPDATE worker SET seen_at = seen_at - 100, release = '0.0.1'"))
        connection.execute(text("INSERT INTO service_state (name, at) VALUES ('tick', 0)"))
    last_tick(db, 1.0)
    found = {check.name: check for check in database_checks(settings_for(database_url, tmp_path))}
    assert found["reconciler"].verdict is CheckStatus.OK
    assert found["leases"].verdict is CheckStatus.FAIL
    assert found["workers"].verdict is CheckStatus.WARNING
    assert "last reported 10" in found["workers"].found


def test_a_schema_that_is_old_new_or_missing(db: Database, database_url: str, tmp_path: Path) -> None:
    for number, verdict in (("0001", CheckStatus.FAIL), ("9999", CheckStatus.WARNING)):
        with db.write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :number"), {"number": number})
        assert looked(db, database_url, tmp_path)["schema"] is verdict
    with db.write() as connection:
        connection.execute(text("UPDATE generation SET oldest = 2"))
    assert looked(db, database_url, tmp_path)["schema"] is CheckStatus.FAIL
    url = f"sqlite:///{tmp_path / 'empty.db'}"
    assert looked(db, url, tmp_path) == {"database": CheckStatus.FAIL}
    assert not (tmp_path / "empty.db").exists()
    empty = open_database(url, pool_size=1)
    with empty.read() as connection:
        connection.execute(text("SELECT 1"))
    empty.close()
    found = looked(db, url, tmp_path)
    assert (found["schema"], found["writes"]) == (CheckStatus.FAIL, CheckStatus.WARNING)
    (tmp_path / "other.db").write_bytes(b"no database at all" * 100)
    url = f"sqlite:///{tmp_path / 'other.db'}"
    (check,) = run_checks([CheckContext("database", lambda: database_checks(settings_for(url, tmp_path)), "do")])
    assert (check.verdict, check.found) == (CheckStatus.FAIL, "file is not a database")


def test_settings_say_where_they_come_from_and_what_looks_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "basin.toml").write_text(f'broker_url = "redis://:{SECRET}@h:1/0"\nlease_seconds = 10.0\n')
    monkeypatch.setenv("BASIN_LEASE_SECONDS", "11")
    settings, problems = read_settings()
    assert settings is not None
    assert problems == []
    given, typo, short = settings_checks(settings, {"BASIN_LEASE_SECONDS": "11", "BASIN_HOEM": "x", "BASIN_URL": "y"})
    assert given.found == (
        "broker_url=redis://h:1/0 (basin.toml), lease_seconds=11.0 (BASIN_LEASE_SECONDS); all else at its default"
    )
    assert (typo.found, typo.do) == ("BASIN_HOEM is no setting", 'did you mean "BASIN_HOME"?')
    assert "less than 4 heartbeats" in short.found
    monkeypatch.setenv("BASIN_PORT", SECRET)
    settings, (problem,) = read_settings()
    assert settings is None
    assert problem.found.startswith("port: Input should be a valid integer")
    (tmp_path / "basin.toml").write_text("port = ")
    assert [check.verdict for check in read_settings()[1]] == [CheckStatus.FAIL]


class Forgetful(LocalStore):
    """Gives other bytes than it took."""

    def fetch(self, key: str, path: Path) -> Digest:
        super().fetch(key, path)
        return Digest("00" * 32, 4096)


def test_a_store_is_tried_and_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, folder = Settings(home=tmp_path), tmp_path / "store"
    assert verdicts(list(store_look.store_checks(settings))) == {"store": CheckStatus.WARNING}
    assert not folder.exists()
    folder.mkdir()
    assert verdicts(list(store_look.store_checks(settings)))["store"] is CheckStatus.OK
    monkeypatch.setattr(store_look, "open_store", lambda _: Forgetful(folder))
    check = next(store_look.store_checks(settings))
    assert (check.verdict, "other bytes" in check.found) == (CheckStatus.FAIL, True)
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_a_home_that_is_none(tmp_path: Path) -> None:
    assert verdicts(list(home_checks(Settings(home=tmp_path / "new")))) == {"home": CheckStatus.WARNING}
    (tmp_path / "file").touch()
    assert verdicts(list(home_checks(Settings(home=tmp_path / "file")))) == {"home": CheckStatus.FAIL}


@pytest.mark.parametrize(
    ("free", "verdict"), [(2 << 30, CheckStatus.OK), (500 << 20, CheckStatus.WARNING), (50 << 20, CheckStatus.FAIL)]
)
def test_room_on_a_disk(free: int, verdict: CheckStatus) -> None:
    assert check_free_space("disk", free).verdict is verdict


def test_a_gpu_that_torch_does_not_see_is_told() -> None:
    blind = {"torch": {"ok": False, "torch": "2.13.0+cpu", "cuda": None, "detail": "not compiled"}, "devices": []}
    (check,) = checks_of(blind, [])
    assert (check.verdict, check.found.endswith("no GPU")) == (CheckStatus.OK, True)
    (check,) = checks_of(blind, [Path("/dev/nvidia0"), Path("/dev/nvidia1")])
    assert (check.verdict, "2 GPUs" in check.found, "without CUDA" in check.found) == (CheckStatus.WARNING, True, True)
    broken = {"torch": {"ok": False, "torch": None, "cuda": None, "detail": "libc10.so: no such file"}, "devices": []}
    (check,) = checks_of(broken, [])
    assert (check.verdict, check.found) == (CheckStatus.FAIL, "torch cannot be loaded: libc10.so: no such file")


def test_an_old_driver_that_lists_nothing_is_named() -> None:
    old = "The NVIDIA driver on your system is too old (found version 11040)."
    told = {"torch": {"ok": False, "torch": "2.13.0", "cuda": "13.0", "detail": old}, "devices": []}
    (check,) = checks_of(told, [Path("/dev/nvidia0")])
    assert check.verdict is CheckStatus.WARNING
    assert check.found.endswith(f"torch (built for CUDA 13.0) sees none: {old}")


def test_each_gpu_is_told_with_its_reason_and_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processes, as a worker's: a torch that a file plays, on a machine without NVML."""
    library = tmp_path / "library"
    shutil.copytree(ROOT / "tests" / "support" / "fake_torch", library)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(library), str(ROOT), str(ROOT / "sdk")]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    good = {"name": "Fake H1", "uuid": "a", "memory": 80_000_000_000, "free": 79_000_000_000}
    ill = good | {"uuid": "b", "error": "CUDA error: uncorrectable ECC error encountered"}
    machine = {"cuda": "13.0", "devices": {"GPU-a": good, "GPU-b": ill}}
    (library / "machine.json").write_text(json.dumps(machine))
    works, broken = device_checks(Settings(home=tmp_path, device_locks=tmp_path / "locks"))
    assert (works.verdict, broken.verdict) == (CheckStatus.OK, CheckStatus.WARNING)
    assert works.found.startswith("torch 2.13.0+fake, ")
    assert "CUDA 13.0: GPU-a: Fake H1, 80 GB, compute capability 9.0" in works.found
    assert broken.found == f"GPU-b cannot be used (failed): {ill['error']}"
    assert broken.do == REMEDIES["failed"]
    assert list(tmp_path.glob("locks/*")) == []


def test_slots_out_of_service_are_named(db: Database, database_url: str, tmp_path: Path) -> None:
    """From the rows of the workers, so that the doctor on any machine tells of them."""
    gpu = SlotState("gpu", "GPU-a", in_service=False, since=0.0, reason="timeout", detail="no answer in 90 s")
    cpu = SlotState("cpu", "", in_service=False, since=0.0, reason="unkillable", detail="the runner 7 does not die")
    report_worker(db, WorkerReport("host:1", {"cpu": SlotUsage(1, 1), "gpu": SlotUsage(0, 0)}, (gpu, cpu)))
    checks = list(database_checks(settings_for(database_url, tmp_path)))
    found = [check.found for check in checks if check.name == "workers" and check.verdict is CheckStatus.WARNING]
    assert [text.partition(": ")[2] for text in found] == [
        "GPU-a is out of service (timeout): no answer in 90 s",
        "a cpu slot is out of service (unkillable): the runner 7 does not die",
    ]


def test_looks_stand_in_their_order_and_none_holds_up_another() -> None:
    never = threading.Event()

    def stuck() -> Iterator[CheckResult]:
        yield passed_check("stuck", "first")
        never.wait(60)

    def broken() -> Iterator[CheckResult]:
        raise OSError("no such thing\nand more")
        yield passed_check("broken", "never")

    found = list(run_checks([CheckContext("stuck", stuck, "kick it", 0.2), CheckContext("broken", broken, "mend it")]))
    never.set()
    assert found == [
        passed_check("stuck", "first"),
        failed_check("stuck", "no answer within 0.2 s", "kick it"),
        failed_check("broken", "no such thing", "mend it"),
    ]
