"""Analyses at the command line: request, follow, show, and save the pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

from basin import job_file, terminal_output
from basin.analysis_summary import analysis_headline
from basin.client import Client
from basin.errors import NotThere
from basin.progress import follow_job
from basin.session import CliSession, print_still_running
from basin.shapes import Analysis


def analysis_request(what: Sequence[str], kind: str, changes: Sequence[str]) -> dict[str, Any]:
    """The body of the request for an analysis."""
    return job_file.with_changes({"kind": kind, **parse_origin(what)}, changes)


def request_analysis(session: CliSession, request: Mapping[str, Any], *, to: str | None, wait: bool) -> int:
    """Requests an analysis. With `wait`, waits for its end and saves its files. Returns the exit code."""
    with session.open_client() as client:
        found = client.analyze(request)
        if wait:
            return wait_for_analysis(session, client, found, to)
        follow_it = f"follow it:  {session.command_line(f'watch {found.id}')}"
        return session.print_answer(
            found.raw(), lambda: terminal_output.print_lines(f"{found.id}  {found.status}", follow_it)
        )


def wait_for_analysis(session: CliSession, client: Client, found: Analysis, to: str | None) -> int:
    """Waits for an analysis, shows it and saves its files. Returns the exit code (130: Ctrl-C)."""
    if not session.json:
        terminal_output.print_lines(f"{found.id}  {found.kind}")
    try:
        follow_job(client, found.id, stderr=session.json)
    except KeyboardInterrupt:
        print_still_running(session, found.id)
        return 130
    return show_and_save(session, client, client.analysis(found.id), to)


def show_and_save(session: CliSession, client: Client, found: Analysis, to: str | None) -> int:
    """Prints an analysis and saves its files into a folder. Returns exit code 0 if it succeeded, else 1."""
    paths = save_files(client, found, to)
    if session.json:
        terminal_output.print_json(found.raw() | {"paths": paths})
    else:
        terminal_output.print_analysis(found, analysis_headline(found))
        terminal_output.print_lines(*paths)
    return 0 if found.status == "succeeded" else 1


def print_analysis(session: CliSession, found: Analysis) -> None:
    """Prints the numbers of an analysis, and the command that downloads its files."""
    if session.json:
        terminal_output.print_json(found.raw())
        return
    terminal_output.print_analysis(found, analysis_headline(found))
    if found.results:
        terminal_output.print_lines(f"get its pictures and arrays:  {session.command_line(f'download {found.id}')}")


def download_analysis(session: CliSession, analysis_id: str, to: str | None) -> int:
    """Writes an analysis' pictures and arrays into the folder `to`; by default a folder named by its id."""
    with session.open_client() as client:
        found = client.analysis(analysis_id)
        if not found.results:
            raise NotThere(f"{analysis_id} has no results yet: it is {found.status}")
        paths = save_files(client, found, to)
    return session.print_answer(found.raw() | {"paths": paths}, lambda: terminal_output.print_lines(*paths))


def save_files(client: Client, found: Analysis, to: str | None) -> list[str]:
    """Saves the files of an analysis and returns their paths; none without results."""
    return [str(path) for path in client.save(found, to or found.id)] if found.results else []


def list_analyses(session: CliSession, job: str | None, limit: int) -> int:
    """Prints the newest analyses."""
    with session.open_client() as client:
        found = client.analyses(job=job, limit=limit)
    return session.print_answer(found.raw(), lambda: terminal_output.print_analyses(found))


def parse_origin(what: Sequence[str]) -> dict[str, Any]:
    """The request's fields for the weights to analyze, from words such as job_…, job_…:swa, ckpt_…, or only an_…"""
    if all(word.startswith("an_") for word in what):
        return {"analyses": list(what)}
    starts = [parse_start(word) for word in what]
    return starts[0] if len(starts) == 1 else {"checkpoints": starts}


def parse_start(word: str) -> dict[str, Any]:
    """The request's fields for one word: a job (optionally with `:weights`) or a checkpoint."""
    name, _, weights = word.partition(":")
    noun = "checkpoint" if name.startswith("ckpt_") else "job"
    return {noun: name} | ({"weights": weights} if weights else {})
