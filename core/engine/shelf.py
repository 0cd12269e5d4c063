"""What one attempt puts on disk: resumable checkpoints, and weights that are kept beside them."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from core.engine import verdict
from core.engine.best import Best
from core.engine.checkpoint import STATE, WEIGHTS, Files, chained, describe_tensor_files, seal, write_tensor_files
from core.engine.ensemble import Ensemble
from core.engine.events import CheckpointWritten, Kind, Observer, Progress
from core.engine.folders import Folders
from core.engine.kept import Incumbent
from core.engine.networks.network import Network
from core.engine.results import metrics_of
from core.engine.run import Run

FORMAT = 1  # of manifest.json


class Shelf:
    """Knows which of the weights beside are there already; all that puts something raises Unwritten, see Folders."""

    def __init__(self, run: Run, observer: Observer, progress: Callable[[], Progress]) -> None:
        """`observer` hears of every folder once it is on disk for good."""
        self._run = run
        self.folders = Folders(run.scratch, observer, progress)
        self._best = run.best.step if run.best else None
        self._members = set(run.ensemble.steps) if run.ensemble else set()

    def forget(self) -> None:
        """The run went back: what was put here since may be void, and what it replaced is needed again."""
        self._best, self._members = None, set()
        self.folders.go_back()

    def put_last(self, *, seconds: float, chain: str | None = None) -> None:
        """A checkpoint to go on from; `chain`: the digest chain whose next link it is. `seconds` is training time."""
        run, standing = self._run, self._run.standing
        replaced = run.best and run.best.restores and run.best.weights == "base"  # what was tested are the best then
        own = ("val.", "function.", *(() if replaced else ("test.",)))
        metrics = {name: value for name, value in standing.metrics.items() if name.startswith(own)}
        more = {
            "metrics": standing.metrics,
            "results": standing.results,
            "stop_reason": standing.stop_reason,
            "seconds": seconds,
        }

        def describe(files: Files) -> dict[str, Any]:
            if chain is not None:
                standing.digest = chained(chain, files)
            return {**more, "digest": standing.digest}

        self._write("last", standing.step, self._resumable(), metrics, describe)

    def chain_unwritten(self, chain: str) -> None:
        """The next link, as if the checkpoint were on disk: those that follow do not depend on a machine's luck."""
        self._run.standing.digest = chained(chain, describe_tensor_files(self._resumable(), self._run.report_alive))

    def _resumable(self) -> dict[str, dict[str, Tensor]]:
        run = self._run
        return {WEIGHTS: run.stepper.presented().tensors() | run.data.tensors(), STATE: run.state()}

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
        tensors = {WEIGHTS: network.tensors() | self._run.data.tensors()}
        self._write(kind, step, tensors, metrics, lambda _: {**more, "metrics": metrics})

    def _write(
        self,
        kind: Kind,
        step: int,
        tensors: Mapping[str, dict[str, Tensor]],
        metrics: dict[str, float],
        describe: Callable[[Files], dict[str, Any]],
    ) -> None:
        def fill(folder: Path) -> CheckpointWritten:
            files = write_tensor_files(folder, tensors, self._run.report_alive)
            return self._seal(folder, kind, step, files=files, metrics=metrics, more=describe(files))

        self.folders.put(kind, step, fill)

    def _seal(  # noqa: PLR0913 - what a manifest says
        self, folder: Path, kind: Kind, step: int, *, files: Files, metrics: dict[str, float], more: dict[str, Any]
    ) -> CheckpointWritten:
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
            **({"aliases": dict(run.network.aliases)} if run.network.aliases else {}),
            **more,
        }
        sealed = seal(folder, files, manifest)
        resumable = kind == "last"
        return CheckpointWritten(kind, step, epoch, str(folder), sealed, metrics, manifest, resumable)
