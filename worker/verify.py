"""The command `basin verify`. The server's modules are imported inside, so that `basin --help` stays fast."""

from typing import TYPE_CHECKING, Annotated

import typer

from basin.options import As, Output
from local.commands import database_of, explain_errors, restrict_umask

if TYPE_CHECKING:
    from worker.replay import ReplayReport

CANNOT_TELL, INTERRUPTED = 2, 130
UNEXPLAINED = (
    "no known cause: the libraries, the device and the threads are the same",
    "run it once more: if both runs agree, suspect memory or disk of the machine that trained the job",
)


def verify(
    *,
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="Train this job again; else check them all.")] = None,
    start: Annotated[
        int | None, typer.Option("--from", min=0, metavar="STEP", help="The checkpoint to begin at; 0 is the start.")
    ] = None,
    digests: Annotated[
        bool, typer.Option("--digests", help="Read all objects too, and compare their digests.")
    ] = False,
    output: As = Output.TABLE,
) -> None:
    """Check the records of all jobs; or train a part of one job again and compare the bits.

    Without a job: a read-only check of database and store; the service may run. With one: from one of its
    checkpoints (else the oldest) to the next. Needs the database and the store, not the api.

    Exit status: 0 no difference, 1 differences, 2 the check could not be done, 130 Ctrl-C.
    """
    if job is None and start is not None:
        raise typer.BadParameter("--from needs a job: `basin verify JOB --from STEP`", param_hint="--from")
    if job is not None and digests:
        raise typer.BadParameter("--digests checks all jobs: leave out JOB or the option", param_hint="--digests")
    restrict_umask()
    with explain_errors("verify", CANNOT_TELL):
        try:
            code = _verify_ledger(digests, output) if job is None else _verify_job(job, start, output)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(code)


def _verify_ledger(digests: bool, output: Output) -> int:  # noqa: FBT001 - the options as they were given
    from local.ledger import check_ledger

    return check_ledger(digests=digests, as_json=output is Output.JSON)


def _verify_job(job_id: str, start: int | None, output: Output) -> int:
    import json

    from core.jobs.checkpoints.replay import find_segment, read_history
    from core.jobs.store_identity import open_identified_store
    from core.settings import Settings

    settings = Settings()
    with database_of(settings) as db:
        past = read_history(db, job_id)
        part = find_segment(past, start)
        from worker.replay import replay_segment  # imports torch: only after the job is found

        report = replay_segment(past, part, open_identified_store(settings, db, read_only=True), settings)
    if output is Output.JSON:
        typer.echo(json.dumps(report_document(job_id, report), indent=2))
    else:
        typer.echo("\n".join(report_lines(report)))
    return 0 if report.is_exact else 1


def report_document(job_id: str, report: "ReplayReport") -> dict[str, object]:
    """The report for programs."""
    begin, end = report.stretch.begin, report.stretch.end
    return {
        "job": job_id,
        "from": {"checkpoint": begin.id if begin else None, "step": begin.step if begin else 0},
        "to": {"checkpoint": end.id, "step": end.step},
        "verdict": "exact" if report.is_exact else "differs",
        "compared": [{"what": each.what, "recorded": each.recorded, "found": each.found} for each in report.compared],
        "reasons": list(report.reasons),
    }


def report_lines(report: "ReplayReport") -> list[str]:
    """The report for users."""
    begin, end = report.stretch.begin, report.stretch.end
    where = f"step {begin.step} ({begin.id})" if begin else "the start"
    found = [f"trained from {where} to step {end.step} ({end.id})"]
    for each in report.compared:
        same = "equal" if each.is_equal else f"here {each.found or 'none: the run did not reach this checkpoint'}"
        found.append(f"{each.what:<9}{each.recorded or '(no link yet)'}  {same}")
    if report.is_exact:
        return [*found, "exact: training again gives the same bits"]
    reasons = report.reasons or UNEXPLAINED
    return [*found, "differs: training again gives other bits", *(f"  {reason}" for reason in reasons)]
