"""What one attempt puts on disk: resumable checkpoints, and weights that are kept beside them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.engine import verdict
from core.engine.best import Best
from core.engine.checkpoint import STATE, WEIGHTS, Files, chained, seal, write_tensor_files
from core.engine.ensemble import Ensemble
from core.engine.events import CheckpointWritten, Kind
from core.engine.kept import Incumbent
from core.engine.networks.network import Network
from core.engine.results import metrics_of
from core.engine.run import Run

FORMAT = 1  # of manifest.json


class Shelf:
    """Writes folders and tells of them; knows which of the weights beside are there already."""

    def __init__(self, run: Run, tell: Callable[[CheckpointWritten], None]) -> None:
        """`tell` hears of every folder once it is on disk for good."""
        self._run = run
        self._tell = tell
        self._folders = 0
        self._best = run.best.step if run.best else None
        self._members = set(run.ensemble.steps) if run.ensemble else set()

    def forget(self) -> None:
        """The run went back: what was put here since may be void, and what it replaced is needed again."""
        self._best, self._members = None, set()

    def put_last(self, *, mark: bool, seconds: float) -> None:
        """A checkpoint to go on from; `mark`: the next link of the digest chain. `seconds` is the training time."""
        run, standing = self._run, self._run.standing
        tensors = {WEIGHTS: run.stepper.presented().tensors() | run.data.tensors(), STATE: run.state()}
        folder = self._folder("last", standing.step)
        files = write_tensor_files(folder, tensors, run.report_alive)
        if mark:
            standing.digest = chained(standing.digest, files)
        replaced = run.best and run.best.restores and run.best.weights == "base"  # what was tested are the best then
        own = ("val.", "function.", *(() if replaced else ("test.",)))
        metrics = {name: value for name, value in standing.metrics.items() if name.startswith(own)}
        more = {
            "digest": standing.digest,
            "metrics": standing.metrics,
            "results": standing.results,
            "stop_reason": standing.stop_reason,
            "seconds": seconds,
        }
        self._seal(folder, "last", standing.step, files=files, metrics=metrics, more=more)

    def put_aside(self) -> None:
        """The best weights and the members of an ensemble as checkpoints of their own, unless they are that already."""
        best, ensemble = self._run.best, self._run.ensemble
        if best and best.step != self._best:
            self.put_best(best)
        for step in ensemble.steps if ensemble else ():
            if ensemble and step not in self._members:
                self._put_member(ensemble, step, verdict.of_member(self._run, ensemble, step))

    def put_best(self, best: Best) -> None:
        """The best weights, if there are any."""
        if best.step is not None:
            metrics = metrics_of(self._run, "best")
            self.put("best", best.network, best.step, metrics, {"monitor": best.policy.monitor})
            self._best = best.step

    def put_incumbent(self, incumbent: Incumbent) -> None:
        """The weights at the end of the last cycle, if there was one."""
        if incumbent.step is not None:
            self.put("cycle_end", incumbent.network, incumbent.step, metrics_of(self._run, "incumbent"), {})

    def put_members(self, ensemble: Ensemble) -> None:
        """Again, now that they have been tested too."""
        for number, step in enumerate(ensemble.steps, 1):
            self._put_member(ensemble, step, metrics_of(self._run, f"member_{number}"))

    def _put_member(self, ensemble: Ensemble, step: int, metrics: dict[str, float]) -> None:
        network = ensemble.network(step)
        numbers = network.finite() and all(map(math.isfinite, metrics.values()))
        if numbers:  # a run that diverged may have kept others
            self.put("snapshot", network, step, metrics, {})
            self._members.add(step)

    def put(self, kind: Kind, network: Network, step: int, metrics: dict[str, float], more: dict[str, Any]) -> None:
        """Weights alone, as they were after `step` steps."""
        folder = self._folder(kind, step)
        tensors = {WEIGHTS: network.tensors() | self._run.data.tensors()}
        files = write_tensor_files(folder, tensors, self._run.report_alive)
        self._seal(folder, kind, step, files=files, metrics=metrics, more={**more, "metrics": metrics})

    def _folder(self, kind: Kind, step: int) -> Path:
        """One that was never used: after a rollback the same steps come again."""
        self._folders += 1
        return self._run.scratch / f"{self._folders:06d}-{kind}-{step:09d}"

    def _seal(  # noqa: PLR0913 - what a manifest says
        self, folder: Path, kind: Kind, step: int, *, files: Files, metrics: dict[str, float], more: dict[str, Any]
    ) -> None:
        run = self._run
        epoch = step // run.calendar.steps_per_epoch
        manifest = {
            "format": FORMAT,
            "kind": kind,
            "job": run.job,
            "step": step,
            "epoch": epoch,
            "environment": run.environment,
            "files": files,
            **more,
        }
        sealed = seal(folder, files, manifest)
        resumable = kind == "last"
        self._tell(CheckpointWritten(kind, step, epoch, str(folder), sealed, metrics, manifest, resumable))
