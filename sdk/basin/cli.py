"""The `basin` command. A server that is installed beside it adds its own commands: up, api, worker, run and more."""

import sys
from importlib import metadata
from io import TextIOWrapper
from typing import Annotated

import typer

from basin.cli_analyses import analyses, analyze
from basin.cli_data import data
from basin.errors import BasinError
from basin.options import As, Changes, JobFile, JobId, Key, Output, Pairs, Pinned, Url

ENTRY_POINTS = "basin.commands"


app = typer.Typer(
    name="basin",
    help="Train models by describing them: submit a job, a worker trains it.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: rich would load markdown and syntax colouring first, 0.2 s
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the option's value
    if wanted:
        typer.echo(f"basin {metadata.version('basin')}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train models by describing them: submit a job, a worker trains it."""


@app.command()
def submit(  # noqa: PLR0913 - a command's options
    *,
    path: JobFile,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch it until it ends.")] = False,
    changes: Changes = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check it and fill in the defaults.")] = False,
    url: Url = None,
    key: Key = None,
    output: As = Output.TABLE,
) -> None:
    """Submit a job file."""
    from basin import actions
    from basin.session import CliSession

    session = CliSession(url, output is Output.JSON, key)
    if dry_run:
        raise typer.Exit(actions.check_job(session, path, changes or ()))
    raise typer.Exit(actions.submit_job(session, path, changes or (), watch=follow))


@app.command("ls", hidden=True)
@app.command("ps", hidden=True)
@app.command("list")
def list_jobs(  # noqa: PLR0913 - as above
    *,
    status: Annotated[list[str] | None, typer.Option(help="Only jobs with this status; repeat it for more.")] = None,
    metadata: Pairs = None,
    q: Annotated[
        str | None, typer.Option("--q", metavar="TEXT", help="Only jobs with this in their name or id.")
    ] = None,
    after: Annotated[str | None, typer.Option(metavar="JOB", help="The next page: those after this job.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100)] = 20,
    url: Url = None,
    key: Key = None,
    output: As = Output.TABLE,
) -> None:
    """List jobs, newest first (also: ls, ps)."""
    from basin import actions
    from basin.session import CliSession

    search = actions.JobFilter(status or None, metadata or (), q)
    raise typer.Exit(actions.list_jobs(CliSession(url, output is Output.JSON, key), search, after, limit))


@app.command()
def show(*, job: JobId, url: Url = None, key: Key = None, output: As = Output.TABLE) -> None:
    """Show one job: its recipe, progress, results and checkpoints."""
    from basin import actions
    from basin.session import CliSession

    raise typer.Exit(actions.show_job(CliSession(url, output is Output.JSON, key), job))


@app.command()
def watch(*, job: JobId, url: Url = None, key: Key = None, output: As = Output.TABLE) -> None:
    """Watch a job until it ends.

    The exit code is 0 when it succeeded, 1 when not. Ctrl-C stops the command; the job continues.
    """
    from basin import actions
    from basin.session import CliSession

    raise typer.Exit(actions.watch_job(CliSession(url, output is Output.JSON, key), job))


@app.command()
def logs(
    *,
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the job ends.")] = False,
    url: Url = None,
    key: Key = None,
    output: As = Output.TABLE,
) -> None:
    """Print the log lines and warnings of a job, and its error.

    With -o json each entry is a JSON document on its own line. Ctrl-C stops the command; the job continues.
    """
    from basin import actions
    from basin.session import CliSession

    raise typer.Exit(actions.print_logs(CliSession(url, output is Output.JSON, key), job, follow=follow))


@app.command()
def events(  # noqa: PLR0913 - a command's options
    *,
    job: JobId,
    types: Annotated[
        str | None, typer.Option(metavar="A,B", help="Of status, checkpoint, log, warning; else all.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the job ends.")] = False,
    url: Url = None,
    key: Key = None,
    output: As = Output.TABLE,
) -> None:
    """Print the events of a job: time, attempt, type and text. As in: basin events job_01… --types warning"""
    from basin import actions
    from basin.session import CliSession

    raise typer.Exit(actions.print_events(CliSession(url, output is Output.JSON, key), job, types, follow=follow))


@app.command()
def cancel(
    *,
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...")],
    url: Url = None,
    key: Key = None,
    output: As = Output.TABLE,
) -> None:
    """Cancel jobs; their last checkpoints stay."""
    from basin import actions
    from basin.session import CliSession

    raise typer.Exit(actions.request_verb(CliSession(url, output is Output.JSON, key), "cancel", jobs))


@app.command()
def pause(
    *,
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...")],
    url: Url = None,
    key: Key = None,
    output: As = Output.TABLE,
) -> None:
    """Pause jobs: each writes a checkpoint and frees its slot."""
    from basin import actions
    from basin.session import CliSession

    raise typer.Exit(actions.request_verb(CliSession(url, output is Output.JSON, key), "pause", jobs))


@app.command()
def resume(
    *,
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...")],
    url: Url = None,
    key: Key = None,
    output: As = Output.TABLE,
) -> None:
    """Resume paused jobs. The results are bit for bit those of a run without the pause."""
    from basin import actions
    from basin.session import CliSession

    raise typer.Exit(actions.request_verb(CliSession(url, output is Output.JSON, key), "resume", jobs))


@app.command()
def retry(  # noqa: PLR0913 - a command's options
    *,
    job: JobId,
    again: Annotated[bool, typer.Option("--again", help="Also if it was retried before.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch it until it ends.")] = False,
    url: Url = None,
    key: Key = None,
    output: As = Output.TABLE,
) -> None:
    """Retry a failed or cancelled job. The new job starts from its last checkpoint."""
    from basin import actions
    from basin.session import CliSession

    raise typer.Exit(actions.retry_job(CliSession(url, output is Output.JSON, key), job, again=again, watch=follow))


@app.command()
def fork(  # noqa: PLR0913 - as above
    *,
    job: JobId,
    at: Annotated[
        str | None,
        typer.Option(metavar="STEP|CHECKPOINT", help="Where it branches off; default: the newest checkpoint."),
    ] = None,
    changes: Changes = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch it until it ends.")] = False,
    url: Url = None,
    key: Key = None,
    output: As = Output.TABLE,
) -> None:
    """Fork a job at a checkpoint, with changed fields.

    The new job has the same history up to the checkpoint. --set changes its fields after it.
    """
    from basin import actions
    from basin.session import CliSession

    session = CliSession(url, output is Output.JSON, key)
    raise typer.Exit(actions.fork_job(session, job, changes or (), at, watch=follow))


@app.command()
def edit(  # noqa: PLR0913 - as above
    *,
    job: JobId,
    name: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    priority: Annotated[int | None, typer.Option(min=-100, max=100, help="The higher, the earlier.")] = None,
    metadata: Pairs = None,
    url: Url = None,
    key: Key = None,
    output: As = Output.TABLE,
) -> None:
    """Change a job's name, priority or metadata; KEY= removes a pair."""
    from basin import actions
    from basin.session import CliSession

    changes = {"name": name, "priority": priority}
    given = {field: value for field, value in changes.items() if value is not None}
    raise typer.Exit(actions.edit_job(CliSession(url, output is Output.JSON, key), job, given, metadata or ()))


@app.command()
def delete(
    *,
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...")],
    url: Url = None,
    key: Key = None,
    output: As = Output.TABLE,
) -> None:
    """Delete jobs that have ended, with their metrics and weights."""
    from basin import actions
    from basin.session import CliSession

    raise typer.Exit(actions.delete_jobs(CliSession(url, output is Output.JSON, key), jobs))


@app.command()
def pin(*, checkpoints: Pinned, url: Url = None, key: Key = None, output: As = Output.TABLE) -> None:
    """Keep checkpoints regardless of `checkpoints.keep_last`. As in: basin pin ckpt_01…

    `basin show JOB` lists the checkpoints of a job.
    """
    from basin import actions
    from basin.session import CliSession

    raise typer.Exit(actions.pin_checkpoints(CliSession(url, output is Output.JSON, key), checkpoints))


@app.command()
def unpin(*, checkpoints: Pinned, url: Url = None, key: Key = None, output: As = Output.TABLE) -> None:
    """Remove the pins of checkpoints. Those that retention does not keep are deleted. As in: basin unpin ckpt_01…"""
    from basin import actions
    from basin.session import CliSession

    raise typer.Exit(actions.unpin_checkpoints(CliSession(url, output is Output.JSON, key), checkpoints))


@app.command()
def workers(*, url: Url = None, key: Key = None, output: As = Output.TABLE) -> None:
    """List the workers and their slots."""
    from basin import actions
    from basin.session import CliSession

    raise typer.Exit(actions.list_workers(CliSession(url, output is Output.JSON, key)))


@app.command()
def queue(*, url: Url = None, key: Key = None, output: As = Output.TABLE) -> None:
    """List your queued jobs, and why each waits."""
    from basin import actions
    from basin.session import CliSession

    raise typer.Exit(actions.show_queue(CliSession(url, output is Output.JSON, key)))


@app.command()
def download(  # noqa: PLR0913 - as above
    *,
    job: JobId,
    kind: Annotated[
        str | None, typer.Option(help="swa, ema, snapshot, last …; default: swa, else ema, best, last.")
    ] = None,
    to: Annotated[str | None, typer.Option(metavar="PATH", help="A file or a folder; else here.")] = None,
    url: Url = None,
    key: Key = None,
    output: As = Output.TABLE,
) -> None:
    """Download a job's weights (safetensors), or the pictures and arrays of an analysis.

    Weights are checked against their SHA-256. A file is written whole, or not at all.
    """
    from basin import actions
    from basin.session import CliSession

    raise typer.Exit(actions.download_weights(CliSession(url, output is Output.JSON, key), job, kind, to))


@app.command()
def plot(  # noqa: PLR0913 - a command's options
    *,
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...")],
    series: Annotated[
        str | None, typer.Option(metavar="A,B", help="As in train.loss,val.loss; needed for many.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", "-o", metavar="PATH", help="Else JOB.svg; '-' is stdout.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="path: the trajectory of a point over its function; default: curves.")
    ] = None,
    x: Annotated[str | None, typer.Option(help="step, epoch or seconds.")] = None,
    y: Annotated[str | None, typer.Option(help="auto, linear or log.")] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Draw the curves of one job, or of several in one picture (SVG)."""
    from basin import actions
    from basin.session import CliSession

    look = {"kind": kind, "x": x, "y": y}
    raise typer.Exit(actions.plot_jobs(CliSession(url, json=False, key=key), jobs, series, to, look))


app.command()(analyze)
app.command()(analyses)
app.add_typer(data, name="data")


@app.command()
def demo(*, url: Url = None, key: Key = None) -> None:
    """Train a real job on real data and show the results.

    When no service answers, one is started for the demo and stopped after it.
    """
    from basin.demo import run_demo

    raise typer.Exit(run_demo(url, key))


def build_app() -> typer.Typer:
    """The app with the commands that other distributions register, in the order of their names."""
    for entry in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda one: one.name):
        verb = entry.load()
        if isinstance(verb, typer.Typer):
            app.add_typer(verb, name=entry.name)
        else:
            app.command(entry.name)(verb)
    return app


def main() -> None:
    """The entry point of the script in bin/."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # an ASCII terminal gets question marks, not a traceback
    try:
        build_app()()
    except BasinError as error:
        from basin import terminal_output

        terminal_output.print_error(error)
        sys.exit(1)
