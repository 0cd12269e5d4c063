"""Every verb by the command line alone, on the embedded service and on PostgreSQL with a broker of its own."""

import re
from itertools import pairwise

import pytest

from tests.e2e.verbs.conftest import LONG, House

CHECKPOINT = re.compile(r"^(\w+) +(\d+) +\S+ \S+ +(ckpt_\w+)", re.MULTILINE)


def listed(page: str) -> list[tuple[str, int, str]]:
    """(kind, step, id) of the checkpoints on a page of `basin show`."""
    return [(kind, int(step), id_) for kind, step, id_ in CHECKPOINT.findall(page)]


def test_submit_list_show_pin_delete(house: House) -> None:
    assert "This job is valid." in house.basin("submit", "small.yaml", "--dry-run")
    job_id, said = house.followed("submit", "small.yaml", "--set", "checkpoints={every: 50st}")
    assert f"{job_id}  succeeded" in said
    assert job_id in house.basin("ls", "--status", "succeeded")
    page = house.basin("show", job_id)
    assert "succeeded (completed)" in page
    (_, first, older), (_, last, newest) = listed(page)
    assert (first, last) == (150, 200)
    assert house.basin("pin", older, newest).splitlines() == [
        f"{older}  pinned  (last weights of step 150)", f"{newest}  pinned  (last weights of step 200)"]  # fmt: skip
    assert re.search(rf"{older} +pinned", house.basin("show", job_id))
    said = house.refused("delete", job_id)
    assert f"{older}, {newest}. Unpin them, and delete it then. (409 conflict)" in said
    assert house.basin("unpin", older, newest) == f"{older}  unpinned\n{newest}  unpinned\n"
    assert house.basin("delete", job_id) == f"{job_id}  deleted\n"


def test_pause_resume_cancel_retry(house: House) -> None:
    """The slot is free while it is paused: the two that wait are served in the order that their owner wants."""
    long = house.submit(*LONG)
    house.in_attempt(1, long)
    first, second = house.submit(), house.submit()
    house.basin("edit", second, "--priority", "5")
    waiting = house.basin("queue")
    assert waiting.index(second) < waiting.index(first)
    assert "The only slot is busy" in waiting
    assert re.match(rf"{long}  (pausing|paused)\n", house.basin("pause", long))
    assert f"{first}  succeeded" in house.basin("watch", first)
    starts = [house.when(job_id, lambda job: job.finished).started_at for job_id in (second, first)]
    assert starts == sorted(starts, key=str)
    stood = house.when(long, lambda job: job.status == "paused").progress.step
    assert re.match(rf"{long}  (queued|running)\n", house.basin("resume", long))
    house.in_attempt(2, long, stood + 1)
    assert re.match(rf"{long}  (cancelling|cancelled)\n", house.basin("cancel", long))
    assert house.run("watch", long).returncode == 1
    assert "(409 conflict)" in house.refused("resume", long)
    told = [line.split()[4] for line in house.events(long, "status").splitlines()]
    assert told == ["queued", "running", "pausing", "paused", "queued", "running", "cancelling", "cancelled"]
    again = house.basin("retry", long).split()[0]
    house.in_attempt(1, again, stood + 1)
    assert re.match(rf"{long}  cancelled\n{again}  cancell(ing|ed)\n", house.basin("cancel", long, again))
    step = re.search(rf"retry of {long}, from step (\d+)", house.events(again))
    assert step is not None
    assert int(step[1]) >= stood


@pytest.mark.slow
def test_forks_and_warm_starts(house: House) -> None:
    """One past with three endings: a decay to zero, an average, and the data in another order."""
    parent, _ = house.followed("submit", "small.yaml", "--set", "checkpoints={every: 100st}")
    kept = {step: id_ for kind, step, id_ in listed(house.basin("show", parent)) if kind == "last"}
    assert set(kept) == {100, 200}
    fork = ("fork", parent, "--at", "100", "--set", "steps=300")
    decayed, _ = house.followed(*fork, "--set", "schedule={name: linear, end_factor: 0.0}")
    averaged, said = house.followed(*fork, "--set", "swa={start: 250st, every: 10st, lr: 0.05}")
    assert re.search(r"^swa +\d", said, re.MULTILINE)
    shuffled, _ = house.followed(*fork, "--set", "seed=7")
    with house.client() as client:
        found = {each: client.metrics(each, ["train.loss", "lr"]) for each in (parent, decayed, averaged, shuffled)}
    losses = {each: series["train.loss"].values for each, series in found.items()}
    assert all(losses[each][:100] == losses[parent][:100] for each in (decayed, averaged, shuffled))
    assert losses[averaged][100:200] == losses[parent][100:200], "until it averages, it is what it was"
    assert all(one != other for one, other in zip(losses[shuffled][100:200], losses[parent][100:], strict=True))
    rates = [rate or 0.0 for rate in found[decayed]["lr"].values]
    assert rates[299] == pytest.approx(0.1 / 300)
    assert all(one > other for one, other in pairwise(rates[100:]))
    for origin in (f"{{job: {parent}}}", f"{{checkpoint: {kept[100]}}}"):
        warm, _ = house.followed("submit", "small.yaml", "--set", f"from={origin}", "--set", "steps=1")
        with house.client() as client:
            (begun,) = client.metrics(warm, ["train.loss"])["train.loss"].values
        assert (begun or 9.0) < (losses[parent][0] or 0.0) / 1.5, "weights that have learned"


@pytest.mark.slow
def test_limits_are_told_plainly(house: House) -> None:
    """One of bob's jobs may run and one may wait; paused ones wait too."""
    running = house.submit(*LONG, who="bob")
    house.when(running, lambda job: job.status == "running", who="bob")
    waiting = house.submit(who="bob")
    assert "1 of your jobs run, and 1 may." in house.basin("queue", who="bob")
    assert house.basin("pause", waiting, who="bob") == f"{waiting}  paused\n"
    house.basin("cancel", running, who="bob")
    assert house.refused("submit", "small.yaml", who="bob") == (
        "error: 1 job is queued or paused already, and this key may have 1; cancel some, or let them run."
        " (429 quota_exceeded)\n"
    )
    assert "(404 not_found)" in house.refused("cancel", waiting)
    house.basin("cancel", waiting, who="bob")
