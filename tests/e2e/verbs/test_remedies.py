"""What goes wrong with a job, what is done about it, and that the command line tells: on both kinds of service."""

import signal

import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file

from core.recipe.data.materialise import dataset_path, read_data
from tests.e2e.verbs.conftest import LONG, House

HUGE = (  # 3,600 examples in 8,192 hidden units: a forward pass takes some hundred megabytes
    *("--set", "model={name: mlp, hidden: [8192, 64]}", "--set", "batch_size=full", "--set", "steps=1"),
    *("--set", "data={name: blobs, examples: 4000, features: 4, classes: 3, validation: 0.1, test: 0}"),
)
WILD = ("--set", "data={name: diabetes}", "--set", "optimizer={name: sgd, lr: 1000000.0}")


def test_out_of_memory_goes_on_with_fewer_examples_at_once(house: House) -> None:
    zygote = house.zygote()
    usual = zygote.rlimit(psutil.RLIMIT_AS)
    zygote.rlimit(psutil.RLIMIT_AS, (zygote.memory_info().vms + (250 << 20), usual[1]))
    try:
        job_id, _ = house.followed("submit", "small.yaml", *HUGE)
    finally:
        zygote.rlimit(psutil.RLIMIT_AS, usual)
    told = house.events(job_id)
    assert "warning     remedy: out of memory: from now on at most 1800 examples at once, batches as before" in told


@pytest.mark.slow
def test_a_worker_that_is_killed_and_a_runner_that_stalls(house: House) -> None:
    """SIGKILL of the worker, then SIGSTOP of the runner: each time it goes on from its last checkpoint."""
    job_id = house.submit(*LONG, "--set", "checkpoints={every: 500st}")
    house.in_attempt(1, job_id, 501)
    house.runner()  # so that it counts as one of the family, should it be left behind
    house.up.part("worker").kill()
    claimed = house.in_attempt(2, job_id).progress.step
    stood = house.in_attempt(2, job_id, claimed + 501).progress.step
    house.runner().send_signal(signal.SIGSTOP)
    house.in_attempt(3, job_id)
    house.basin("cancel", job_id)
    told = house.events(job_id).splitlines()
    assert any("queued  worker lost" in line for line in told), told
    assert any("warning     attempt_lost: stalled" in line for line in told), told
    begun = [int(line.rpartition("from step ")[2]) for line in told if "from step" in line]
    assert len(begun) == 2
    assert begun[0] >= 500
    assert begun[1] >= stood - 500


@pytest.mark.slow
def test_a_job_that_kills_its_runners_is_given_up(house: House) -> None:
    job_id = house.submit(*LONG, "--set", "checkpoints={every: 90000000st}")
    for attempt in (1, 2, 3):
        house.in_attempt(attempt, job_id)
        house.runner().kill()
    followed = house.run("watch", job_id)
    assert followed.returncode == 1
    assert "worker_lost: Lost 3 times without a new checkpoint; the last time: the runner was" in followed.stdout
    assert house.events(job_id, "warning").count("attempt_lost: the runner was killed by SIGKILL") >= 2


@pytest.mark.slow
def test_divergence(house: House) -> None:
    """It fails at once, whatever may be retried; unless it may go back: then with a thousandth of the rate."""
    job_id, said = house.followed("submit", "small.yaml", *WILD, "--set", "max_retries=2", code=1)
    assert f"{job_id}  failed (non_finite)" in said
    assert "diverged: " in said
    assert "learning rate" in said
    assert house.events(job_id, "status").count("running") == 1
    rollback = ("--set", "rollback={factor: 0.000000001}")
    job_id, said = house.followed("submit", "small.yaml", *WILD, *rollback)
    assert f"{job_id}  succeeded" in said
    assert house.events(job_id, "warning").count("rolled_back: ") == 1


def test_bad_data_fails_at_once(house: House) -> None:
    """A generated dataset whose file on this machine was overwritten: no retry would make it better."""
    fields = '{"name": "blobs", "examples": 90, "features": 4, "classes": 3}'
    path = dataset_path(read_data(fields), house.home / "datasets")
    inputs = np.zeros((90, 4), np.float32)
    inputs[[3, 17], 2] = np.nan
    save_file({"inputs": inputs, "targets": np.arange(90) % 3}, path)
    job_id, said = house.followed("submit", "small.yaml", "--set", f"data={fields}", "--set", "max_retries=2", code=1)
    assert "bad_data: the dataset holds values that are not finite: rows 3, 17\n" in said
    assert house.events(job_id, "status").count("running") == 1


@pytest.mark.slow
def test_an_error_of_the_engine_is_retried_as_often_as_allowed(house: House) -> None:
    """Nobody but the package itself knows that it takes no negative decay."""
    lion = "optimizer={name: pytorch_optimizer, optimizer: lion, lr: 0.01, options: {weight_decay: -1.0}}"
    job_id, said = house.followed("submit", "small.yaml", "--set", lion, "--set", "max_retries=1", code=1)
    assert "engine_error: the optimizer pytorch_optimizer refuses its options: " in said
    told = house.events(job_id)
    assert told.count("warning     attempt_lost: retry after engine_error") == 1
    assert told.count("running  attempt") == 2
