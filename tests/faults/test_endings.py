"""Ends before the budget: cancelled, diverged, out of patience; and checkpoints that are not what was written."""

import signal
import time
from bisect import bisect_right
from collections.abc import Callable

import numpy as np
import psutil
import pytest
from safetensors.numpy import load
from sqlalchemy import select

from core.db.tables import event
from core.jobs.metrics.chunks import read_series
from tests.faults.conftest import SHORT, STEPS_PER_EPOCH, Truth
from tests.support.service import Service, gone, until

Check = Callable[[Service, str], None]


def cancel(service: Service, job_id: str) -> int:
    return service.http.post(f"/v1/jobs/{job_id}/cancel").status_code


def test_cancel(sqlite_service: Service, truth: Truth) -> None:
    """The runner ends its step and goes; the checkpoints stay, and the slot is free."""
    job_id = sqlite_service.submit(truth.spec)
    sqlite_service.when_at(job_id, truth.steps // 3)
    (runner,) = sqlite_service.worker.runners()
    assert cancel(sqlite_service, job_id) == 202
    job = sqlite_service.ended(job_id, seconds=15)
    assert (job["status"], job["stop_reason"]) == ("cancelled", "cancelled")
    assert gone(runner, 5.0)
    assert sqlite_service.checkpoints(job_id)
    assert cancel(sqlite_service, job_id) == 202
    assert sqlite_service.ended(sqlite_service.submit(SHORT))["status"] == "succeeded"


def test_pause_and_resume(either_service: Service, same_as_undisturbed: Check, truth: Truth) -> None:
    """Twice: at most one step is done again, the slot is free for others meanwhile, and the bits are the same."""
    job_id = either_service.submit(truth.spec)
    for attempt in (1, 2):
        before = either_service.when_at(job_id, attempt * truth.steps // 4)["progress"]["step"]
        (runner,) = either_service.worker.runners()
        answer = either_service.http.post(f"/v1/jobs/{job_id}/pause")
        assert (answer.status_code, answer.json()["status"]) == (202, "pausing")
        paused = either_service.when(job_id, lambda job: job["status"] == "paused", seconds=10)
        assert gone(runner, 5.0)
        (*_, newest) = either_service.checkpoints(job_id)
        assert newest["step"] >= max(before, paused["progress"]["step"] - 1)
        assert either_service.ended(either_service.submit(SHORT))["status"] == "succeeded"
        assert either_service.job(job_id)["status"] == "paused"
        assert either_service.http.post(f"/v1/jobs/{job_id}/resume").status_code == 202
        either_service.when(job_id, lambda job, last=attempt: job["attempt"] == last + 1, seconds=5)
    same_as_undisturbed(either_service, job_id)
    assert [entry["status"] for entry in either_service.job(job_id)["timeline"]] == [
        *("queued", "running", "pausing", "paused") * 2,
        *("queued", "running", "succeeded"),
    ]


@pytest.mark.slow
def test_retry_of_a_cancelled_job(either_service: Service, same_as_undisturbed: Check, truth: Truth) -> None:
    """From its last checkpoint, with the points before it: what comes out is what it would have been."""
    job_id = either_service.submit(truth.spec)
    either_service.when_at(job_id, truth.steps // 3)
    cancel(either_service, job_id)
    either_service.ended(job_id, seconds=15)
    (*_, newest) = [each for each in either_service.checkpoints(job_id) if each["kind"] == "last"]
    retried = either_service.http.post(f"/v1/jobs/{job_id}/retry").json()
    assert retried["retried_from"] == {"job": job_id, "step": newest["step"]}
    same_as_undisturbed(either_service, retried["id"])
    assert either_service.job(retried["id"])["resume"]["fidelity"] == "exact"
    assert either_service.job(job_id)["status"] == "cancelled"


def test_fork_of_a_finished_job(sqlite_service: Service) -> None:
    """Two endings of one past: a decayed one and SWA; each has its points, and its parent may go before it."""
    parent = sqlite_service.submit(SHORT | {"epochs": 4, "swa": None, "ema": None, "ensemble": None})
    assert sqlite_service.ended(parent)["status"] == "succeeded"
    fork = f"/v1/jobs/{parent}/fork"
    endings = (
        {"epochs": 6, "schedule": {"name": "linear", "end_factor": 0.0}},
        {"epochs": 6, "schedule": {"name": "constant"}, "swa": {"start": "4ep", "every": "1ep"}},
    )
    children = [sqlite_service.http.post(fork, json={"changes": changes}).json()["id"] for changes in endings]
    decayed, averaged = (sqlite_service.ended(child) for child in children)
    assert (decayed["status"], decayed["progress"]["step"]) == ("succeeded", 6 * STEPS_PER_EPOCH)
    assert decayed["forked_from"] == averaged["forked_from"] == {"job": parent, "step": 4 * STEPS_PER_EPOCH}
    assert "swa" in averaged["results"]
    with sqlite_service.database() as db:
        past, *futures = (read_series(db, job_id)["train.loss"] for job_id in (parent, *children))
    for future in futures:
        assert list(future.steps) == list(range(6 * STEPS_PER_EPOCH))
        assert list(future.values)[: len(past.steps)] == list(past.values)
    assert sqlite_service.job(parent)["children"] == children
    begun = sqlite_service.submit(SHORT | {"from": {"job": children[1]}})
    assert sqlite_service.ended(begun)["started_from"] == {"job": children[1], "step": 6 * STEPS_PER_EPOCH}
    with sqlite_service.database() as db:
        losses = read_series(db, begun)["train.loss"].values
    assert losses[0] < past.values[0] / 4, "the first batch meets weights that have learned"
    assert sqlite_service.http.delete(f"/v1/jobs/{parent}").status_code == 204


@pytest.mark.slow
def test_a_machine_with_too_little_memory(sqlite_service: Service) -> None:
    """The zygote may take 500 MB more, and its runners inherit that: a forward pass of 8,000 examples needs 1 GB. Each
    attempt says what is done about it, and the job ends as it would elsewhere, but for rounding.
    """
    spec = {
        "model": {"name": "mlp", "hidden": [8192, 64]},
        "data": {"name": "blobs", "examples": 8000, "features": 4, "classes": 3, "validation": 0.1, "test": 0},
        "optimizer": {"name": "sgd", "lr": 0.01},
        "batch_size": "full",
        "steps": 2,
    }
    plenty = sqlite_service.ended(sqlite_service.submit(spec))
    assert plenty["status"] == "succeeded"
    zygote = sqlite_service.worker.zygote()
    assert zygote is not None
    most = zygote.memory_info().vms + (500 << 20)
    zygote.rlimit(psutil.RLIMIT_AS, (most, most))
    job = sqlite_service.ended(sqlite_service.submit(spec))
    zygote.kill()
    assert (job["status"], job["error"]) == ("succeeded", None)
    said = [entry["detail"] or "" for entry in job["timeline"]]
    sizes = [int(word.split()[8]) for word in said if word.startswith("out of memory: from now on at most")]
    assert sizes == [3600 // 2**halved for halved in range(len(sizes))]
    assert len(sizes) == job["attempt"] - 1 >= 1
    events = sqlite_service.http.get(f"/v1/jobs/{job['id']}/events?types=warning").json()["data"]
    assert [each["data"]["code"] for each in events].count("remedy") == len(sizes)
    assert job["results"]["base"]["val"]["loss"] == pytest.approx(plenty["results"]["base"]["val"]["loss"], rel=1e-4)


def test_out_of_patience(sqlite_service: Service) -> None:
    """On data that this worker has to make first; the best weights are the job's result, and one checkpoint."""
    job_id = sqlite_service.submit(
        SHORT
        | {
            "epochs": 90,
            "data": {"name": "spirals", "examples": 600, "noise": 0.2},
            "swa": False,
            "evaluate": {"every": "1ep"},
            "checkpoints": {"every": "30st", "keep_best": 1},
            "early_stopping": {"patience": 4},
            "clip_grad": {"norm": 1.0},
        }
    )
    job = sqlite_service.ended(job_id)
    assert (job["status"], job["stop_reason"]) == ("succeeded", "early_stopping")
    assert job["progress"]["step"] < job["progress"]["steps"]
    assert job["results"]["base"] == job["results"]["best"]
    checkpoints = sqlite_service.checkpoints(job_id)
    (best,) = [each for each in checkpoints if each["kind"] == "best"]
    per_epoch = job["progress"]["step"] // job["progress"]["epoch"]
    assert best["step"] == job["progress"]["step"] - 4 * per_epoch
    assert best["metrics"]["test.loss"] == job["results"]["base"]["test"]["loss"]
    assert sqlite_service.http.get(best["links"]["content"]).status_code == 200
    names = sqlite_service.http.get(f"/v1/jobs/{job_id}/metrics/names").text
    assert all(name in names for name in ("grad_norm", "best.test.loss"))
    kept = {each["step"]: each["metrics"].get("val.loss") for each in checkpoints if each["kind"] == "last"}
    written = judged(sqlite_service, job_id)
    stays = min(written, key=lambda step: (written[step], step))
    assert kept == {step: written[step] for step in {*sorted(written)[-2:], stays}}


def judged(service: Service, job_id: str) -> dict[int, float]:
    """The step of each resumable checkpoint that was ever written, and the loss of the last evaluation before it."""
    events = service.http.get(f"/v1/jobs/{job_id}/events?types=checkpoint&limit=1000").json()["data"]
    with service.database() as db:
        losses = read_series(db, job_id, ["val.loss"])["val.loss"]
    steps = [event["data"]["step"] for event in events if event["data"]["kind"] == "last"]
    return {step: losses.values[bisect_right(losses.steps, step) - 1] for step in steps if step >= losses.steps[0]}


def test_a_point_that_has_arrived(sqlite_service: Service) -> None:
    """x(t) = 0.8^t; its function is data that the worker makes, its way a picture, its end the checkpoint."""
    body = {
        "model": {"name": "point", "start": [1.0]},
        "data": {"name": "function", "function": "square", "noise": {"scale": 2.0, "examples": 4}},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "batch_size": "full",
        "steps": 30,
    }
    job_id = sqlite_service.submit(body)
    job = sqlite_service.ended(job_id)
    assert job["results"] == {"base": {"train": {"loss": pytest.approx(0.8**60, rel=1e-4)}}}
    found = sqlite_service.http.get(f"/v1/jobs/{job_id}/metrics", params={"series": "point.x"}).json()["series"]
    assert found["point.x"]["steps"] == list(range(31))
    assert found["point.x"]["values"] == pytest.approx([0.8**t for t in range(31)], rel=1e-4)
    picture = sqlite_service.http.get(f"/v1/jobs/{job_id}/plot.svg", params={"kind": "path"})
    assert (picture.status_code, "square: f = x²" in picture.text) == (200, True)
    (last,) = [each for each in sqlite_service.checkpoints(job_id) if each["kind"] == "last"][-1:]
    tensors = load(sqlite_service.http.get(last["links"]["content"]).content)
    assert tensors["point.weight"].tolist() == found["point.x"]["values"][-1:]


def test_cancel_keeps_the_best_weights(sqlite_service: Service, truth: Truth) -> None:
    job_id = sqlite_service.submit(truth.spec | {"early_stopping": {"patience": 1000}})
    sqlite_service.when_at(job_id, truth.steps // 5)
    cancel(sqlite_service, job_id)
    job = sqlite_service.ended(job_id, seconds=15)
    (best,) = [each for each in sqlite_service.checkpoints(job_id) if each["kind"] == "best"]
    assert (job["status"], job["results"]["base"]["val"]["loss"]) == ("cancelled", best["metrics"]["val.loss"])


def test_cancel_of_a_runner_that_is_deaf(sqlite_service: Service, truth: Truth) -> None:
    """A stopped process cannot even hear SIGTERM: it is killed after the grace, within 15 s in all."""
    job_id = sqlite_service.submit(truth.spec)
    sqlite_service.when_at(job_id, truth.steps // 10)
    (runner,) = sqlite_service.worker.runners()
    runner.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    cancel(sqlite_service, job_id)
    assert sqlite_service.ended(job_id, seconds=15)["status"] == "cancelled"
    assert gone(runner, 15.0 - (time.monotonic() - begun))


def test_cancel_while_it_waits(sqlite_service: Service, truth: Truth) -> None:
    """A queued job is cancelled by a reconciler; no worker ever touches it."""
    first = sqlite_service.submit(truth.spec)
    second = sqlite_service.submit(truth.spec)
    assert cancel(sqlite_service, second) == 202
    assert sqlite_service.ended(second)["attempt"] == 0
    cancel(sqlite_service, first)
    sqlite_service.ended(first)


def test_divergence(sqlite_service: Service, truth: Truth) -> None:
    """A loss that is no number ends the job; the last finite checkpoint stays, and no retry is wasted on it."""
    explosion = {"name": "exponential", "gamma": 1e12, "every": 350, "staircase": True}
    job_id = sqlite_service.submit(
        truth.spec | {"schedule": explosion, "swa": False, "ensemble": None, "max_retries": 2}
    )
    job = sqlite_service.ended(job_id)
    assert (job["status"], job["stop_reason"], job["error"]["code"]) == ("failed", "non_finite", "diverged")
    assert job["attempt"] == 1, job["timeline"]
    assert job["error"]["remedy"].endswith("The last finite checkpoint is kept.")
    (kept,) = sqlite_service.checkpoints(job_id)
    assert kept["step"] == 300
    content = sqlite_service.http.get(f"/v1/checkpoints/{kept['id']}/content").content
    assert all(np.isfinite(tensor).all() for tensor in load(content).values())


def test_a_damaged_checkpoint(sqlite_service: Service, same_as_undisturbed: Check, truth: Truth) -> None:
    """One flipped bit is found before anything is loaded: the checkpoint before it is used, with an event."""
    job_id = sqlite_service.submit(truth.spec)
    sqlite_service.when_at(job_id, truth.steps // 3)
    sqlite_service.worker.stop()
    (*_, newest) = sqlite_service.checkpoints(job_id)
    (path,) = sqlite_service.home.glob(f"store/jobs/{job_id}/*-{newest['step']}-*/state.safetensors")
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.unlink()
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    sqlite_service.heal()
    same_as_undisturbed(sqlite_service, job_id)
    begun = [entry["detail"] for entry in sqlite_service.job(job_id)["timeline"] if entry["status"] == "running"]
    assert f"from step {newest['step']}" in begun[-1]
    with sqlite_service.database() as db, db.read() as connection:
        found = select(event.c.data).where(event.c.job_id == job_id, event.c.type == "warning")
        assert [data["code"] for data in connection.execute(found).scalars()] == ["checkpoint_corrupt"]


@pytest.mark.slow
def test_a_runner_that_stalls(brokerless_service: Service, same_as_undisturbed: Check, truth: Truth) -> None:
    """The heart of its supervisor beats on, but no sign comes: it is killed, lost with this cause, and done again."""
    job_id = brokerless_service.submit(truth.spec)
    brokerless_service.when_at(job_id, truth.steps // 3)  # each kind of work has been seen: the first may take longer
    (runner,) = until("the runner", brokerless_service.worker.runners)
    runner.send_signal(signal.SIGSTOP)
    brokerless_service.when(job_id, lambda job: job["attempt"] == 2, seconds=20)
    same_as_undisturbed(brokerless_service, job_id)
    assert any("stalled" in (entry["detail"] or "") for entry in brokerless_service.job(job_id)["timeline"])
