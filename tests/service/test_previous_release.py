"""Today's code on a database and a store that the previous release has written: nothing in them is lost.

tests/support/release_writer.py says how they are written again.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from core.db.migrate import at_head, upgrade_schema
from core.jobs.ledger.check import Ledger
from core.store.local import LocalStore
from tests.support.previous_release import PreviousRelease, unpack_release
from tests.support.service import Job, Service, make_home

STATUSES = {
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
    "paused": "paused",
    "forked": "succeeded",
    "queued": "queued",
}
Home = Callable[[str], PreviousRelease]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory, datasets: Callable[[str], Path]) -> Home:
    """A fresh copy of what the release has left, migrated to the schema of today."""

    def unpack(name: str) -> PreviousRelease:
        release = unpack_release(make_home(tmp_path_factory.mktemp(name) / "home", datasets))
        upgrade_schema(release.database_url)
        return release

    return unpack


@contextmanager
def served(release: PreviousRelease) -> Iterator[Service]:
    service = Service(release.home, release.database_url, None)
    service.http.headers["Authorization"] = f"Bearer {release.key}"
    try:
        yield service
    finally:
        service.stop()


@pytest.fixture(scope="module")
def release(unpacked: Home) -> PreviousRelease:
    """For tests that only read."""
    return unpacked("read")


@pytest.fixture(scope="module")
def reader(release: PreviousRelease) -> Iterator[Service]:
    """An api without a worker: nothing happens to what the release has left."""
    with served(release) as service:
        service.start_api()
        yield service


@pytest.fixture(scope="module")
def worked_on(unpacked: Home) -> PreviousRelease:
    """For tests in which a worker goes on with it."""
    return unpacked("work")


@pytest.fixture(scope="module")
def service(worked_on: PreviousRelease) -> Iterator[Service]:
    """An api and a worker. The queued job of the release is the first that it serves."""
    with served(worked_on) as service:
        service.heal()
        yield service


@pytest.fixture(scope="module")
def undisturbed(service: Service, worked_on: PreviousRelease) -> Job:
    """The job that the release has paused, and the one that it has cancelled, from start to end on this machine."""
    return service.ended(service.submit(worked_on.spec_of_paused))


def read(service: Service, path: str) -> Any:
    answer = service.http.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def metrics(service: Service, job_id: str) -> dict[str, tuple[list[int], list[float]]]:
    """Every point of every series that does not tell of time, the last of each step."""
    found = read(service, f"/v1/jobs/{job_id}/metrics?max_points=100000")["series"]
    return {name: (each["steps"], each["values"]) for name, each in found.items() if name != "throughput"}


def final_digests(service: Service, job_id: str) -> dict[str, str]:
    """What stands for every bit of the last checkpoint: its digest chain and its two files; and the average."""
    rows = service.checkpoints(job_id)
    step = max(row["step"] for row in rows)
    manifests = [
        json.loads(path.read_text()) for path in (service.home / "store/jobs" / job_id).glob("*/manifest.json")
    ]
    (last,) = (each for each in manifests if (each["kind"], each["step"]) == ("last", step))
    (swa,) = (row["sha256"] for row in rows if row["kind"] == "swa")
    files = {role: last["files"][role]["sha256"] for role in ("weights", "state")}
    return {"chain": last["digest"], "swa": swa, **files}


def test_the_database_migrates_and_the_ledger_finds_nothing_wrong(release: PreviousRelease, reader: Service) -> None:
    with reader.database() as db:
        assert at_head(db)
        assert list(Ledger(db, LocalStore(release.home / "store")).iter_findings()) == []


def test_its_key_opens_the_service(reader: Service) -> None:
    listed = {job["id"] for job in read(reader, "/v1/jobs")["data"]}
    assert len(listed) == len(STATUSES)
    other = reader.http.get("/v1/jobs", headers={"Authorization": "Bearer bsn_unknown"})
    assert other.status_code == 401


@pytest.mark.parametrize("name", STATUSES)
def test_a_job_reads_with_its_spec_events_and_metrics(release: PreviousRelease, reader: Service, name: str) -> None:
    job_id = release.written[name]
    job = reader.job(job_id)
    assert (job["name"], job["status"], job["metadata"]) == (name, STATUSES[name], {"team": "red"})
    assert job["model"]["hidden"] == release.spec_of_paused["model"]["hidden"]
    assert job["batch_size"] == 24
    assert job in read(reader, f"/v1/jobs?q={name}")["data"]
    events = read(reader, f"/v1/jobs/{job_id}/events")["data"]
    assert (events[0]["type"], events[0]["data"]["status"]) == ("status", "queued")
    found = metrics(reader, job_id)
    if name != "queued":
        assert found["train.loss"][0]
    if STATUSES[name] == "succeeded":
        assert job["results"]["swa"]["test"]["accuracy"] == found["swa.test.accuracy"][1][-1] > 0.5


def test_checkpoints_read_byte_for_byte(release: PreviousRelease, reader: Service) -> None:
    counts = {}
    for name in STATUSES:
        rows = reader.checkpoints(release.written[name])
        counts[name] = len(rows)
        for row in rows:
            answer = reader.http.get(row["links"]["content"])
            assert (answer.status_code, hashlib.sha256(answer.content).hexdigest()) == (200, row["sha256"])
            assert load(answer.content)
            assert row["pinned"] == (row["id"] == release.written["pinned"])
    assert {name for name, count in counts.items() if count} == {"succeeded", "cancelled", "paused", "forked"}


def test_jobs_compare(release: PreviousRelease, reader: Service) -> None:
    ids = ",".join(release.written[name] for name in ("succeeded", "forked"))
    found = read(reader, f"/v1/metrics/compare?jobs={ids}&series=val.loss")
    assert [job["name"] for job in found["jobs"]] == ["succeeded", "forked"]
    steps = found["series"]["val.loss"]["x"]
    first, second = found["series"]["val.loss"]["values"]
    assert (steps[-1], first[: steps.index(80)]) == (96, second[: steps.index(80)])  # the fork has its parent's past


def test_an_analysis_reads_with_its_arrays_and_pictures(release: PreviousRelease, reader: Service) -> None:
    analysis = read(reader, f"/v1/analyses/{release.written['analysis']}")
    assert (analysis["status"], analysis["subjects"][0]["job"]) == ("succeeded", release.written["succeeded"])
    content = reader.http.get(analysis["links"]["content"]).content
    assert np.load(io.BytesIO(content), allow_pickle=False).files
    assert analysis["pictures"]
    for link in analysis["pictures"].values():
        assert reader.http.get(link).status_code == 200


@pytest.mark.slow
def test_the_queued_job_runs_to_its_end(worked_on: PreviousRelease, service: Service) -> None:
    """It is the job that succeeded before, under another name."""
    queued, before = (worked_on.written[name] for name in ("queued", "succeeded"))
    assert service.ended(queued)["status"] == "succeeded"
    if worked_on.same_machine:
        assert final_digests(service, queued) == final_digests(service, before)
        assert metrics(service, queued) == metrics(service, before)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paused", "cancelled"])
def test_what_was_stopped_in_the_middle_goes_on_exactly(
    worked_on: PreviousRelease, service: Service, undisturbed: Job, name: str
) -> None:
    """The paused job resumes, the cancelled one is retried: both end with the bits of a run that nobody stopped.

    On another kind of machine than that of the release, a whole run has other bits before the stop already.
    """
    job_id = worked_on.written[name]
    if name == "paused":
        assert service.http.post(f"/v1/jobs/{job_id}/resume").status_code == 202
    else:
        job_id = service.http.post(f"/v1/jobs/{job_id}/retry").json()["id"]
    job = service.ended(job_id)
    assert job["status"] == "succeeded", job["error"]
    assert (job["resume"]["fidelity"], job["resume"]["reasons"]) == ("exact", [])
    if worked_on.same_machine:
        assert final_digests(service, job_id) == final_digests(service, undisturbed["id"])
        assert metrics(service, job_id) == metrics(service, undisturbed["id"])
        assert job["results"] == undisturbed["results"]


@pytest.mark.slow
def test_forks_and_warm_starts_begin_at_its_checkpoints(worked_on: PreviousRelease, service: Service) -> None:
    cancelled, succeeded = (worked_on.written[name] for name in ("cancelled", "succeeded"))
    fork = service.http.post(f"/v1/jobs/{succeeded}/fork", json={"changes": {"epochs": 11}})
    assert fork.status_code == 201, fork.text
    other = service.http.post(f"/v1/jobs/{cancelled}/fork", json={"changes": {"seed": 1, "epochs": 1200}})
    assert other.status_code == 201, other.text
    small = {**worked_on.spec_of_paused, "epochs": 2, "swa": None, "evaluate": {"every": "1ep"}}
    warm = service.submit({**small, "from": {"job": succeeded}})
    cold = service.submit(small)
    ends = {job_id: service.ended(job_id) for job_id in (fork.json()["id"], other.json()["id"], warm, cold)}
    assert {job["status"] for job in ends.values()} == {"succeeded"}
    assert ends[fork.json()["id"]]["progress"]["step"] == 88
    losses = [ends[job_id]["results"]["base"]["val"]["loss"] for job_id in (warm, cold)]
    assert losses[0] < losses[1]


def test_what_has_ended_can_be_deleted(worked_on: PreviousRelease, service: Service) -> None:
    failed = worked_on.written["failed"]
    assert service.http.delete(f"/v1/jobs/{failed}").status_code == 204
    assert service.http.get(f"/v1/jobs/{failed}").status_code == 404
