"""A job as a service runs it: paused and resumed, killed and resumed, undisturbed; all end with the same bits."""

from collections.abc import Iterator

from core.recipe.spec import JobSpec
from tests.gpu.check.attempts import Attempt, Frame, Service, TooLate, service
from tests.gpu.check.report import Report
from tests.gpu.check.target import Target
from tests.gpu.specs import IMAGES, MODELS
from tests.train.runs import job

SECONDS = 60.0


def specs(target: Target) -> Iterator[tuple[str, JobSpec]]:
    """Written-out gradients; batch norm, dropout and averages; a whole set of state besides the weights."""
    steps = target.choose(4000, 1200)
    fields = {"data": IMAGES, "batch_size": 24, "epochs": None, "steps": steps, "log_every": 10}
    marks = {"checkpoints": {"every": f"{steps // 10}st"}, "evaluate": {"every": f"{steps // 5}st"}}
    adam, sgd = {"name": "adam", "lr": 3e-3}, {"name": "sgd", "lr": 0.05, "momentum": 0.9}
    yield "cnn-sgd-swa", job(model=MODELS["cnn"], optimizer=sgd, swa={"start": "0.5run"}, **fields, **marks)
    if not target.dry:
        yield "mlp-adam", job(model=MODELS["mlp"], optimizer=adam, **fields, **marks)
        yield "cnn-adam-sam-ema", job(model=MODELS["cnn"], optimizer=adam, sam=True, ema=True, **fields, **marks)


def service_like(target: Target, report: Report) -> None:
    """Each job three times, by one zygote."""
    with service(target) as found:
        for name, spec in specs(target):
            _compare(found, report, name, spec)


def _compare(found: Service, report: Report, name: str, spec: JobSpec) -> None:
    slow = found.target.choose("", "slow")
    with report.finding(f"{name}: undisturbed") as undisturbed:
        whole, ended = found.run(name, spec, SECONDS)
        undisturbed.says(ok=ended["outcome"] == "succeeded", detail=str(whole.digests()))
    with report.finding(f"{name}: undisturbed once more, the same bits") as again:
        other, _ = found.run(name, spec, SECONDS)
        again.says(ok=other.digests() == whole.digests(), detail=str(other.digests()))
    with report.finding(f"{name}: paused and resumed, the same bits") as paused:
        first = found.begin(name, spec, fault=slow)
        checkpoint(first, 2)
        first.stop()
        outcome = first.ended(SECONDS)["outcome"]
        rest, ended = found.run(name, spec, SECONDS, resume=first.resume())
        paused.says(
            ok=outcome == "stopped" and _exact(rest) and rest.digests() == whole.digests(),
            detail=f"{outcome} at step {first.last()['step']}, then {ended['outcome']}: {rest.digests()}",
        )
    with report.finding(f"{name}: killed and resumed, the same bits") as killed:
        first = found.begin(name, spec, fault=slow)
        checkpoint(first, 3)
        how = first.kill()
        first.drain()
        step = first.last()["step"]
        rest, ended = found.run(name, spec, SECONDS, resume=first.resume())
        in_time = step < spec.shape().run.total_steps
        killed.says(
            ok=in_time and how is not None and how.signal == 9 and _exact(rest) and rest.digests() == whole.digests(),
            detail=f"{how} behind step {step}, then {ended['outcome']}: {rest.digests()}",
        )


def checkpoint(attempt: Attempt, number: int) -> Frame:
    """The frame of its so manieth resumable checkpoint. Raises TooLate."""
    for _ in range(number - 1):
        attempt.wait_for(_resumable, SECONDS)
    return attempt.wait_for(_resumable, SECONDS)


def _resumable(frame: Frame) -> bool:
    if frame["type"] == "ended":
        raise TooLate(f"it ended before: {frame}")
    return bool(frame["type"] == "checkpoint" and frame["resumable"])


def _exact(attempt: Attempt) -> bool:
    """Whether the runner itself says that it can be exact."""
    resume = attempt.environment().get("resume", {})
    return bool(resume.get("fidelity") == "exact")
