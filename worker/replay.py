"""`basin verify JOB`: a stretch of a job's past trained again, here and now, and compared with what was recorded."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer

from core.errors import Unavailable
from core.jobs.checkpoints.records import CheckpointRow
from core.jobs.checkpoints.replay import JobHistory, Segment, is_final
from core.recipe.assignment import Assignment
from core.settings import Settings
from core.store.base import Store
from worker import provision, runner
from worker.run_local import LINE_SECONDS, progress_line

ROLES: Final = ("weights", "state")
# These say nothing about the bits.
CANNOT: Final = frozenset({"engine_error", "out_of_memory", "bad_data", "device_failed", "machine_failed"})


@dataclass(frozen=True, slots=True)
class DigestComparison:
    """One digest as it was recorded, and as it was found; None: nothing of the kind came about."""

    what: str
    recorded: str
    found: str | None

    @property
    def is_equal(self) -> bool:
        return self.recorded == self.found


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """Whether training again gives the same bits; where it does not, `reasons` are what could explain it."""

    stretch: Segment
    compared: tuple[DigestComparison, ...]
    reasons: tuple[str, ...]

    @property
    def is_exact(self) -> bool:
        return all(each.is_equal for each in self.compared)


class ReplayObserver:
    """An observer that counts steps: the run stops where the recorded checkpoint was; what it wrote there is kept."""

    def __init__(self, end: CheckpointRow, *, rolls_back: bool) -> None:
        self._end = end
        self._rolls_back = rolls_back
        self._done = 0
        self._printed_at = 0.0
        self._found: dict[str, Any] | None = None
        self.environment: dict[str, Any] = {}

    def emit(self, event: runner.Event) -> None:
        kind, fields = runner.event_frame(event)
        match kind:
            case "started":
                self._done = fields["step"]
                self.environment = {name: value for name, value in fields["environment"].items() if name != "resume"}
            case "rollback":
                self._done = fields["step"]
            case "checkpoint":
                if (fields["kind"], fields["step"]) == ("last", self._end.step):
                    self._found = fields
                shutil.rmtree(fields["folder"])
            case "progress" if time.monotonic() - self._printed_at >= LINE_SECONDS:
                self._printed_at = time.monotonic()
                typer.echo(progress_line(fields), err=True)

    def stop_request(self) -> runner.StopMode | None:
        """Asked after each step. A run that rolls back may come to the place more than once, with other weights."""
        self._done += 1
        if self._rolls_back:
            return "cancel" if all(each.is_equal for each in self.compare_digests()) else None
        if self._done < self._end.step or (self._done == self._end.step and is_final(self._end)):
            return None
        return "checkpoint" if self._done == self._end.step else "cancel"

    def compare_digests(self) -> tuple[DigestComparison, ...]:
        """The chain of digests, which stands for all that came before, and the two files of tensors."""
        found, end = self._found or {}, self._end
        chain = DigestComparison("digest", end.manifest["digest"], found.get("manifest", {}).get("digest"))
        files = found.get("files", {})
        return (
            chain,
            *(DigestComparison(role, end.files[role]["sha256"], files.get(role, {}).get("sha256")) for role in ROLES),
        )


def replay_segment(past: JobHistory, stretch: Segment, store: Store, settings: Settings) -> ReplayReport:
    """Train the stretch again in this process.

    Raises:
        Unavailable: it cannot be trained here: the message says what is missing.
    """
    witness = ReplayObserver(stretch.end, rolls_back=past.spec.rollback is not None)
    with tempfile.TemporaryDirectory(prefix="basin-verify-") as aside:
        assignment = _replay_assignment(past, stretch, store, settings, Path(aside))
        ended = runner.train_without_clock(assignment, witness)
    error = ended.error or {}
    if error.get("code") in CANNOT:
        raise Unavailable(f"it cannot be trained here: {error['message']}")
    return ReplayReport(stretch, witness.compare_digests(), tuple(_mismatch_reasons(past, stretch.end, witness)))


def _replay_assignment(past: JobHistory, stretch: Segment, store: Store, settings: Settings, aside: Path) -> Assignment:
    scratch = aside / "out"
    scratch.mkdir()
    try:
        dataset = provision.dataset_file(past.spec.data, settings.datasets)
        begin = stretch.begin
        resume = provision.fetch_checkpoint(store, begin, aside / "resume") if begin else None
        if begin and resume and begin.job_id != past.job_id:
            resume = resume.model_copy(update={"anew": past.anew})
        initial = None
        if past.initial and not begin:
            initial = provision.fetch_weights(store, past.initial, aside / "initial")
    except (provision.BadDataset, provision.BadCheckpoint) as error:
        raise Unavailable(f"it cannot be trained here: {error}") from error
    except provision.DatasetUnavailable as error:
        raise Unavailable(f"the dataset {past.spec.data.name} cannot be written to {settings.datasets}") from error
    return Assignment(
        job=past.job_id,
        attempt=1,
        spec=past.spec,
        plan=stretch.plan,
        dataset=dataset,
        scratch=scratch,
        resume=resume,
        initial=initial,
    )


def _mismatch_reasons(past: JobHistory, end: CheckpointRow, witness: ReplayObserver) -> Iterator[str]:
    if not past.plan.deterministic:
        yield "deterministic: the job asked for no equal bits"
    yield from runner.environment_differences(end.manifest.get("environment", {}), witness.environment)
    if past.resume and past.resume.get("fidelity") == "approximate":
        yield from (f"the job itself went on approximately: {each}" for each in past.resume.get("reasons", ()))
