"""The parts that a team runs: PostgreSQL, an S3 store, Valkey over TCP, two workers. The same job, the same oracle."""

import secrets
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import select

from basin.client import Client
from core.db.tables import checkpoint
from core.store.location import Bucket, StoreLocation
from core.store.s3 import S3Store
from tests.faults.conftest import SHORT, Truth
from tests.faults.test_zombies import LEASE_SECONDS, newest_event, written_by
from tests.support.broker import PASSWORD, Broker, running_broker
from tests.support.databases import Server
from tests.support.proxy import Proxy
from tests.support.s3 import BUCKET, SECRET, in_bucket, unreliable
from tests.support.service import Part, Service, gone, make_home, until
from tests.support.stopping import signal_all

Check = Callable[[Service, str], None]
SETTINGS = {"store_url": "BASIN_STORE_URL", "s3_endpoint": "BASIN_S3_ENDPOINT"}


@dataclass(frozen=True)
class Stack:
    """The service, the proxy between it and its store, and the store as it is."""

    service: Service
    proxy: Proxy
    store: S3Store
    broker: Broker

    def owner_of(self, job_id: str) -> Part:
        """The worker that trains the only job: the one of the two that has a runner."""
        return until(f"a runner of {job_id}", lambda: next(iter(self.busy()), None))

    def busy(self) -> list[Part]:
        """The workers that train."""
        return [worker for worker in self.service.workers if worker.runners()]

    def objects(self) -> list[str]:
        return [stored.key for stored in self.store.list("")]


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lasting_stack(
    tmp_path_factory: pytest.TempPathFactory,
    datasets: Callable[[str], Path],
    postgresql_server: Server,
    s3_server: StoreLocation,
) -> Iterator[Stack]:
    name = f"stack_{secrets.token_hex(6)}"
    url = postgresql_server.make(name, postgresql_server.template)
    place = replace(s3_server, bucket=Bucket(BUCKET, f"stack-{secrets.token_hex(6)}"))
    home = make_home(tmp_path_factory.mktemp("stack") / "home", datasets)
    with running_broker(tcp=True) as broker, unreliable(place) as (proxy, behind):
        service = Service(home, url, broker.url)
        service.environment["BASIN_CARE_SECONDS"] = "1"
        service.environment |= {SETTINGS.get(key, key.upper()): value for key, value in in_bucket(behind).items()}
        yield Stack(service, proxy, S3Store(place), broker)
        service.stop()
    postgresql_server.drop(name)


@pytest.fixture
def stack(lasting_stack: Stack) -> Stack:
    """An api and two workers, and nothing that goes wrong."""
    lasting_stack.proxy.calm()
    lasting_stack.service.heal(workers=2)
    return lasting_stack


def ledger(stack: Stack, job_id: str) -> None:
    """Every row's objects are there, and with its digests; what is there without a row is garbage on its way out."""
    with stack.service.database() as db, db.read() as connection:
        query = select(checkpoint.c.key, checkpoint.c.files).where(
            checkpoint.c.job_id == job_id, checkpoint.c.status == "good"
        )
        rows = connection.execute(query).all()
    assert rows
    for key, files in rows:
        for file in files.values():
            assert stack.store._object_digest(f"{key}/{file['name']}").sha256 == file["sha256"]
    assert not (stack.service.home / "store").exists()


def test_the_whole_path(stack: Stack, same_as_undisturbed: Check, truth: Truth, tmp_path: Path) -> None:
    """Two jobs at once, one on each worker; then the client is sent to the store for the weights, without its key."""
    service = stack.service
    first, second = service.submit(truth.spec), service.submit(truth.spec)
    until("both workers train", lambda: len(stack.busy()) == 2)
    secretless(service)
    for job_id in (first, second):
        same_as_undisturbed(service, job_id)
        assert service.job(job_id)["attempt"] == 1
        ledger(stack, job_id)
    asked = service.http.get(f"/v1/jobs/{first}/metrics", params={"series": "val.loss", "max_points": 100_000}).json()
    told = asked["series"]["val.loss"]
    assert list(zip(told["steps"], told["values"], strict=True)) == truth.series["val.loss"]
    with Client(str(service.http.base_url), "bsn_x_k3y-c4n4ry") as client:
        (swa,) = [one for one in client.checkpoints(first) if one.kind == "swa"]
        before = len(stack.proxy.passed)
        client.download(swa, tmp_path / "weights")  # verifies the digest
    (there,) = [one for one in stack.proxy.passed[before:] if "X-Amz-Signature" in one.target]
    assert there.method == "GET"
    assert service.http.delete(f"/v1/jobs/{first}").status_code == 204
    until("its objects are gone", lambda: not any(first in key for key in stack.objects()))
    assert any(second in key for key in stack.objects())
    said = "".join(part.said for part in service.parts)
    assert [secret for secret in (SECRET, PASSWORD, "X-Amz-Signature", "k3y-c4n4ry") if secret in said] == []


def secretless(service: Service) -> None:
    """No process that runs training code has been told a secret, by its environment or its command line."""
    for worker in service.workers:
        zygote = worker.zygote()
        assert zygote is not None
        for process in (zygote, *worker.runners()):
            told = f"{process.environ()}{process.cmdline()}"
            assert "AWS_" not in told.replace("AWS_CA_BUNDLE", "")
            assert "c4n4ry" not in told
    assert SECRET in service.environment.values(), "a secret that nobody has been given is not found either"


def test_runner_and_zygote(stack: Stack, same_as_undisturbed: Check, truth: Truth) -> None:
    """Two jobs; SIGKILL to the runner of one and to the zygote of the other: their workers see it at once, without a
    lease that has to end, and both jobs go on from checkpoints in the store.
    """
    service = stack.service
    jobs = [service.submit(truth.spec) for _ in range(2)]
    until("both workers train", lambda: len(stack.busy()) == 2)
    for job_id in jobs:
        service.when_at(job_id, truth.steps // 5)
    one, other = service.workers
    (runner,), (below,), zygote = one.runners(), other.runners(), other.zygote()
    assert zygote is not None
    runner.kill()
    zygote.kill()
    assert gone(below, 2.0)
    for job_id in jobs:
        same_as_undisturbed(service, job_id)
        job = service.job(job_id)
        assert job["attempt"] == 2
        assert any("SIGKILL" in (entry["detail"] or "") for entry in job["timeline"])
        ledger(stack, job_id)


def test_api_and_broker(stack: Stack, same_as_undisturbed: Check, at_a_random_moment: Check, truth: Truth) -> None:
    """SIGKILL to both at once: who trains does not notice, and a job that comes while there is no broker is found."""
    service, api = stack.service, stack.service.api
    job_id = service.submit(truth.spec)
    at_a_random_moment(service, job_id)
    assert api is not None
    stack.broker.kill()
    api.kill()
    service.start_api()
    assert service.ended(service.submit(SHORT))["status"] == "succeeded"
    stack.broker.start()
    same_as_undisturbed(service, job_id)
    assert service.job(job_id)["attempt"] == 1
    ledger(stack, job_id)
    assert service.ended(service.submit(SHORT))["status"] == "succeeded"


def test_a_zombie_writes_nothing(stack: Stack, same_as_undisturbed: Check, truth: Truth) -> None:
    """SIGSTOP of worker, zygote and runner for three leases; the other worker ends the job; SIGCONT."""
    service = stack.service
    job_id = service.submit(truth.spec)
    service.when_at(job_id, truth.steps // 3)
    zombie = stack.owner_of(job_id)
    stopped, (runner,) = zombie.tree(), zombie.runners()
    signal_all(stopped, signal.SIGSTOP)
    asleep = time.monotonic()
    service.when(job_id, lambda job: job["attempt"] == 2)
    mark = newest_event(service)
    time.sleep(max(0.0, asleep + 3 * LEASE_SECONDS - time.monotonic()))
    signal_all(stopped, signal.SIGCONT)
    assert gone(runner, 5.0)
    same_as_undisturbed(service, job_id)
    assert service.job(job_id)["attempt"] == 2
    assert written_by(service, job_id, attempt=1, after=mark) == []
    ledger(stack, job_id)
    assert zombie.exit_code is None


def test_sigterm_and_a_crash(stack: Stack, same_as_undisturbed: Check, truth: Truth) -> None:
    """A worker is stopped, the other goes on with its job; there the runner crashes, and it goes on once more."""
    service = stack.service
    job_id = service.submit(truth.spec)
    before = service.when_at(job_id, truth.steps // 4)["progress"]["step"]
    assert stack.owner_of(job_id).stop(30.0) == 0
    service.when_at(job_id, truth.steps // 2)
    (*_, newest) = [each for each in service.checkpoints(job_id) if each["kind"] == "last"]
    assert newest["step"] >= before
    (runner,) = stack.owner_of(job_id).runners()
    runner.send_signal(signal.SIGSEGV)
    same_as_undisturbed(service, job_id)
    job = service.job(job_id)
    assert job["attempt"] == 3
    assert any("SIGSEGV" in (entry["detail"] or "") for entry in job["timeline"])
    ledger(stack, job_id)


def test_no_hint_and_a_poison(stack: Stack, truth: Truth) -> None:
    """Of an api that dies as soon as it has answered; the job kills its workers' runners until it is given up."""
    service, api = stack.service, stack.service.api
    assert api is not None
    job_id = service.submit(truth.spec | {"checkpoints": {"every": truth.steps}})
    api.kill()
    service.start_api()
    for attempt in (1, 2, 3):
        service.when(job_id, lambda job, now=attempt: job["attempt"] == now and bool(job["progress"].get("step")))
        (runner,) = until("a runner", stack.owner_of(job_id).runners)
        runner.kill()
    assert service.ended(job_id)["error"]["code"] == "worker_lost"
    assert service.ended(service.submit(SHORT))["status"] == "succeeded"


def test_worker_while_the_store_fails(
    stack: Stack, same_as_undisturbed: Check, at_a_random_moment: Check, truth: Truth
) -> None:
    """SIGKILL to the worker, and three of ten requests to the store go wrong: the other worker ends the job."""
    job_id = stack.service.submit(truth.spec)
    stack.proxy.at_random(0.3, seed=7)
    at_a_random_moment(stack.service, job_id)
    owner = stack.owner_of(job_id)
    below = owner.tree()[1:]
    owner.kill()
    assert all(gone(process, 2.0) for process in below)
    same_as_undisturbed(stack.service, job_id)
    assert stack.service.job(job_id)["attempt"] == 2
    stack.proxy.calm()
    ledger(stack, job_id)
    assert stack.service.ended(stack.service.submit(SHORT))["status"] == "succeeded"
