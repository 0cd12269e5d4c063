"""One run of the command line: the service that it calls, and how it prints."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from basin import terminal_output
from basin.client import DEFAULT_URL, Client


@dataclass(frozen=True, slots=True)
class CliSession:
    """The service to call (None: BASIN_URL or the default), the output format, and the API key."""

    url: str | None
    json: bool
    key: str | None = field(default=None, repr=False)

    def open_client(self) -> Client:
        return Client(self.url, self.key)

    def command_line(self, command: str) -> str:
        """The command line of `command` at the same service."""
        elsewhere = self.url and self.url.rstrip("/") != DEFAULT_URL
        return f"basin {command} --url {self.url}" if elsewhere else f"basin {command}"

    def print_answer(self, answer: Any, print_table: Callable[[], None]) -> int:
        """Prints an answer of the service as JSON or as a table. Returns exit code 0."""
        if self.json:
            terminal_output.print_json(answer)
        else:
            print_table()
        return 0


def print_still_running(session: CliSession, job_id: str) -> None:
    """After Ctrl-C: reports that the job still runs, and how to follow or cancel it."""
    lines = (f"{job_id} continues.", f"  follow it:  {session.command_line(f'watch {job_id}')}")
    terminal_output.print_lines("", *lines, f"  stop it:    {session.command_line(f'cancel {job_id}')}", stderr=True)
