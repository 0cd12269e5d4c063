"""The table of outcomes, row by row."""

import signal
from dataclasses import replace
from typing import Any

import pytest

from core.lifecycle import Status
from core.recipe.plan import halve_micro_batch
from tests.support.jobs import plan_of, small_spec
from worker.devices.report import DeviceReport
from worker.exit_codes import MACHINE_FAILED
from worker.launcher import ProcessExit
from worker.outcome import (
    Finish,
    GiveBack,
    KillReason,
    Observed,
    StopOrder,
    WriteNothing,
    decide_outcome,
    suspects_device,
)

RESULTS = {"base": {"test": {"loss": 0.1}}}
LAST = {"step": 9, "steps": 10}


def ended(outcome: str, **fields: Any) -> dict[str, Any]:
    body = {"outcome": outcome, "stop_reason": None, "results": {}, "error": None, "progress": LAST}
    return {"type": "ended", "job": "j", **body, **fields}


def failed(code: str, **details: Any) -> dict[str, Any]:
    return ended("failed", error={"code": code, "message": "what happened", "remedy": "do this", **details})


def test_success() -> None:
    seen = Observed(ended=ended("succeeded", stop_reason="completed", results=RESULTS), exit=ProcessExit(code=0))
    assert decide_outcome(seen) == Finish(Status.SUCCEEDED, "completed", None, RESULTS, LAST)


def test_success_counts_although_a_cancel_was_on_its_way() -> None:
    seen = Observed(ended=ended("succeeded", stop_reason="completed"), asked=StopOrder.CANCEL)
    assert decide_outcome(seen) == Finish(Status.SUCCEEDED, "completed", None, {}, LAST)


@pytest.mark.parametrize("said", ["cancelled", "stopped"])
def test_a_cancel_that_was_heard(said: str) -> None:
    seen = Observed(ended=ended(said), asked=StopOrder.CANCEL)
    assert decide_outcome(seen) == Finish(Status.CANCELLED, "cancelled", None, {}, LAST)


def test_a_cancel_that_had_to_be_a_kill() -> None:
    seen = Observed(exit=ProcessExit(signal=signal.SIGKILL), asked=StopOrder.CANCEL, progress=LAST)
    assert decide_outcome(seen) == Finish(Status.CANCELLED, "cancelled", None, {}, LAST)


@pytest.mark.parametrize("asked", [StopOrder.STOP, StopOrder.PAUSE])
def test_a_checkpoint_on_request_costs_nothing(asked: StopOrder) -> None:
    assert decide_outcome(Observed(ended=ended("stopped"), asked=asked)) == GiveBack(str(asked), progress=LAST)


@pytest.mark.parametrize("asked", [StopOrder.STOP, StopOrder.PAUSE])
def test_no_checkpoint_in_time_costs_no_loss_either(asked: StopOrder) -> None:
    decision = decide_outcome(Observed(exit=ProcessExit(signal=signal.SIGKILL), asked=asked))
    assert isinstance(decision, GiveBack)
    assert (decision.lost, decision.failed) == (False, False)


def test_a_sigterm_from_somebody_else_is_no_cancel() -> None:
    assert decide_outcome(Observed(ended=ended("cancelled"), exit=ProcessExit(code=0))) == GiveBack(
        "stopped", progress=LAST
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_process_that_was_killed_is_a_loss(number: signal.Signals) -> None:
    decision = decide_outcome(Observed(exit=ProcessExit(signal=number), stderr="Fatal Python error"))
    assert decision == GiveBack(f"the runner was killed by {number.name}", lost=True)


@pytest.mark.parametrize("stderr", ["", "std::bad_alloc"])
def test_a_runner_that_went_down_with_a_zygote_that_its_worker_killed_is_no_loss(stderr: str) -> None:
    how = ProcessExit(signal=signal.SIGKILL, zygote_killed=True)
    decision = decide_outcome(Observed(exit=how, stderr=stderr, out_of_memory=True))
    assert decision == GiveBack("its worker replaced a zygote that did not answer")


@pytest.mark.parametrize("asked", [StopOrder.CANCEL, StopOrder.PAUSE, StopOrder.STOP])
def test_what_was_asked_is_done_also_when_its_zygote_was_killed(asked: StopOrder) -> None:
    how = ProcessExit(signal=signal.SIGKILL)
    killed = ProcessExit(signal=signal.SIGKILL, zygote_killed=True)
    assert decide_outcome(Observed(exit=killed, asked=asked)) == decide_outcome(Observed(exit=how, asked=asked))


def test_an_exit_without_a_word_is_an_engine_error_that_shows_what_was_printed() -> None:
    decision = decide_outcome(Observed(exit=ProcessExit(code=70), stderr="ValueError: boom"))
    assert isinstance(decision, Finish)
    assert decision.status is Status.FAILED
    assert decision.error is not None
    assert decision.error["code"] == "engine_error"
    assert "exit status 70" in decision.error["message"]
    assert "ValueError: boom" in decision.error["message"]


@pytest.mark.parametrize("stderr", ["", " \n"])
@pytest.mark.parametrize("code", [0, 1, 70, 75])
def test_an_exit_with_nothing_said_and_nothing_printed_is_a_loss(code: int, stderr: str) -> None:
    decision = decide_outcome(Observed(exit=ProcessExit(code=code), stderr=stderr))
    assert decision == GiveBack(f"the runner ended without output, exit status {code}", lost=True)


@pytest.mark.parametrize(
    "seen",
    [
        Observed(ended=failed("machine_failed"), exit=ProcessExit(code=0), progress=LAST),
        Observed(ended=failed("machine_failed"), asked=StopOrder.PAUSE, retries_left=True),
        Observed(exit=ProcessExit(code=MACHINE_FAILED), stderr="OSError: [Errno 28] No space left on device"),
        Observed(cut=KillReason.MACHINE, ended=ended("succeeded", stop_reason="completed")),
    ],
)
def test_a_machine_that_fails_costs_the_job_nothing_and_rests_its_slot(seen: Observed) -> None:
    decision = decide_outcome(seen)
    assert isinstance(decision, GiveBack)
    assert decision.cause.startswith("the machine of its worker failed: ")
    assert (decision.lost, decision.failed, decision.plan, decision.progress) == (False, False, None, None)
    assert decision.rest


def test_no_other_ending_rests_the_slot() -> None:
    for seen in (
        Observed(exit=ProcessExit(signal=signal.SIGKILL)),
        Observed(ended=ended("stopped")),
        Observed(cut=KillReason.STALLED),
    ):
        decision = decide_outcome(seen)
        assert isinstance(decision, GiveBack)
        assert not decision.rest


def test_divergence_is_final_whatever_retries_are_left() -> None:
    decision = decide_outcome(Observed(ended=failed("diverged"), retries_left=True))
    assert isinstance(decision, Finish)
    assert (decision.status, decision.stop_reason) == (Status.FAILED, "non_finite")
    assert decision.error is not None
    assert (decision.error["code"], decision.error["message"]) == ("diverged", "what happened")


@pytest.mark.parametrize(
    ("has_checkpoint", "promise"),
    [
        (True, "do this The last finite checkpoint is kept."),
        (False, "do this There is no checkpoint to go back to; checkpoints.every says how often one is written."),
    ],
)
def test_only_a_checkpoint_that_is_there_is_promised(has_checkpoint: bool, promise: str) -> None:
    decision = decide_outcome(Observed(ended=failed("diverged"), has_checkpoint=has_checkpoint))
    assert isinstance(decision, Finish)
    assert decision.error is not None
    assert decision.error["remedy"] == promise


@pytest.mark.parametrize("code", ["out_of_memory", "engine_error"])
def test_a_failure_is_tried_again_only_within_max_retries(code: str) -> None:
    assert decide_outcome(Observed(ended=failed(code), retries_left=True)) == GiveBack(
        f"retry after {code}", failed=True
    )
    final = decide_outcome(Observed(ended=failed(code)))
    assert isinstance(final, Finish)
    assert final.error is not None
    assert final.error["code"] == code


def test_out_of_memory_is_remedied_before_it_is_a_failure() -> None:
    """Half as many examples at once, half of that, … and no retry is spent; batch norm would see other batches."""
    spec = small_spec(batch_size=6)
    plan, sizes = plan_of(spec), []
    while (less := halve_micro_batch(spec, plan)) is not None:
        decision = decide_outcome(Observed(ended=failed("out_of_memory"), retries_left=True, smaller=less))
        assert isinstance(decision, GiveBack)
        assert (decision.plan, decision.failed, decision.lost) == (less, False, False)
        assert (
            decision.cause
            == f"out of memory: from now on at most {less.micro_batch} examples at once, batches as before"
        )
        plan = less
        sizes.append(less.micro_batch)
    assert sizes == [3, 2, 1]
    normed = small_spec(model={"name": "mlp", "hidden": [8], "batch_norm": True})
    assert halve_micro_batch(normed, plan_of(normed)) is None
    assert isinstance(decide_outcome(Observed(ended=failed("engine_error"), smaller=plan)), Finish)


@pytest.mark.parametrize(
    "seen",
    [
        Observed(exit=ProcessExit(signal=signal.SIGKILL), out_of_memory=True),
        Observed(exit=ProcessExit(signal=signal.SIGABRT), stderr="terminate called after throwing 'std::bad_alloc'"),
    ],
)
def test_death_for_memory_is_the_jobs_own_failure(seen: Observed) -> None:
    decision = decide_outcome(seen)
    assert isinstance(decision, Finish)
    assert decision.error is not None
    assert decision.error["code"] == "out_of_memory"
    assert decision.error["remedy"]


def test_a_crash_while_something_else_was_killed_for_memory_is_a_crash() -> None:
    decision = decide_outcome(Observed(exit=ProcessExit(signal=signal.SIGSEGV), out_of_memory=True))
    assert decision == GiveBack("the runner was killed by SIGSEGV", lost=True)


@pytest.mark.parametrize("cut", [KillReason.FENCED, KillReason.OUT_OF_TOUCH])
def test_an_attempt_that_is_not_ours_writes_nothing_whatever_it_said(cut: KillReason) -> None:
    assert decide_outcome(Observed(ended=ended("succeeded", stop_reason="completed"), cut=cut)) == WriteNothing()


@pytest.mark.parametrize(
    ("cut", "cause"),
    [
        (KillReason.STALLED, "stalled"),
        (KillReason.UNRECORDED, "its results could not be recorded"),
        (KillReason.UNSTARTED, "no runner could be started"),
    ],
)
def test_what_the_supervisor_cut_off_is_a_loss(cut: KillReason, cause: str) -> None:
    assert decide_outcome(Observed(exit=ProcessExit(signal=signal.SIGKILL), cut=cut)) == GiveBack(cause, lost=True)


BROKEN = DeviceReport.from_failure("GPU-a", "timeout", "no answer in 90 s")
WORKS = DeviceReport("GPU-a", ok=True)
FULL = DeviceReport.from_failure("GPU-a", "memory_in_use", "70.0 of 80.0 GB are in use by others")
KILLED = ProcessExit(signal=signal.SIGKILL)


@pytest.mark.parametrize(
    "seen",
    [
        Observed(ended=failed("device_failed")),
        Observed(ended=failed("out_of_memory", where="forward", foreign=True)),
        Observed(exit=KILLED),
        Observed(exit=KILLED, cut=KillReason.STALLED),
        Observed(exit=KILLED, out_of_memory=True),
    ],
)
def test_whatever_ended_on_a_gpu_that_is_found_broken_costs_nothing(seen: Observed) -> None:
    """Nor is there a remedy or a retry to spend."""
    less = halve_micro_batch(small_spec(), plan_of(small_spec()))
    decision = decide_outcome(replace(seen, device=BROKEN, retries_left=True, smaller=less))
    assert decision == GiveBack("its GPU failed: no answer in 90 s")


def test_a_device_that_failed_and_works_again_is_a_loss() -> None:
    """So that a job which breaks one after the other comes to an end; unless it was to end anyway."""
    for device in (WORKS, None):
        seen = Observed(ended=failed("device_failed"), device=device, retries_left=True)
        assert decide_outcome(seen) == GiveBack("its GPU failed: what happened", lost=True)
    for asked in (StopOrder.CANCEL, StopOrder.PAUSE, StopOrder.STOP):
        assert decide_outcome(Observed(ended=failed("device_failed"), asked=asked)) == GiveBack(
            "its GPU failed: what happened"
        )


@pytest.mark.parametrize("device", [WORKS, FULL])
def test_memory_that_others_hold_is_no_fault_of_the_job(device: DeviceReport) -> None:
    """And no reason for another plan."""
    less = halve_micro_batch(small_spec(), plan_of(small_spec()))
    seen = Observed(ended=failed("out_of_memory", where="forward", foreign=True), device=device, smaller=less)
    assert decide_outcome(seen) == GiveBack("out of memory, which others use: what happened")


def test_a_runner_that_was_killed_beside_others_that_hold_memory_is_a_loss() -> None:
    """The GPU works."""
    assert decide_outcome(Observed(exit=KILLED, device=FULL)) == GiveBack("the runner was killed by SIGKILL", lost=True)


@pytest.mark.parametrize(("where", "remedied"), [("build", False), ("forward", True), (None, True)])
def test_fewer_examples_at_once_are_no_remedy_where_there_are_none_yet(where: str | None, remedied: bool) -> None:
    """An engine that does not say where has run out in a pass, for all that is known."""
    less = halve_micro_batch(small_spec(), plan_of(small_spec()))
    decision = decide_outcome(
        Observed(ended=failed("out_of_memory", **({"where": where} if where else {})), smaller=less)
    )
    if remedied:
        assert isinstance(decision, GiveBack)
        assert decision.plan == less
    else:
        assert isinstance(decision, Finish)
        assert (decision.error or {})["code"] == "out_of_memory"


@pytest.mark.parametrize(
    ("asked", "lost"), [(StopOrder.NOTHING, True), (StopOrder.CANCEL, False), (StopOrder.STOP, False)]
)
def test_a_runner_that_cannot_be_killed_is_given_up(asked: StopOrder, lost: bool) -> None:
    assert decide_outcome(Observed(unkillable=True, asked=asked)) == GiveBack("its runner cannot be killed", lost=lost)
    assert decide_outcome(Observed(unkillable=True, cut=KillReason.FENCED)) == WriteNothing()


def test_a_runner_that_cannot_be_killed_is_taken_at_its_word() -> None:
    """A process that hangs in its driver on its way out has done its work all the same."""
    done = ended("succeeded", stop_reason="completed", results=RESULTS)
    assert decide_outcome(Observed(ended=done, unkillable=True)) == Finish(
        Status.SUCCEEDED, "completed", None, RESULTS, LAST
    )
    assert decide_outcome(Observed(ended=done, unkillable=True, cut=KillReason.UNRECORDED)) == GiveBack(
        "its results could not be recorded", lost=True
    )


@pytest.mark.parametrize(
    ("seen", "suspect"),
    [
        (Observed(ended=failed("device_failed"), exit=ProcessExit(code=0)), True),
        (Observed(ended=failed("out_of_memory", where="build", foreign=True)), True),
        (Observed(exit=KILLED), True),
        (Observed(exit=ProcessExit(signal=signal.SIGABRT), asked=StopOrder.CANCEL), True),
        (Observed(exit=ProcessExit(code=0), cut=KillReason.STALLED), True),
        (Observed(exit=ProcessExit(signal=signal.SIGKILL, zygote_killed=True)), False),
        (Observed(ended=ended("succeeded"), exit=KILLED), False),
        (Observed(ended=failed("out_of_memory", where="forward")), False),
        (Observed(ended=failed("diverged")), False),
        (Observed(exit=ProcessExit(code=70), stderr="ValueError: boom"), False),
    ],
)
def test_which_ends_a_device_has_to_answer_for(seen: Observed, suspect: bool) -> None:
    assert suspects_device(seen) is suspect
