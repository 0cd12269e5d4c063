"""Analyses at the command line: ask, follow, show, and put the pictures on disk."""

from collections.abc import Sequence
from typing import Any

from basin import jobfile, screen
from basin.client import Client
from basin.deeds import Session, goes_on
from basin.follow import follow
from basin.headlines import headline
from basin.shapes import Analysis


def analyze(  # noqa: PLR0913 - a command's options
    session: Session, what: Sequence[str], kind: str, changes: Sequence[str], *, to: str | None, wait: bool
) -> int:
    """Asks for an analysis; waits for it and saves its pictures, unless told not to."""
    request = jobfile.with_changes({"kind": kind, **origin(what)}, changes)
    with session.client() as client:
        found = client.analyze(request)
        if not wait:
            if session.json:
                screen.as_json(found.raw())
            else:
                screen.say(f"{found.id}  {found.status}", f"follow it:  {session.again(f'watch {found.id}')}")
            return 0
        if not session.json:
            screen.say(f"{found.id}  {kind}")
        try:
            follow(client, found.id, stderr=session.json)
        except KeyboardInterrupt:
            goes_on(session, found.id)
            return 130
        return shown(session, client, client.analysis(found.id), to)


def shown(session: Session, client: Client, found: Analysis, to: str | None = None, *, save: bool = True) -> int:
    """Its numbers on the screen and its files in a folder; 0 when it came to its end."""
    paths = client.save(found, to or found.id) if save and found.results else ()
    if session.json:
        screen.as_json(found.raw() | {"paths": [str(path) for path in paths]})
    else:
        screen.analysis(found, headline(found))
        screen.say(*(str(path) for path in paths))
    return 0 if found.status == "succeeded" else 1


def listing(session: Session, job: str | None, limit: int) -> int:
    """The newest analyses."""
    with session.client() as client:
        page = client.analyses(job=job, limit=limit)
    if session.json:
        screen.as_json(page.raw())
    else:
        screen.analyses(page)
    return 0


def origin(what: Sequence[str]) -> dict[str, Any]:
    """Words like job_…, job_…:swa and ckpt_… as the request says it."""
    starts = [start(word) for word in what]
    return starts[0] if len(starts) == 1 else {"checkpoints": starts}


def start(word: str) -> dict[str, Any]:
    """One of them."""
    name, _, weights = word.partition(":")
    noun = "checkpoint" if name.startswith("ckpt_") else "job"
    return {noun: name} | ({"weights": weights} if weights else {})
