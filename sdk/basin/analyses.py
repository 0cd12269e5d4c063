"""Analyses at the command line: ask, follow, show, and put the pictures on disk."""

from collections.abc import Mapping, Sequence
from typing import Any

from basin import job_file, terminal_output
from basin.actions import Session, goes_on
from basin.analysis_summary import headline
from basin.client import Client
from basin.errors import NotThere
from basin.progress import follow
from basin.shapes import Analysis


def request(what: Sequence[str], kind: str, changes: Sequence[str]) -> dict[str, Any]:
    """What is asked of the service."""
    return job_file.with_changes({"kind": kind, **origin(what)}, changes)


def analyze(session: Session, request: Mapping[str, Any], *, to: str | None, wait: bool) -> int:
    """Asks for an analysis; waits for it and saves its pictures, unless told not to."""
    with session.client() as client:
        found = client.analyze(request)
        if wait:
            return awaited(session, client, found, to)
        follow_it = f"follow it:  {session.again(f'watch {found.id}')}"
        return session.print_answer(found.raw(), lambda: terminal_output.say(f"{found.id}  {found.status}", follow_it))


def awaited(session: Session, client: Client, found: Analysis, to: str | None) -> int:
    """Waits for an analysis, shows it and saves its files."""
    if not session.json:
        terminal_output.say(f"{found.id}  {found.kind}")
    try:
        follow(client, found.id, stderr=session.json)
    except KeyboardInterrupt:
        goes_on(session, found.id)
        return 130
    return shown(session, client, client.analysis(found.id), to)


def shown(session: Session, client: Client, found: Analysis, to: str | None) -> int:
    """Its numbers on the screen and its files in a folder; 0 when it came to its end."""
    paths = saved(client, found, to)
    if session.json:
        terminal_output.as_json(found.raw() | {"paths": paths})
    else:
        terminal_output.analysis(found, headline(found))
        terminal_output.say(*paths)
    return 0 if found.status == "succeeded" else 1


def page(session: Session, found: Analysis) -> None:
    """Its numbers, and how to get its files."""
    if session.json:
        terminal_output.as_json(found.raw())
        return
    terminal_output.analysis(found, headline(found))
    if found.results:
        terminal_output.say(f"get its pictures and arrays:  {session.again(f'download {found.id}')}")


def download(session: Session, analysis_id: str, to: str | None) -> int:
    """Writes its pictures and arrays into a folder, else one of its id's name."""
    with session.client() as client:
        found = client.analysis(analysis_id)
        if not found.results:
            raise NotThere(f"{analysis_id} has found nothing yet: it is {found.status}")
        paths = saved(client, found, to)
    return session.print_answer(found.raw() | {"paths": paths}, lambda: terminal_output.say(*paths))


def saved(client: Client, found: Analysis, to: str | None) -> list[str]:
    """The files of what it has found."""
    return [str(path) for path in client.save(found, to or found.id)] if found.results else []


def listing(session: Session, job: str | None, limit: int) -> int:
    """The newest analyses."""
    with session.client() as client:
        found = client.analyses(job=job, limit=limit)
    return session.print_answer(found.raw(), lambda: terminal_output.analyses(found))


def origin(what: Sequence[str]) -> dict[str, Any]:
    """Words like job_…, job_…:swa and ckpt_…, or an_… alone, as the request says it."""
    if all(word.startswith("an_") for word in what):
        return {"analyses": list(what)}
    starts = [start(word) for word in what]
    return starts[0] if len(starts) == 1 else {"checkpoints": starts}


def start(word: str) -> dict[str, Any]:
    """One of them."""
    name, _, weights = word.partition(":")
    noun = "checkpoint" if name.startswith("ckpt_") else "job"
    return {noun: name} | ({"weights": weights} if weights else {})
