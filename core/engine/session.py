"""The work around the steps of a run: reports, evaluations, checkpoints, rollbacks, the end."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Literal

from core.engine import stop_conditions
from core.engine.checkpoints.resume import load_rollback_point
from core.engine.checkpoints.run_checkpoints import RunCheckpoints
from core.engine.checkpoints.writer import Unwritten
from core.engine.datasets.splitting import encode_split
from core.engine.evaluation import ensemble_metrics
from core.engine.evaluation.evaluate import evaluate_network
from core.engine.evaluation.results import metrics_of, results_by_weights, results_so_far
from core.engine.events import (
    Ended,
    Log,
    Observer,
    Outcome,
    PointsLogged,
    RolledBack,
    RunProgress,
    Series,
    Started,
    StopRequest,
)
from core.engine.failure import DivergedError, EngineError
from core.engine.networks.network import Network
from core.engine.run import Run
from core.engine.weights.best import BestWeights
from core.engine.weights.ensemble import Ensemble
from core.engine.weights.snapshot import Incumbent
from core.recipe.stopping import StopReason

EvaluatedSplit = Literal["val", "test", "function"]


def metric_prefix(weights: str) -> str:
    """The prefix of the metrics of some weights; the job's own weights (base) have none."""
    return "" if weights == "base" else f"{weights}."


class Session:
    """One attempt at a run: holds the observer and the clock. All decisions but those of the clock are the run's."""

    def __init__(self, run: Run, observer: Observer, checkpoint_seconds: float, clock: Callable[[], float]) -> None:
        """A resumable checkpoint is written at least every `checkpoint_seconds`, besides those of the spec."""
        self.run = run
        self.observer = observer
        self._checkpoints = RunCheckpoints(run, observer, lambda: self.progress_at(run.train_state.step))
        self._clock = clock
        self._began = clock()
        self._checkpoint_seconds = checkpoint_seconds
        self._evaluate_every = run.spec.evaluate.every.steps(run.shape.run)
        self._keep_every = run.spec.checkpoints.every.steps(run.shape.run)
        self._keep_by = self._began + checkpoint_seconds
        self._kept: int | None = None
        self._marked: int | None = None
        self._last: tuple[float, float] | None = None
        self._pace = (run.train_state.step, self._began)

    def start_run(self) -> None:
        """Report what runs, and why it is approximate, if it is. The start is the first rollback point."""
        run = self.run
        if run.mark and not run.mark.is_set:
            self._set_rollback_point()
        environment = {**run.environment, "resume": run.resume} if run.resume else run.environment
        split = encode_split(run.data.rows)
        self.observer.emit(Started(run.train_state.step, run.network.weights.numel(), environment, split))
        for rule, weights in run.stepper.parameter_roles().items():
            self.observer.emit(Log("info", f"{rule} steps {', '.join(weights)}"))
        for reason in run.resume["reasons"] if run.resume else ():
            self.observer.emit(Log("warning", f"this run is approximate: {reason}"))
        if run.spec.checkpoints.initial and run.train_state.step == 0:
            self._checkpoints.write_initial(run.stepper.eval_network())

    # ---- events

    def report_waiting_steps(self) -> None:
        """Copy the waiting losses from the device and report them. Raises DivergedError at the first non-finite one."""
        bad = self._publish_points()
        if bad is not None:
            what = f"the loss became {self._last[0] if self._last else math.nan}"
            raise DivergedError(what, bad, self.run.rate(bad))

    def _publish_points(self) -> int | None:
        drained = self.run.log.drain_points()
        if drained.series:
            self.observer.emit(PointsLogged(drained.series))
        self._last = drained.last or self._last
        if drained.bad is None:
            self.observer.emit(self.progress_at(self.run.train_state.step))
        return drained.bad

    def progress_at(self, step: int) -> RunProgress:
        """The progress of the run after `step` complete steps."""
        epoch_layout, train_state, limit = self.run.epoch_layout, self.run.train_state, self.run.spec.seconds
        bounded, per_epoch = self.run.shape.run.bounded, epoch_layout.steps_per_epoch
        total = epoch_layout.total_steps if bounded else None
        shares = (step / total if total else 0.0, min(1.0, self.trained_seconds() / limit) if limit else 0.0)
        loss, lr = self._last or (None, None)
        finite = loss if loss is not None and math.isfinite(loss) else None
        epochs = -(-total // per_epoch) if total else None
        return RunProgress(step, total, step // per_epoch, epochs, max(shares), finite, lr, dict(train_state.metrics))

    def trained_seconds(self) -> float:
        """Seconds for which this run has been trained, earlier attempts up to their checkpoint included."""
        return self.run.train_state.seconds + self._clock() - self._began

    # ---- evaluate

    def evaluation_due(self, done: int) -> bool:
        """Every `evaluate.every` steps, and after the last."""
        return done % self._evaluate_every == 0 or done == self.run.epoch_layout.total_steps

    def run_due_evaluations(self, done: int) -> None:
        """Run the evaluations that are due after `done` steps: ensemble, networks, end of a cycle."""
        ensemble, incumbent = self.run.ensemble, self.run.incumbent
        if ensemble and ensemble.collects(done):
            self.evaluate_ensemble(ensemble)
        if self.evaluation_due(done):
            self.evaluate_networks()
        if incumbent and incumbent.completes_cycle(done):
            self.end_cycle(incumbent)

    def evaluate_networks(self) -> None:
        """Evaluate the job's weights and every average on the validation split, and report the throughput."""
        self.report_waiting_steps()
        run, done, epoch_layout = self.run, self.run.train_state.step, self.run.epoch_layout
        before, since = self._pace
        pace = (epoch_layout.examples_seen(done) - epoch_layout.examples_seen(before)) / max(
            self._clock() - since, 1e-9
        )
        networks = run.networks_to_evaluate()
        self._evaluate_split(run.spec.data.judged_on, networks, {"throughput": pace})
        run.rate.record_evaluation(run.train_state.metrics, done)
        if run.best and run.best.weights in networks:  # an average may not have begun yet
            self._update_best(run.best, networks[run.best.weights])
        if done < epoch_layout.total_steps:
            run.train_state.stop_reason = run.train_state.stop_reason or stop_conditions.by_evaluation(run)
        self._pace = (done, self._clock())

    def _update_best(self, best: BestWeights, network: Network) -> None:
        metrics, split = self.run.train_state.metrics, self.run.spec.data.judged_on
        if best.record_evaluation(self.run.train_state.step, metrics[best.policy.monitor], network):
            own = f"{metric_prefix(best.weights)}{split}."
            seen = {name.removeprefix(own): value for name, value in metrics.items() if name.startswith(own)}
            metrics |= {f"best.{split}.{name}": value for name, value in seen.items()}

    def should_end(self, done: int) -> bool:
        """Whether a stop condition ends the run here, before its budget."""
        train_state = self.run.train_state
        if train_state.stop_reason is None and done < self.run.epoch_layout.total_steps:
            train_state.stop_reason = stop_conditions.by_step(self.run, self.trained_seconds)
        return train_state.stop_reason is not None

    def end_cycle(self, incumbent: Incumbent) -> None:
        """Evaluate and keep the weights at the end of a cycle."""
        self.report_waiting_steps()
        done, network = self.run.train_state.step, self.run.stepper.eval_network()
        if not network.finite():
            raise self._not_finite()
        incumbent.copy_weights(done, network)
        self._evaluate_split(self.run.spec.data.judged_on, {"incumbent": incumbent.network}, {})
        with suppress(Unwritten):  # finish_run() writes it again
            self._checkpoints.write_incumbent(incumbent)

    def evaluate_ensemble(self, ensemble: Ensemble) -> None:
        """Evaluate the newest member, and the ensemble with it, on the validation split."""
        self.report_waiting_steps()
        found = ensemble_metrics.metrics_at_collection(self.run, ensemble)
        self._report_metrics(found)
        self.run.train_state.metrics |= {name: value for name, value in found.items() if name.startswith("ensemble.")}

    def _evaluate_split(self, split: EvaluatedSplit, networks: dict[str, Network], extra: dict[str, float]) -> None:
        run = self.run
        part = {"val": run.data.validation, "test": run.data.test, "function": run.data.train}[split]
        found: dict[str, float] = {}
        for weights, network in networks.items() if len(part) else ():
            values = evaluate_network(network, part, run.objective)
            found |= {f"{metric_prefix(weights)}{split}.{name}": value for name, value in values.items()}
        self._report_metrics(found | extra)
        run.train_state.metrics |= found

    def _report_metrics(self, found: dict[str, float]) -> None:
        """Report points at the present step, then raise DivergedError at the first value that is not finite."""
        now, done = time.time(), self.run.train_state.step
        series: dict[str, Series] = {name: ([done], [value], [now]) for name, value in found.items()}
        if series:
            self.observer.emit(PointsLogged(series))
        for name, value in found.items():
            if not math.isfinite(value):
                raise DivergedError(f"{name} became {value}", done, self.run.rate(done - 1))

    # ---- checkpoint

    def checkpoint_due(self, done: int) -> bool:
        """Every `checkpoints.every` steps, and when the last checkpoint is a minute old."""
        if done == self.run.epoch_layout.total_steps:
            return False
        return done % self._keep_every == 0 or self._clock() >= self._keep_by

    def write_checkpoint(self) -> None:
        """Write a resumable checkpoint. The digest chain has those that do not depend on a clock.

        If this machine fails to write it, the next one replaces it. Raises Unwritten if no next one follows, and
        DivergedError if a checkpoint of the chain would hold a number that is not finite.
        """
        self.report_waiting_steps()
        done, last = self.run.train_state.step, self.run.epoch_layout.total_steps
        mark = self.run.train_state.results is not None if done == last else done % self._keep_every == 0
        if not self.run.is_finite():
            if mark:
                raise self._not_finite()
            self.observer.emit(Log("warning", f"no checkpoint at step {done}: a weight is no longer a finite number"))
            self._kept = done
        elif self._kept != done:
            try:
                self._write_checkpoint_files(mark=mark and self._marked != done)
                self._kept = done
            except Unwritten:
                if self._checkpoints.writer.insists:
                    raise
        self._keep_by = self._clock() + self._checkpoint_seconds

    def _write_checkpoint_files(self, *, mark: bool) -> None:
        """Write missing weights first: a run that resumes from the checkpoint counts them as stored."""
        chain = self.run.train_state.digest if mark else None
        if mark:
            self._marked = self.run.train_state.step
            self._set_rollback_point()
        try:
            self._checkpoints.write_missing()
            self._checkpoints.write_last(seconds=self.trained_seconds(), chain=chain)
        except Unwritten:
            if chain is not None:
                self._checkpoints.chain_unwritten(chain)
            raise

    def _not_finite(self) -> DivergedError:
        done = self.run.train_state.step
        return DivergedError("a weight is no longer a finite number", done, self.run.rate(done - 1))

    # ---- back

    def _set_rollback_point(self) -> None:
        """Everything is finite here, and is so at the same step of every attempt."""
        run, train_state = self.run, self.run.train_state
        if run.mark:
            there = {"step": train_state.step, "digest": train_state.digest, "metrics": train_state.metrics}
            run.mark.save_copies(run.stepper.eval_network().tensors(), run.state_tensors(), there)

    def roll_back(self, failure: DivergedError) -> None:
        """Go back to the last rollback point, with lower rates. Raises `failure` if no rollback is left."""
        run = self.run
        if run.mark is None or run.rate.rollbacks >= run.mark.policy.times:
            raise failure
        load_rollback_point(run, run.mark)
        policy, count = run.mark.policy, run.rate.rollbacks
        message = (
            f"{failure}: back to step {run.train_state.step}, from where learning rates are multiplied by "
            f"{policy.factor**count:g} (rollback {count} of {policy.times})"
        )
        self.observer.emit(RolledBack(run.train_state.step, message))
        self._checkpoints.forget_written()
        self._kept = self._marked = self._last = None
        self._pace = (run.train_state.step, self._clock())
        self.write_checkpoint()

    # ---- the end

    def stop_on_request(self, request: StopRequest) -> Ended:
        """End on a request: at once (cancel), or at a checkpoint from which the run can resume."""
        if request == "cancel":
            self._publish_points()
            with suppress(Unwritten):  # a cancelled job does not wait for a disk
                self._checkpoints.write_missing()
            return self.ended_event("cancelled", "cancelled")
        self._checkpoints.writer.insists = True
        self.write_checkpoint()
        return self.ended_event("stopped", None)

    def finish_run(self) -> Ended:
        """Test once, write averages and the best weights, then the last checkpoint, which holds the results."""
        run, train_state = self.run, self.run.train_state
        if train_state.results is None:
            if not self.evaluation_due(train_state.step):
                self.evaluate_networks()
            self.report_waiting_steps()
            finalists = run.networks_to_test()
            self._evaluate_split("test", finalists, {})
            self._evaluate_ensembles()
            self._checkpoints.writer.insists = True
            for kind, average in run.averages.items():
                if average.ready:
                    self._checkpoints.write_weights(
                        kind, finalists[kind], train_state.step, metrics_of(run, kind), average.manifest_details()
                    )
            if run.best:
                self._checkpoints.write_best(run.best)
            if run.incumbent:
                self._checkpoints.write_incumbent(run.incumbent)
            if run.ensemble:
                self._checkpoints.write_members(run.ensemble)
            train_state.results = results_by_weights(run)
            self.write_checkpoint()
        return self.ended_event("succeeded", train_state.stop_reason or "completed")

    def _evaluate_ensembles(self) -> None:
        """Evaluate ensembles and SWAG samples on the held-out splits; `ensemble.val` has points already."""
        found = ensemble_metrics.metrics_at_end(self.run)
        self._report_metrics(
            {name: value for name, value in found.items() if not name.startswith(("member_", "ensemble.val."))}
        )
        self.run.train_state.metrics |= found

    def ended_event(self, outcome: Outcome, reason: StopReason | None) -> Ended:
        """The end of a run that did not fail."""
        train_state = self.run.train_state
        found = results_so_far(self.run) if reason == "cancelled" else train_state.results or {}
        return Ended(outcome, reason, found, None, asdict(self.progress_at(train_state.step)))

    def failed_event(self, failure: EngineError) -> Ended:
        """The end of a run that failed. Missing weights are written first, unless the device failed."""
        diverged = isinstance(failure, DivergedError)
        step = failure.step if isinstance(failure, DivergedError) else self.run.train_state.step
        reason: Literal["non_finite"] | None = "non_finite" if diverged else None
        if failure.code != "device_failed":  # every call to a failed device fails too, or never returns
            with suppress(EngineError, MemoryError, OSError, RuntimeError):  # the first failure is the one reported
                self._checkpoints.write_missing()
        return Ended("failed", reason, results_so_far(self.run), failure.as_document(), asdict(self.progress_at(step)))
