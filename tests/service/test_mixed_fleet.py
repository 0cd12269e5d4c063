"""Jobs between CPUs and GPUs: who may go on where, by which plan, and what is said of it."""

from typing import Any

import pytest

from core.db.session import Database
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job, give_back
from core.jobs.branch import create_fork, create_retry
from core.jobs.checkpoints.records import record_checkpoint
from core.jobs.events.record import list_events
from core.jobs.queries import get_job_view
from core.jobs.queue.claim import Claim, claim_job
from core.jobs.queue.submit import SubmitContext
from core.lifecycle import Status
from core.recipe.plan import SlotKind, halve_micro_batch, resolve_plan
from core.recipe.spec import JobSpec
from core.settings import Limits
from tests.support.databases import POSTGRESQL_IS_SLOW
from tests.support.jobs import LEASE, OWNER, new_checkpoint, state_of, submitted

pytestmark = POSTGRESQL_IS_SLOW

ME = SubmitContext(OWNER, Limits(), 60.0)


def claimed(db: Database, slot: SlotKind, sha256: str | None = None) -> Claim | None:
    """As a supervisor with a slot of this kind does it."""
    return claim_job(
        db,
        worker="w",
        needs=(slot, "any"),
        plan_for=lambda spec: resolve_plan(spec, slot, sha256),
        lease_seconds=LEASE,
    )


def begun(db: Database, slot: SlotKind, sha256: str | None = None, **changes: Any) -> tuple[Fence, Claim]:
    """A job that a slot of this kind has claimed first."""
    job_id = submitted(db, **changes)
    found = claimed(db, slot, sha256)
    assert found is not None
    assert found.job_id == job_id
    return Fence(job_id, found.attempt), found


def kept_and_given_back(db: Database, fence: Fence, step: int = 5) -> None:
    record_checkpoint(db, fence, new_checkpoint(fence, step), (), resumable=True)
    give_back(db, fence, cause="its GPU failed", lost=False, max_losses=3)


def told(db: Database, job_id: str, *types: str) -> list[tuple[int, str, str]]:
    """Attempt, code and message of the events of these types."""
    found = list_events(db, OWNER, job_id, types=types)
    return [(each.attempt, each.data.get("code", ""), each.data["message"]) for each in found]


@pytest.mark.parametrize(("first", "second", "device"), [("gpu", "cpu", "cpu"), ("cpu", "gpu", "cuda")])
def test_a_job_that_need_not_be_exact_goes_on_on_another_kind_of_device(
    db: Database, first: SlotKind, second: SlotKind, device: str
) -> None:
    """Its plan is one for that device, with the digest of its data and the remedy for its memory."""
    fence, found = begun(db, first, "ab" * 32, deterministic=False)
    assert isinstance(found.spec, JobSpec)
    less = halve_micro_batch(found.spec, found.plan)
    record_checkpoint(db, fence, new_checkpoint(fence, 5), (), resumable=True)
    give_back(db, fence, cause="out of memory", lost=False, max_losses=3, plan=less)
    again = claimed(db, second)
    assert again is not None
    assert (again.job_id, again.plan.device) == (fence.job_id, device)
    assert (again.plan.dataset_sha256, again.plan.micro_batch) == ("ab" * 32, 16)
    assert get_job_view(db, OWNER, fence.job_id).plan == again.plan.model_dump(exclude_none=True)
    message = f"continues on a {second.upper()}: this run is approximate from here"
    assert told(db, fence.job_id, "warning") == [(2, "planned_anew", message)]
    assert state_of(db, fence.job_id)["needs"] == "any"


def test_one_without_a_checkpoint_begins_anew_and_each_change_is_said_once(db: Database) -> None:
    fence, _ = begun(db, "gpu", deterministic=False)
    for slot in ("cpu", "cpu", "gpu", "gpu"):
        give_back(db, fence, cause="its worker was stopped", lost=False, max_losses=3)
        found = claimed(db, slot)  # type: ignore[arg-type]
        assert found is not None
        fence = Fence(fence.job_id, found.attempt)
    assert told(db, fence.job_id, "warning") == [
        (2, "planned_anew", "begins again from the start, on a CPU"),
        (4, "planned_anew", "begins again from the start, on a GPU"),
    ]


@pytest.mark.parametrize(("first", "second"), [("gpu", "cpu"), ("cpu", "gpu")])
def test_an_exact_job_waits_for_the_kind_that_it_began_on(db: Database, first: SlotKind, second: SlotKind) -> None:
    fence, found = begun(db, first)
    kept_and_given_back(db, fence)
    assert claimed(db, second) is None
    again = claimed(db, first)
    assert again is not None
    assert (again.plan, told(db, fence.job_id, "warning")) == (found.plan, [])


def test_what_auto_chose_is_said_where_it_is_a_gpu(db: Database) -> None:
    """And that tiny steps gain nothing there; a GPU that was asked for, or a CPU, goes without saying."""
    wide = {"model": {"name": "mlp", "hidden": [512, 512]}, "batch_size": 64}
    cases: list[tuple[SlotKind, dict[str, Any]]] = [
        ("gpu", {}),
        ("gpu", wide),
        ("gpu", {"resources": {"device": "gpu"}}),
        ("cpu", {}),
    ]
    said = [[message for *_, message in told(db, begun(db, slot, **spec)[0].job_id, "log")] for slot, spec in cases]
    chosen = "this runs on a GPU: resources.device is auto, and a GPU slot was free"
    tiny = f'{chosen}; launch overhead dominates steps as small as these, so "cpu" may be faster'
    assert said == [[tiny], [chosen], [], []]


@pytest.mark.parametrize(("first", "second"), [("gpu", "cpu"), ("cpu", "gpu")])
def test_a_retry_of_a_job_that_need_not_be_exact_goes_on_anywhere(
    db: Database, first: SlotKind, second: SlotKind
) -> None:
    fence, found = begun(db, first, "cd" * 32, deterministic=False)
    record_checkpoint(db, fence, new_checkpoint(fence, 5), (), resumable=True)
    finish_job(db, fence, TerminalState(Status.CANCELLED))
    child = create_retry(db, fence.job_id, ME).job_id
    assert get_job_view(db, OWNER, child).plan == found.plan.model_dump(exclude_none=True)
    again = claimed(db, second)
    assert again is not None
    assert (again.job_id, again.plan) == (child, resolve_plan(again.spec, second, "cd" * 32))
    assert [code for _, code, _ in told(db, child, "warning")] == ["planned_anew"]


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize(("first", "second"), [("gpu", "cpu"), ("cpu", "gpu")])
def test_a_fork_takes_a_job_to_another_kind_of_device(
    db: Database, first: SlotKind, second: SlotKind, deterministic: bool
) -> None:
    """It is planned there at its first claim, and nothing is planned anew; a retry of it stays where it was."""
    fence, _ = begun(db, first, resources={"device": first}, deterministic=deterministic)
    record_checkpoint(db, fence, new_checkpoint(fence, 5), (), resumable=True)
    made = create_fork(db, fence.job_id, ME, changes={"resources": {"device": second}})
    assert made.needs == second
    assert claimed(db, first) is None
    found = claimed(db, second)
    assert found is not None
    assert found.checkpoint is not None
    assert (found.job_id, found.plan, found.checkpoint.step) == (made.job_id, resolve_plan(found.spec, second), 5)
    assert told(db, made.job_id, "warning") == []
    mine = Fence(made.job_id, found.attempt)
    record_checkpoint(db, mine, new_checkpoint(mine, 7), (), resumable=True)
    finish_job(db, mine, TerminalState(Status.FAILED))
    assert create_retry(db, made.job_id, ME).needs == second
    again = claimed(db, second)
    assert again is not None
    assert again.plan == found.plan


def test_a_retry_leaves_a_plan_that_its_slots_cannot_carry_out(db: Database) -> None:
    """It would only fail there."""
    fence, found = begun(db, "cpu", resources={"device": "cpu"})
    record_checkpoint(db, fence, new_checkpoint(fence, 5), (), resumable=True)
    wrong = found.plan.model_copy(update={"device": "cuda"})
    give_back(db, fence, cause="for the test", lost=False, max_losses=3, plan=wrong)
    again = claimed(db, "cpu")
    assert again is not None
    finish_job(db, Fence(fence.job_id, again.attempt), TerminalState(Status.FAILED))
    child = create_retry(db, fence.job_id, ME).job_id
    assert get_job_view(db, OWNER, child).plan is None
    last = claimed(db, "cpu")
    assert last is not None
    assert (last.job_id, last.plan.device) == (child, "cpu")
