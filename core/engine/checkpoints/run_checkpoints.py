"""The checkpoints of one attempt: resumable ones, and weights alone (best, averages, members, ends of cycles)."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from core.engine.checkpoints.files import STATE, WEIGHTS, Files, chain_digest, describe_tensor_files
from core.engine.checkpoints.writer import CheckpointHeader, CheckpointWriter
from core.engine.evaluation import ensemble_metrics
from core.engine.evaluation.results import metrics_of
from core.engine.events import Kind, Observer, RunProgress
from core.engine.networks.network import Network
from core.engine.run import Run
from core.engine.weights.best import BestWeights
from core.engine.weights.ensemble import Ensemble
from core.engine.weights.snapshot import Incumbent


class RunCheckpoints:
    """Writes the checkpoints of a run, and skips weights that are on disk already.

    Every method that writes raises Unwritten, see CheckpointWriter.
    """

    def __init__(self, run: Run, observer: Observer, progress: Callable[[], RunProgress]) -> None:
        """`observer` receives an event for every folder that is durably on disk."""
        self._run = run
        self.writer = CheckpointWriter(
            run.scratch,
            run.job,
            run.environment,
            observer=observer,
            progress=progress,
            report_alive=run.report_alive,
        )
        self._best = run.best.step if run.best else None
        self._members = set(run.ensemble.member_steps) if run.ensemble else set()

    def forget_written(self) -> None:
        """Count nothing as written. After a rollback, later checkpoints may be void and those they replaced needed."""
        self._best, self._members = None, set()
        self.writer.go_back()

    def write_last(self, *, seconds: float, chain: str | None = None) -> None:
        """Write a resumable checkpoint, as the next link of the digest chain `chain`; `seconds` is training time."""
        run, train_state = self._run, self._run.train_state
        # With restored best weights, the test metrics are not those of the last weights.
        replaced = run.best and run.best.restores_best and run.best.weights == "base"
        own = ("val.", "function.", *(() if replaced else ("test.",)))
        metrics = {name: value for name, value in train_state.metrics.items() if name.startswith(own)}
        more = {
            "metrics": train_state.metrics,
            "results": train_state.results,
            "stop_reason": train_state.stop_reason,
            "seconds": seconds,
        }

        def describe(files: Files) -> dict[str, Any]:
            if chain is not None:
                train_state.digest = chain_digest(chain, files)
            return {**self._aliases(), **more, "digest": train_state.digest}

        self.writer.write_tensors(self._header("last", train_state.step, metrics), self._resumable(), describe)

    def chain_unwritten(self, chain: str) -> None:
        """Compute the next link as if the checkpoint were written: later links do not depend on a failed disk."""
        self._run.train_state.digest = chain_digest(
            chain, describe_tensor_files(self._resumable(), self._run.report_alive)
        )

    def _resumable(self) -> dict[str, dict[str, Tensor]]:
        run = self._run
        return {
            WEIGHTS: run.stepper.eval_network().tensors() | run.data.standardize_tensors(),
            STATE: run.state_tensors(),
        }

    def write_missing(self) -> None:
        """Write the best weights and the members of the ensemble, each unless it is on disk already."""
        best, ensemble = self._run.best, self._run.ensemble
        if best and best.step != self._best:
            self.write_best(best)
        for step in ensemble.member_steps if ensemble else ():
            if ensemble and step not in self._members:
                self._write_member(ensemble, step, ensemble_metrics.member_metrics(self._run, ensemble, step))

    def write_best(self, best: BestWeights) -> None:
        """Write the best weights, if there are any."""
        if best.step is not None:
            metrics = metrics_of(self._run, "best")
            self.write_weights("best", best.network, best.step, metrics, {"monitor": best.policy.monitor})
            self._best = best.step

    def write_initial(self, network: Network) -> None:
        """Write the weights before the first step. No later checkpoint replaces them, so the writer insists."""
        self.writer.insists = True
        self.write_weights("initial", network, 0, {}, {})
        self.writer.insists = False

    def write_incumbent(self, incumbent: Incumbent) -> None:
        """Write the weights at the end of the last cycle, if there is one."""
        if incumbent.step is not None:
            self.write_weights("cycle_end", incumbent.network, incumbent.step, metrics_of(self._run, "incumbent"), {})

    def write_members(self, ensemble: Ensemble) -> None:
        """Write all members again, with their test metrics."""
        for number, step in enumerate(ensemble.member_steps, 1):
            self._write_member(ensemble, step, metrics_of(self._run, f"member_{number}"))

    def _write_member(self, ensemble: Ensemble, step: int, metrics: dict[str, float]) -> None:
        network = ensemble.member_network(step)
        finite = network.finite() and all(map(math.isfinite, metrics.values()))
        if finite:  # a run that diverged may have members that are not
            self.write_weights("snapshot", network, step, metrics, {})
            self._members.add(step)

    def write_weights(
        self, kind: Kind, network: Network, step: int, metrics: dict[str, float], more: dict[str, Any]
    ) -> None:
        """Write weights alone, those after `step` steps; `more` is added to the manifest."""
        tensors = {WEIGHTS: network.tensors() | self._run.data.standardize_tensors()}
        said = {**self._aliases(), **more, "metrics": metrics}
        self.writer.write_tensors(self._header(kind, step, metrics), tensors, lambda _: said)

    def _header(self, kind: Kind, step: int, metrics: dict[str, float]) -> CheckpointHeader:
        return CheckpointHeader(kind, step, step // self._run.epoch_layout.steps_per_epoch, metrics)

    def _aliases(self) -> dict[str, Any]:
        """The manifest's `aliases`, if the network has weights under several names."""
        return {"aliases": dict(self._run.network.aliases)} if self._run.network.aliases else {}
