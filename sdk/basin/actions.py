"""What the commands do, once their options are read. Kept apart from `cli`, so that `--help` loads none of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from basin import job_file, terminal_output
from basin.client import DEFAULT_URL, Client
from basin.errors import BadFile, BasinError, NotThere
from basin.progress import KEPT, SAID, follow_job, log_entries
from basin.shapes import Checkpoint, Job, Shape, Warned

Answer = TypeVar("Answer", bound=Shape)

PREFERRED = ("swa", "ema", "best", "last")
"""Which weights somebody most likely wants, when they do not say."""


@dataclass(frozen=True, slots=True)
class CliSession:
    """Which service, and for whom the output is."""

    url: str | None
    json: bool
    key: str | None = field(default=None, repr=False)

    def open_client(self) -> Client:
        return Client(self.url, self.key)

    def command_line(self, command: str) -> str:
        """A command line that reaches the same service."""
        elsewhere = self.url and self.url.rstrip("/") != DEFAULT_URL
        return f"basin {command} --url {self.url}" if elsewhere else f"basin {command}"

    def print_answer(self, answer: Any, print_table: Callable[[], None]) -> int:
        """Print an answer of the service as JSON, or for people; the exit code of a command that succeeded."""
        if self.json:
            terminal_output.print_json(answer)
        else:
            print_table()
        return 0


def submit_job(session: CliSession, path: str, changes: Sequence[str], *, watch: bool) -> int:
    """Posts a job file; the exit code is the job's when it is watched."""
    spec = job_file.with_changes(job_file.read_job(path), changes)
    with session.open_client() as client:
        return report_new_job(session, client, client.submit(spec), watch=watch)


def report_new_job(session: CliSession, client: Client, job: Job, *, watch: bool) -> int:
    """Says what one wants to know about a new job, or follows it; the exit code is the job's when it is watched."""
    terminal_output.print_warnings(job.warnings)
    if watch:
        return follow_until_end(session, client, job)
    follow_it = f"follow it:  {session.command_line(f'watch {job.id}')}"
    return session.print_answer(job.raw(), lambda: terminal_output.print_lines(f"{job.id}  {job.status}", follow_it))


def check_job(session: CliSession, path: str, changes: Sequence[str]) -> int:
    """Lets the service check a job file and fill in the defaults; nothing is stored."""
    with session.open_client() as client:
        answer = client.check(job_file.with_changes(job_file.read_job(path), changes))
    if session.json:
        terminal_output.print_json(answer)
        return 0
    spec = answer.get("spec") or {}
    lines = [
        (name, terminal_output.format_component(value)) for name, value in spec.items() if value not in (None, {}, [])
    ]
    terminal_output.print_lines("This job is valid.")
    terminal_output.print_pairs(
        [*lines, ("total steps", str(answer.get("total_steps") or "as many as the time allows"))]
    )
    terminal_output.print_warnings(Warned.read(one) for one in answer.get("warnings") or ())
    return 0


def watch_job(session: CliSession, job_id: str) -> int:
    """Follows a job to its end."""
    with session.open_client() as client:
        return follow_until_end(session, client, client.get(job_id))


def follow_until_end(session: CliSession, client: Client, job: Job) -> int:
    """Follows a job; Ctrl-C ends the watching and not the job."""
    if not session.json:
        terminal_output.print_lines(f"{job.id}  {job.name or ''}".rstrip())
    try:
        ended = follow_job(client, job.id, stderr=session.json)
    except KeyboardInterrupt:
        print_still_running(session, job.id)
        return 130
    if is_analysis(job.id):
        from basin.analyses import print_analysis

        print_analysis(session, client.analysis(job.id))
    elif session.json:
        terminal_output.print_json(ended.raw())
    else:
        terminal_output.print_ending(ended)
        if ended.status == "succeeded":
            terminal_output.print_lines(f"get the weights:  {session.command_line(f'download {job.id}')}")
    return 0 if ended.status == "succeeded" else 1


def is_analysis(job_id: str) -> bool:
    """Whether it is an analysis, which looks, and no job, which trains."""
    return job_id.startswith("an_")


def print_still_running(session: CliSession, job_id: str) -> None:
    """What somebody wants to know right after Ctrl-C."""
    lines = (f"{job_id} goes on.", f"  come back:  {session.command_line(f'watch {job_id}')}")
    terminal_output.print_lines("", *lines, f"  stop it:    {session.command_line(f'cancel {job_id}')}", stderr=True)


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs a list is about; `metadata` are words like team=vision."""

    status: Sequence[str] | None = None
    metadata: Sequence[str] = ()
    q: str | None = None


def print_logs(session: CliSession, job_id: str, *, follow: bool) -> int:
    """What a job has said, and on request what it says until it ends; one JSON document a line for programs.

    Of one that failed the last word is why.
    """
    with session.open_client() as client:
        job = client.get(job_id)
        try:
            for event in log_entries(client, job_id) if follow else client.past_events(job_id, types=SAID):
                terminal_output.print_log_entry(event, as_json=session.json)
            job = client.get(job_id) if follow else job
        except KeyboardInterrupt:
            print_still_running(session, job_id)
            return 130
    terminal_output.print_failure_line(job, as_json=session.json)
    return 0


def print_events(session: CliSession, job_id: str, types: str | None, *, follow: bool) -> int:
    """What has happened to a job, and on request what happens until it ends; JSON as above."""
    wanted = tuple(types.split(",")) if types else KEPT
    with session.open_client() as client:
        client.get(job_id)
        try:
            found = log_entries(client, job_id, wanted) if follow else client.past_events(job_id, types=wanted)
            for event in found:
                terminal_output.print_event(event, as_json=session.json)
        except KeyboardInterrupt:
            print_still_running(session, job_id)
            return 130
    return 0


def list_jobs(session: CliSession, search: JobFilter, after: str | None, limit: int) -> int:
    """A page of jobs."""
    wanted = parse_pairs(search.metadata)
    with session.open_client() as client:
        page = client.list(status=search.status, metadata=wanted, q=search.q, after=after, limit=limit)
    return session.print_answer(page.raw(), lambda: terminal_output.print_jobs(page, searched=search != JobFilter()))


def show_job(session: CliSession, job_id: str) -> int:
    """One job, or one analysis, with everything that is known about it."""
    with session.open_client() as client:
        if is_analysis(job_id):
            from basin.analyses import print_analysis

            print_analysis(session, client.analysis(job_id))
            return 0
        job = client.get(job_id)
        return session.print_answer(job.raw(), lambda: terminal_output.job_page(job, client.checkpoints(job_id)))


Verb = Literal["cancel", "pause", "resume"]


def request_verb(session: CliSession, verb: Verb, job_ids: Sequence[str]) -> int:
    """Asks the same of several jobs; each that refuses is an error, the others are asked all the same."""
    return answer_each(session, job_ids, getattr(Client, verb), lambda job: f"{job.id}  {job.status}")


def retry_job(session: CliSession, job_id: str, *, again: bool, watch: bool) -> int:
    """Tries a job again that failed or was cancelled."""
    with session.open_client() as client:
        return report_new_job(session, client, client.retry(job_id, again=again), watch=watch)


def fork_job(session: CliSession, job_id: str, changes: Sequence[str], at: str | None, *, watch: bool) -> int:
    """Gives a job another ending. A change of a part of a field, as in optimizer.lr=0.01, keeps the field's rest."""
    with session.open_client() as client:
        recipe = client.get(job_id).raw()
        parts = {change.partition("=")[0].partition(".")[0] for change in changes if "." in change.partition("=")[0]}
        base = {name: recipe[name] for name in parts if isinstance(recipe.get(name), dict)}
        where = int(at) if at and at.isdecimal() else at
        child = client.fork(job_id, job_file.with_changes(base, changes), at=where)
        return report_new_job(session, client, child, watch=watch)


def edit_job(session: CliSession, job_id: str, changes: dict[str, Any], metadata: Sequence[str]) -> int:
    """Changes what may be changed about a job; a pair without a value is removed."""
    if metadata:
        changes = changes | {"metadata": {key: value or None for key, value in parse_pairs(metadata).items()}}
    if not changes:
        raise BadFile("say what to change: --name, --priority, --metadata")
    with session.open_client() as client:
        job = client.edit(job_id, changes)
    line = f"{job.id}  {job.status}  {job.name or ''}".rstrip()
    return session.print_answer(job.raw(), lambda: terminal_output.print_lines(line))


def delete_jobs(session: CliSession, job_ids: Sequence[str]) -> int:
    """Deletes jobs that have ended; each that cannot be is an error, the others are deleted all the same."""
    return apply_to_each(session, job_ids, Client.delete, "deleted")


def pin_checkpoints(session: CliSession, checkpoint_ids: Sequence[str]) -> int:
    """Pins checkpoints; each that cannot be is an error, the others are pinned all the same."""

    def line(kept: Checkpoint) -> str:
        return f"{kept.id}  pinned  ({kept.kind} weights of step {kept.step})"

    return answer_each(session, checkpoint_ids, Client.pin, line)


def unpin_checkpoints(session: CliSession, checkpoint_ids: Sequence[str]) -> int:
    """Takes pins away, as above."""
    return apply_to_each(session, checkpoint_ids, Client.unpin, "unpinned")


def answer_each(
    session: CliSession, ids: Sequence[str], deed: Callable[[Client, str], Answer], line: Callable[[Answer], str]
) -> int:
    """Does the same to each of several, and prints what the service answers; the exit code."""
    failed = 0
    answers: list[dict[str, Any]] = []
    with session.open_client() as client:
        for each in ids:
            try:
                found = deed(client, each)
            except BasinError as error:
                failed = report_refused(each, error)
                continue
            answers.append(found.raw())
            if not session.json:
                terminal_output.print_lines(line(found))
    if session.json:
        terminal_output.print_json(answers)
    return failed


def apply_to_each(session: CliSession, ids: Sequence[str], deed: Callable[[Client, str], object], done: str) -> int:
    """Does the same to each of several, and says so; the exit code."""
    failed = 0
    with session.open_client() as client:
        for each in ids:
            try:
                deed(client, each)
            except BasinError as error:
                failed = report_refused(each, error)
            else:
                terminal_output.print_lines(f"{each}  {done}", stderr=session.json)
    return failed


def report_refused(about: str, error: BasinError) -> int:
    """One of several that were asked for could not be done; the exit code that follows."""
    terminal_output.print_lines(f"{about}:", stderr=True)
    terminal_output.print_error(error)
    return 1


def list_workers(session: CliSession) -> int:
    """The fleet."""
    with session.open_client() as client:
        found = client.workers()
    return session.print_answer([one.raw() for one in found], lambda: terminal_output.print_workers(found))


def show_queue(session: CliSession) -> int:
    """What waits, and why."""
    with session.open_client() as client:
        found = client.queue()
    return session.print_answer(found.raw(), lambda: terminal_output.print_queue(found))


def parse_pairs(words: Sequence[str]) -> dict[str, str]:
    """The pairs in words like team=vision."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise BadFile(f"{word!r} is no pair; write KEY=VALUE")
        found[key] = value
    return found


def download_weights(session: CliSession, job_id: str, kind: str | None, target: str | None) -> int:
    """Writes a job's weights into a file; of an analysis, its pictures and arrays into a folder."""
    if is_analysis(job_id):
        from basin import analyses

        return analyses.download_analysis(session, job_id, target)
    with session.open_client() as client:
        found = choose_checkpoint(client.checkpoints(job_id), kind, job_id)
        name = f"{job_id}-{found.kind}-{found.step}.safetensors"
        folder = target is None or target.endswith("/") or Path(target).is_dir()
        path = client.download(found, Path(target or ".", name if folder else ""))
    line = f"{path}  ({terminal_output.format_bytes(found.bytes)}, {found.kind} weights of step {found.step})"
    return session.print_answer(
        found.raw() | {"path": str(path)}, lambda: terminal_output.print_lines(line, f"sha256 {found.sha256}")
    )


def plot_jobs(
    session: CliSession, job_ids: Sequence[str], series: str | None, target: str | None, look: dict[str, Any]
) -> int:
    """Writes curves or paths of jobs as a picture into a file; '-' is standard output."""
    with session.open_client() as client:
        picture = client.plot(job_ids, series.split(",") if series else None, **look)
    if target == "-":
        print(picture)  # noqa: T201 - a document, for a pipe
        return 0
    path = Path(target or f"{job_ids[0]}.svg")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(picture, encoding="utf-8")
    terminal_output.print_lines(str(path))
    return 0


def choose_checkpoint(checkpoints: Sequence[Checkpoint], kind: str | None, job_id: str) -> Checkpoint:
    """The newest checkpoint of the wanted kind, or of the most wanted kind that there is."""
    by_kind = {one.kind: one for one in sorted(checkpoints, key=lambda one: (not one.superseded, one.step))}
    for wanted in (kind,) if kind else PREFERRED:
        if wanted in by_kind:
            return by_kind[wanted]
    there = ", ".join(sorted(by_kind)) or "none yet"
    raise NotThere(f"{job_id} has no {f'{kind} weights' if kind else 'weights'}; there are: {there}")
