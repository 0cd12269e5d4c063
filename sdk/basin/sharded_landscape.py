"""A landscape in parts at the command line: request all parts, wait for them, assemble them."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from basin import analyses, terminal_output
from basin.client import PATIENCE, POLL, Client
from basin.errors import Unreachable
from basin.progress import progress_bar
from basin.session import CliSession
from basin.shapes import Analysis

SHARE_OF_A_SECOND: Final = 0.02  # between requests, for each part: many parts are polled less often
STEP: Final = 0.1  # fraction of the whole between two lines of progress
Show = Callable[[Sequence[Analysis]], None]


def analyze_in_parts(session: CliSession, request: Mapping[str, Any], count: int, *, to: str | None, wait: bool) -> int:
    """Requests `count` parts. With `wait`, waits for them and requests their assembly. Returns the exit code."""
    with session.open_client() as client:
        parts = client.share(request, count)
        ids = [one.id for one in parts]
        if not wait:
            started = (*(f"{one.id}  {one.status}" for one in parts), *join_command(session, ids))
            return session.print_answer([one.raw() for one in parts], lambda: terminal_output.print_lines(*started))
        terminal_output.print_lines(
            *(f"{one.id}  part {number} of {count}" for number, one in enumerate(parts, 1)), stderr=session.json
        )
        try:
            ended = wait_for_parts(client, parts, stderr=session.json)
        except KeyboardInterrupt:
            print_still_running(session, ids)
            return 130
        if lacking := [one for one in ended if one.status != "succeeded"]:
            print_missing_parts(session, lacking, ids)
            return 1
        whole = {name: request[name] for name in ("name", "priority", "metadata", "resources") if name in request}
        return analyses.wait_for_analysis(
            session, client, client.analyze({"kind": "assembly", "analyses": ids, **whole}), to
        )


def wait_for_parts(client: Client, parts: Sequence[Analysis], *, stderr: bool) -> list[Analysis]:
    """Shows the progress until all parts have ended, and returns them.

    Raises Unreachable after `PATIENCE` seconds without an answer.
    """
    found, answered_at = list(parts), time.monotonic()
    with (
        parts_progress_bar()
        if terminal_output.is_interactive() and not stderr
        else progress_lines(stderr=stderr) as show
    ):
        while True:
            try:
                found = [one if one.finished else client.analysis(one.id) for one in found]
                answered_at = time.monotonic()
            except Unreachable:
                if time.monotonic() - answered_at > PATIENCE:
                    raise
            show(found)
            if all(one.finished for one in found):
                return found
            time.sleep(max(POLL, SHARE_OF_A_SECOND * len(found)))


def completed_fraction(parts: Sequence[Analysis]) -> float:
    """The mean of the parts' progress, in [0, 1]. A part that has ended counts as 1."""
    return sum(1.0 if one.finished else one.progress.fraction or 0.0 for one in parts) / len(parts)


def describe_parts(parts: Sequence[Analysis]) -> str:
    """How many parts have ended and how many are running."""
    running, ended = sum(one.status == "running" for one in parts), sum(one.finished for one in parts)
    return f"{ended} of {len(parts)} parts done, {running} running"


@contextmanager
def progress_lines(*, stderr: bool) -> Iterator[Show]:
    """Prints a line when a part starts or ends, and for every tenth of the whole."""
    said, due = "", 0.0

    def print_line(parts: Sequence[Analysis]) -> None:
        nonlocal said, due
        if describe_parts(parts) != said or completed_fraction(parts) >= due:
            said, due = describe_parts(parts), completed_fraction(parts) + STEP
            terminal_output.print_lines(f"{completed_fraction(parts):4.0%}  {said}", stderr=stderr)

    yield print_line


@contextmanager
def parts_progress_bar() -> Iterator[Show]:
    """Shows the progress of all parts as one bar."""
    with progress_bar() as draw:
        yield lambda parts: draw(completed_fraction(parts), describe_parts(parts))


def print_missing_parts(session: CliSession, lacking: Sequence[Analysis], ids: Sequence[str]) -> None:
    """Prints the status and error of each part that did not succeed, and the commands that complete the landscape."""
    for one in lacking:
        part = one.raw().get("part") or {}
        where = " ".join(str(each.get("checkpoint")) for each in one.subjects)
        again = f"analyze {where} --kind {one.kind} --set part.number={part.get('number')} --set part.of={len(ids)}"
        why = f": {one.error.message}" if one.error else ""
        lines = (
            f"{one.id} {one.status}{why}",
            f"  request it again, with your options:  {session.command_line(again)}",
        )
        terminal_output.print_lines(*lines, stderr=True)
    terminal_output.print_lines(*join_command(session, ids), stderr=True)


def print_still_running(session: CliSession, ids: Sequence[str]) -> None:
    """After Ctrl-C: reports that the parts still run, and how to assemble or cancel them."""
    stop = session.command_line(f"cancel {' '.join(ids)}")
    terminal_output.print_lines(
        "", f"{', '.join(ids)} continue.", *join_command(session, ids), f"  stop them:  {stop}", stderr=True
    )


def join_command(session: CliSession, ids: Sequence[str]) -> tuple[str, ...]:
    """The lines with the command that assembles the parts."""
    command = session.command_line(f"analyze {' '.join(ids)} --kind assembly")
    return ("  put them together when they have succeeded:", f"    {command}")
