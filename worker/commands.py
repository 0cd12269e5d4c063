"""`basin worker` and `basin run`. The server's modules are imported inside, so that `basin --help` stays fast."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from core.recipe.spec import JobSpec
    from worker.local_source import LocalSourceReader


def worker(
    slots: Annotated[int, typer.Option(min=1, max=256, help="How many jobs run at the same time.")] = 1,
    queues: Annotated[str, typer.Option(help="cpu, gpu, or both with a comma between.")] = "cpu,gpu",
) -> None:
    """Train queued jobs until SIGTERM or SIGINT; running jobs write a checkpoint and go back to the queue."""
    from core.process import forbid_reading

    forbid_reading()
    from pydantic import ValidationError

    from core.errors import BasinError
    from core.logs import configure_logging
    from core.redact import register_secrets
    from core.settings import Settings
    from local.commands import restrict_umask
    from worker.app import run_worker
    from worker.devices.devices import opened_devices
    from worker.slots import plan_slots

    restrict_umask()
    try:
        settings = Settings()
        register_secrets(settings)
        configure_logging(settings.log_level, settings.log_format)
        wanted = [name.strip() for name in queues.split(",") if name.strip()]
        with opened_devices(settings, wanted="gpu" in wanted) as gpus:
            code = run_worker(settings, plan_slots(slots, wanted, gpus), gpus)
    except ValidationError as error:
        first = error.errors()[0]
        _exit_with_error("worker", f"setting {'.'.join(map(str, first['loc']))}: {first['msg']}")
    except BasinError as error:
        _exit_with_error("worker", error.message)
    raise typer.Exit(code)


def run(
    job: Annotated[Path, typer.Argument(help="A job file, YAML or JSON: the body of POST /v1/jobs.")],
    out: Annotated[Path | None, typer.Option(help="Where the weights go; else a folder named after the file.")] = None,
) -> None:
    """Train a job file here and now, without a service. Exit status: 0 succeeded, 1 failed, 2 bad file, 130 Ctrl-C.

    Its data may be a path, as in `data: {path: ./train.csv, target: species}`. The file is prepared once.
    """
    from basin import job_file
    from basin.errors import BadFile
    from core.errors import BasinError
    from core.settings import Settings
    from worker.local_source import LocalSourceReader

    try:
        document = job_file.read_job(str(job))
        with LocalSourceReader(document, str(job), Settings()) as source:
            spec = _read_job(source)
            from worker.run_local import train_here  # imports torch: only after the spec is valid

            code = train_here(spec, out or Path(f"{job.stem}-weights"), source.prepared)
    except BadFile as error:
        _exit_with_error("run", str(error))
    except BasinError as error:
        for problem in error.errors:
            hint = f" ({problem.hint})" if problem.hint else ""
            typer.echo(f"basin run: {problem.pointer or '/'}: {problem.message}{hint}", err=True)
        _exit_with_error("run", error.message)
    raise typer.Exit(code)


def _read_job(source: "LocalSourceReader") -> "JobSpec":
    """The job, its data prepared. Exits where this machine fails, and at Ctrl-C.

    Raises:
        InvalidSpec: with every problem found.
        BadFile: the data cannot be used.
    """
    import json

    from core.recipe.parse import parse_job
    from worker.datasets.local import PrepareFailed

    try:
        return parse_job(json.dumps(source.document).encode(), source.resolve)
    except PrepareFailed as error:
        _exit_with_error("run", str(error), 1)
    except OSError as error:
        _exit_with_error("run", f"{error.filename}: {error.strerror}" if error.filename else str(error), 1)
    except KeyboardInterrupt:
        _exit_with_error("run", "stopped by Ctrl-C while the data was prepared; nothing was trained", 130)


def _exit_with_error(command: str, message: str, status: int = 2) -> NoReturn:
    from core.redact import redact_secrets

    typer.echo(redact_secrets(f"basin {command}: {message}"), err=True)
    raise typer.Exit(status)
