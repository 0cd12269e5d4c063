"""`basin verify JOB`: trains one segment of a job's history again in this process and compares the digests."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
from worker.datasets.fetch import DatasetDamaged, DatasetFetcher, prepared_version
from worker.run_local import LINE_SECONDS, progress_line

ROLES: Final = ("weights", "state")
# Errors after which the bits cannot be compared.
CANNOT: Final = frozenset({"engine_error", "out_of_memory", "bad_data", "device_failed", "machine_failed"})


@dataclass(frozen=True, slots=True)
class DigestComparison:
    """One digest as recorded, and as found; None: the replay did not write it."""

    what: str
    recorded: str
    found: str | None

    @property
    def is_equal(self) -> bool:
        return self.recorded == self.found


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """Whether training again gives the same bits; where it does not, `reasons` are the possible explanations."""

    stretch: Segment
    compared: tuple[DigestComparison, ...]
    reasons: tuple[str, ...]

    @property
    def is_exact(self) -> bool:
        return all(each.is_equal for each in self.compared)


class ReplayObserver:
    """An observer that stops the run at the step of the recorded checkpoint, and keeps the digests written there."""

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
        """Called after each step. A run that rolls back may reach the step more than once, with other weights."""
        self._done += 1
        if self._rolls_back:
            return "cancel" if all(each.is_equal for each in self.compare_digests()) else None
        if self._done < self._end.step or (self._done == self._end.step and is_final(self._end)):
            return None
        return "checkpoint" if self._done == self._end.step else "cancel"

    def compare_digests(self) -> tuple[DigestComparison, ...]:
        """The chained digest, which covers all earlier steps, and the digests of the two files of tensors."""
        found, end = self._found or {}, self._end
        chain = DigestComparison("digest", end.manifest["digest"], found.get("manifest", {}).get("digest"))
        files = found.get("files", {})
        return (
            chain,
            *(DigestComparison(role, end.files[role]["sha256"], files.get(role, {}).get("sha256")) for role in ROLES),
        )


def replay_segment(past: JobHistory, stretch: Segment, store: Store, settings: Settings) -> ReplayReport:
    """Train the segment again in this process.

    Raises:
        Unavailable: it cannot be trained here; the message says what is missing.
    """
    observer = ReplayObserver(stretch.end, rolls_back=past.spec.rollback is not None)
    with tempfile.TemporaryDirectory(prefix="basin-verify-") as aside, ExitStack() as held:
        dataset = held.enter_context(_provide_dataset(past, store, settings))
        assignment = _replay_assignment(past, stretch, store, dataset, Path(aside))
        ended = runner.train_without_clock(assignment, observer)
    error = ended.error or {}
    if error.get("code") in CANNOT:
        raise Unavailable(f"it cannot be trained here: {error['message']}")
    return ReplayReport(stretch, observer.compare_digests(), tuple(_mismatch_reasons(past, stretch.end, observer)))


@contextmanager
def _provide_dataset(past: JobHistory, store: Store, settings: Settings) -> Iterator[Path]:
    """The dataset of the job, as long as the context."""
    version = prepared_version(past.spec.data)
    with ExitStack() as held:
        try:
            if version is None:
                path = provision.dataset_file(past.spec.data, settings.datasets)
            else:
                path = held.enter_context(DatasetFetcher(store, version, lambda call: call()).cached(settings))
        except (provision.BadDataset, DatasetDamaged) as error:
            raise Unavailable(f"it cannot be trained here: {error}") from error
        except provision.DatasetUnavailable as error:
            raise Unavailable(f"the dataset {past.spec.data.name} cannot be written to {settings.datasets}") from error
        yield path


def _replay_assignment(past: JobHistory, stretch: Segment, store: Store, dataset: Path, aside: Path) -> Assignment:
    scratch = aside / "out"
    scratch.mkdir()
    try:
        begin = stretch.begin
        resume = provision.fetch_checkpoint(store, begin, aside / "resume") if begin else None
        if begin and resume and begin.job_id != past.job_id:
            resume = resume.model_copy(update={"anew": past.anew})
        initial = None
        if past.initial and not begin:
            initial = provision.fetch_weights(store, past.initial, aside / "initial")
    except provision.BadCheckpoint as error:
        raise Unavailable(f"it cannot be trained here: {error}") from error
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


def _mismatch_reasons(past: JobHistory, end: CheckpointRow, observer: ReplayObserver) -> Iterator[str]:
    if not past.plan.deterministic:
        yield "deterministic: the job did not request reproducible bits"
    yield from runner.environment_differences(end.manifest.get("environment", {}), observer.environment)
    if past.resume and past.resume.get("fidelity") == "approximate":
        yield from (f"the job itself resumed approximately: {each}" for each in past.resume.get("reasons", ()))
