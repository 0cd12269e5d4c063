"""What the commands do after their options are parsed. Apart from `cli`, so that `--help` does not import it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from basin import job_file, terminal_output
from basin.client import Client
from basin.dataset_actions import with_uploaded_data
from basin.errors import BadFile, BasinError, NotThere
from basin.progress import KEPT, SAID, follow_job, log_entries
from basin.session import CliSession, print_still_running
from basin.shapes import Checkpoint, Job, Shape, Warned

Answer = TypeVar("Answer", bound=Shape)

PREFERRED = ("swa", "ema", "best", "last")
"""Kinds of weights to download by default, most preferred first."""


def submit_job(session: CliSession, path: str, changes: Sequence[str], *, watch: bool) -> int:
    """Posts a job file. Returns the exit code: with `watch`, that of `follow_until_end`."""
    spec = job_file.with_changes(job_file.read_job(path), changes)
    with session.open_client() as client:
        return report_new_job(session, client, client.submit(with_uploaded_data(client, spec, path)), watch=watch)


def report_new_job(session: CliSession, client: Client, job: Job, *, watch: bool) -> int:
    """Prints a new job's warnings, id and status, or follows it with `watch`. Returns the exit code."""
    terminal_output.print_warnings(job.warnings)
    if watch:
        return follow_until_end(session, client, job)
    follow_it = f"follow it:  {session.command_line(f'watch {job.id}')}"
    return session.print_answer(job.raw(), lambda: terminal_output.print_lines(f"{job.id}  {job.status}", follow_it))


def check_job(session: CliSession, path: str, changes: Sequence[str]) -> int:
    """Has the service check a job file and fill in the defaults. No job is stored; local data is uploaded."""
    spec = job_file.with_changes(job_file.read_job(path), changes)
    with session.open_client() as client:
        answer = client.check(with_uploaded_data(client, spec, path))
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
    """Follows a job until it ends. Returns the exit code."""
    with session.open_client() as client:
        return follow_until_end(session, client, client.get(job_id))


def follow_until_end(session: CliSession, client: Client, job: Job) -> int:
    """Follows a job. Ctrl-C stops the command, not the job.

    Returns the exit code: 0 succeeded, 1 failed or cancelled, 130 Ctrl-C.
    """
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
    """Whether the id is that of an analysis and not of a training job."""
    return job_id.startswith("an_")


@dataclass(frozen=True, slots=True)
class JobFilter:
    """The filter of a list of jobs. `metadata` are pairs such as team=vision, `q` is a text in name or id."""

    status: Sequence[str] | None = None
    metadata: Sequence[str] = ()
    q: str | None = None


def print_logs(session: CliSession, job_id: str, *, follow: bool) -> int:
    """Prints the log entries and warnings of a job; with `follow`, new ones until it ends. JSON: one document a line.

    The last line of a failed job is its error.
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
    """Prints the events of a job; with `follow`, new ones until it ends. JSON: one document a line."""
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
    """Prints one page of jobs."""
    wanted = parse_pairs(search.metadata)
    with session.open_client() as client:
        page = client.list(status=search.status, metadata=wanted, q=search.q, after=after, limit=limit)
    return session.print_answer(page.raw(), lambda: terminal_output.print_jobs(page, searched=search != JobFilter()))


def show_job(session: CliSession, job_id: str) -> int:
    """Prints one job or one analysis in full."""
    with session.open_client() as client:
        if is_analysis(job_id):
            from basin.analyses import print_analysis

            print_analysis(session, client.analysis(job_id))
            return 0
        job = client.get(job_id)
        return session.print_answer(job.raw(), lambda: terminal_output.job_page(job, client.checkpoints(job_id)))


Verb = Literal["cancel", "pause", "resume"]


def request_verb(session: CliSession, verb: Verb, job_ids: Sequence[str]) -> int:
    """Requests a transition of several jobs. A refusal is reported as an error and does not stop the others."""
    return answer_each(session, job_ids, getattr(Client, verb), lambda job: f"{job.id}  {job.status}")


def retry_job(session: CliSession, job_id: str, *, again: bool, watch: bool) -> int:
    """Retries a failed or cancelled job as a new job."""
    with session.open_client() as client:
        return report_new_job(session, client, client.retry(job_id, again=again), watch=watch)


def fork_job(session: CliSession, job_id: str, changes: Sequence[str], at: str | None, *, watch: bool) -> int:
    """Creates a job from a checkpoint of another, with changed fields.

    A change of a part of a field, as in optimizer.lr=0.01, keeps the other parts of the field.
    """
    with session.open_client() as client:
        recipe = client.get(job_id).raw()
        parts = {change.partition("=")[0].partition(".")[0] for change in changes if "." in change.partition("=")[0]}
        base = {name: recipe[name] for name in parts if isinstance(recipe.get(name), dict)}
        where = int(at) if at and at.isdecimal() else at
        child = client.fork(job_id, job_file.with_changes(base, changes), at=where)
        return report_new_job(session, client, child, watch=watch)


def edit_job(session: CliSession, job_id: str, changes: dict[str, Any], metadata: Sequence[str]) -> int:
    """Changes a job's name, priority or metadata. A metadata pair without a value is removed."""
    if metadata:
        changes = changes | {"metadata": {key: value or None for key, value in parse_pairs(metadata).items()}}
    if not changes:
        raise BadFile("say what to change: --name, --priority, --metadata")
    with session.open_client() as client:
        job = client.edit(job_id, changes)
    line = f"{job.id}  {job.status}  {job.name or ''}".rstrip()
    return session.print_answer(job.raw(), lambda: terminal_output.print_lines(line))


def delete_jobs(session: CliSession, job_ids: Sequence[str]) -> int:
    """Deletes jobs that have ended. A refusal is reported as an error and does not stop the others."""
    return apply_to_each(session, job_ids, Client.delete, "deleted")


def pin_checkpoints(session: CliSession, checkpoint_ids: Sequence[str]) -> int:
    """Pins checkpoints. A refusal is reported as an error and does not stop the others."""

    def line(kept: Checkpoint) -> str:
        return f"{kept.id}  pinned  ({kept.kind} weights of step {kept.step})"

    return answer_each(session, checkpoint_ids, Client.pin, line)


def unpin_checkpoints(session: CliSession, checkpoint_ids: Sequence[str]) -> int:
    """Removes the pins of checkpoints. A refusal is reported as an error and does not stop the others."""
    return apply_to_each(session, checkpoint_ids, Client.unpin, "unpinned")


def answer_each(
    session: CliSession, ids: Sequence[str], deed: Callable[[Client, str], Answer], line: Callable[[Answer], str]
) -> int:
    """Calls `deed` with each id and prints the answers. Returns the exit code: 1 if one failed."""
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
    """Calls `deed` with each id and prints `done`. Returns the exit code: 1 if one failed."""
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
    """Prints the error of one of several ids. Returns exit code 1."""
    terminal_output.print_lines(f"{about}:", stderr=True)
    terminal_output.print_error(error)
    return 1


def list_workers(session: CliSession) -> int:
    """Prints the workers."""
    with session.open_client() as client:
        found = client.workers()
    return session.print_answer([one.raw() for one in found], lambda: terminal_output.print_workers(found))


def show_queue(session: CliSession) -> int:
    """Prints the queued jobs, each with the reason why it waits."""
    with session.open_client() as client:
        found = client.queue()
    return session.print_answer(found.raw(), lambda: terminal_output.print_queue(found))


def parse_pairs(words: Sequence[str]) -> dict[str, str]:
    """The pairs in words such as team=vision. Raises BadFile for a word without a key or `=`."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise BadFile(f"{word!r} is no pair; write KEY=VALUE")
        found[key] = value
    return found


def download_weights(session: CliSession, job_id: str, kind: str | None, target: str | None) -> int:
    """Writes a job's weights to a file, or an analysis' pictures and arrays into a folder."""
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
    """Writes a plot of jobs (SVG) to a file; '-' is standard output."""
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
    """The newest checkpoint of `kind`, or of the first kind in `PREFERRED` that the job has. Raises NotThere."""
    by_kind = {one.kind: one for one in sorted(checkpoints, key=lambda one: (not one.superseded, one.step))}
    for wanted in (kind,) if kind else PREFERRED:
        if wanted in by_kind:
            return by_kind[wanted]
    there = ", ".join(sorted(by_kind)) or "none yet"
    raise NotThere(f"{job_id} has no {f'{kind} weights' if kind else 'weights'}; there are: {there}")
