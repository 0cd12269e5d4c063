"""`basin run`: the engine with an observer that prints. No database, no broker, no server."""

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer

from core.recipe.averaging.ensemble import MEMBER
from core.recipe.checks.spec import warnings
from core.recipe.spec import JobSpec
from core.settings import Settings
from worker import runner
from worker.devices.devices import opened_devices

LINE_SECONDS: Final = 1.0
SUCCEEDED, FAILED, INTERRUPTED = 0, 1, 130
MANY: Final = (MEMBER, "cycle_end")  # kinds of weights of which every step is kept


class ProgressPrinter:
    """An observer for a terminal or a log file: one plain line a second, and the weights into a folder."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._stop: runner.StopMode | None = None
        self._printed_at = 0.0

    def emit(self, event: runner.Event) -> None:
        kind, fields = runner.event_frame(event)
        match kind:
            case "progress":
                self._print_progress(fields)
            case "checkpoint":
                weights = Path(fields["folder"]) / fields["files"]["weights"]["name"]
                name = f"{fields['kind']}-{fields['step']}" if fields["kind"] in MANY else fields["kind"]
                shutil.copyfile(weights, self._out / f"{name}.safetensors")
                shutil.rmtree(fields["folder"])
            case "checkpoint_failed":
                where = f"the {fields['kind']} checkpoint at step {fields['step']}"
                typer.echo(f"warning: {where} could not be written: {fields['message']}")
            case "rollback":
                typer.echo(f"warning: {fields['message']}")
            case "log":
                typer.echo(f"{fields['level']}: {fields['message']}")

    def stop_request(self) -> runner.StopMode | None:
        return self._stop

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """The first Ctrl-C ends the run at its present step; a second one ends the process."""
        before = signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _on_interrupt(self, _signum: int, _frame: object) -> None:
        self._stop = "checkpoint"
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _print_progress(self, fields: dict[str, Any]) -> None:
        now = time.monotonic()
        if now - self._printed_at < LINE_SECONDS and fields["fraction"] < 1:
            return
        self._printed_at = now
        typer.echo(progress_line(fields))


def progress_line(fields: dict[str, Any]) -> str:
    """`step 400/1200  epoch 10/30  loss 0.1234  lr 0.1  val.accuracy 0.97`"""
    counted = ((name, fields[name], fields[f"{name}s"]) for name in ("step", "epoch"))
    parts = [f"{name} {done}/{total}" if total is not None else f"{name} {done}" for name, done, total in counted]
    numbers = {"loss": fields["loss"], "lr": fields["lr"], **fields["metrics"]}
    parts += [f"{name} {value:.4g}" for name, value in numbers.items() if value is not None]
    return "  ".join(parts)


def _remove_old_files(out: Path) -> None:
    """Remove the files of an earlier run: they would look like results of this one."""
    out.mkdir(parents=True, exist_ok=True)
    known = (
        "results.json",
        *(f"{kind}.safetensors" for kind in ("last", "swa", "ema", "best", *(f"{kind}-[0-9]*" for kind in MANY))),
    )
    for old in [path for name in known for path in out.glob(name)]:
        old.unlink()


def train_here(spec: JobSpec, out: Path, prepared: Path | None = None) -> int:
    """Train, print, leave the weights in `out`; the exit status. `prepared` is the folder of the job's own data."""
    if spec.start:
        typer.echo('"from" names a checkpoint of a service; submit this job there', err=True)
        return FAILED
    _remove_old_files(out)
    printer = ProgressPrinter(out)
    for warning in warnings(spec, spec.shape()):
        typer.echo(f"warning: {warning.pointer or '/'}: {warning.message}")
    settings = Settings()
    with (
        opened_devices(settings, wanted=spec.resources.device != "cpu") as gpus,
        tempfile.TemporaryDirectory(prefix="basin-run-") as scratch,
        printer.interruptible(),
    ):
        gpu = next((report.token for report in gpus if report.ok), "")
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before anything asks CUDA
        ended = runner.train_local(
            spec,
            printer,
            datasets=settings.datasets,
            scratch=Path(scratch),
            slot="gpu" if gpu else "cpu",
            prepared=prepared,
        )
    if ended.outcome == "failed":
        error = ended.error or {}
        typer.echo(f"failed ({error.get('code')}): {error.get('message')}\n{error.get('remedy') or ''}", err=True)
        return FAILED
    if ended.outcome != "succeeded":
        of = f" of {ended.progress['steps']}" if ended.progress["steps"] is not None else ""
        where = f"step {ended.progress['step']}{of}"
        typer.echo(f"stopped by Ctrl-C at {where}; the weights of that step are in {out}/", err=True)
        return INTERRUPTED
    (out / "results.json").write_text(json.dumps(ended.results, indent=1) + "\n")
    for line in result_table(ended.results):
        typer.echo(line)
    typer.echo(f"weights: {out}/")
    return SUCCEEDED


def result_table(results: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """One line for each kind of weights and split, one column for each metric."""
    rows = [(weights, split, metrics) for weights, splits in results.items() for split, metrics in splits.items()]
    names = list(dict.fromkeys(name for *_, metrics in rows for name in metrics))
    lines = ["".join(f"{title:>10}" for title in ("weights", "split", *names))]
    for weights, split, metrics in rows:
        cells = [f"{metrics[name]:.4f}" if name in metrics else "" for name in names]
        lines.append("".join(f"{cell:>10}" for cell in (weights, split, *cells)))
    return lines
