"""Terminal output: tables and pages for people, JSON for programs. Control characters from the service are replaced."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from basin.errors import BasinError, Problem, Unreachable
from basin.shapes import Analyses, Analysis, Checkpoint, Event, Gpu, Job, Page, Progress, Queued, Slots, Warned, Worker

MOMENT = "%Y-%m-%d %H:%M:%S"
PIPE_WIDTH = 1000  # columns when there is no terminal: no line is wrapped or cut
SHOWN_RECIPE = (
    "model",
    "data",
    "optimizer",
    "batch_size",
    "schedule",
    "swa",
    "ema",
    "ensemble",
    "early_stopping",
    "target",
    "stop_lr",
    "epochs",
    "steps",
    "seconds",
    "seed",
)


def is_interactive() -> bool:
    """Whether stdout is a terminal that can redraw a line."""
    return sys.stdout.isatty() and not Console().is_dumb_terminal


def make_console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr. Without a terminal, or with NO_COLOR, it prints no colours."""
    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty():
        return Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=PIPE_WIDTH, force_terminal=False)


def print_lines(*lines: str, stderr: bool = False) -> None:
    """Prints lines; unprintable characters are replaced."""
    to = make_console(stderr=stderr)
    for line in lines:
        to.print(strip_controls(line), soft_wrap=True)


def strip_controls(text: object) -> str:
    """The text without control characters, so that names and messages from a job cannot control the terminal."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in str(text))


def print_json(data: Any) -> None:
    """One JSON document on stdout; ASCII only, so that it holds no control characters."""
    print(json.dumps(data, indent=2))  # noqa: T201


def print_log_entry(event: Event, *, as_json: bool) -> None:
    """Prints an entry of a job's log, or its JSON document on one line."""
    if as_json:
        print(json.dumps(event.raw()), flush=True)  # noqa: T201
        return
    level = event.data.get("level") or event.type
    first, *rest = str(event.data.get("message") or "").splitlines() or [""]
    quoted = str(event.data.get("stderr") or "").splitlines()
    print_lines(f"{event_time(event)}  {level:<7}  {first}", *(f"    {line}" for line in (*rest, *quoted)))


def print_failure_line(job: Job, *, as_json: bool) -> None:
    """Prints the error and remedy of a failed job, as the last line of its log. Other jobs: prints nothing."""
    if not job.error:
        return
    if as_json:
        whole = job.raw()
        known = {"type": "error", "attempt": job.attempt, "at": whole.get("finished_at"), "data": whole["error"]}
        print(json.dumps(known), flush=True)  # noqa: T201
        return
    at = job.finished_at.strftime(MOMENT) if job.finished_at else "-"
    first, *rest = f"{job.error.code}: {job.error.message}".splitlines()
    print_lines(f"{at}  {'failed':<7}  {first}", *(f"    {line}" for line in (*rest, job.error.remedy) if line))


def describe_event(event: Event) -> str:
    """The content of an event as text."""
    data = event.data
    match event.type:
        case "status":
            return "  ".join(str(word) for word in (data.get("status"), data.get("detail")) if word)
        case "checkpoint":
            return f"{data.get('kind')} of step {data.get('step')}  {data.get('id')}"
        case "warning":
            return f"{data.get('code')}: {data.get('message') or ''}"
        case _:
            return str(data.get("message") or "")


def print_event(event: Event, *, as_json: bool) -> None:
    """Prints an event of a job on one line, or its JSON document on one line."""
    if as_json:
        print(json.dumps(event.raw()), flush=True)  # noqa: T201
        return
    first, *_ = describe_event(event).splitlines() or [""]
    print_lines(f"{event_time(event)}  {event.attempt:>3}  {event.type:<10}  {first}")


def event_time(event: Event) -> str:
    """The time of an event, to the second."""
    return event.at.strftime(MOMENT) if event.at else "-"


def make_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, numbers_from: int = 99) -> Table:
    """A table; columns from index `numbers_from` are right-aligned."""
    made = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False, header_style="bold")
    for number, header in enumerate(headers):
        made.add_column(header, justify="right" if number >= numbers_from else "left", overflow="fold")
    for row in rows:
        made.add_row(*(strip_controls(cell) for cell in row))
    return made


def format_number(value: Any) -> str:
    """A float with four significant digits; other values as text, None as '-'."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-" if value is None else str(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_jobs(page: Page, *, searched: bool = False) -> None:
    """Prints a page of jobs, one line each."""
    if not page.data:
        print_lines("No such jobs." if searched else "No jobs yet. Submit one:  basin submit job.yaml")
        return
    rows = [
        (job.id, job.status, format_fraction(job.progress), format_age(job.created_at), job.name or "")
        for job in page.data
    ]
    make_console().print(make_table(("job", "status", "done", "age", "name"), rows))
    if page.has_more:
        print_lines(f"There are more:  basin list --after {page.last_id}")


def print_analysis(found: Analysis, numbers: Sequence[tuple[str, str]]) -> None:
    """Prints an analysis: its subjects, status, error and numbers."""
    detail = None if found.status_detail == found.stop_reason else found.status_detail
    of = ", ".join(f"{one['job']} {one['kind'] or 'recipe'} {one['step']}" for one in found.subjects)
    lines = [("analysis", found.id), ("name", found.name), ("kind", found.kind), ("looks at", of)]
    state = [
        ("status", found.status),
        ("detail", detail),
        ("queue", queue_position(found)),
        ("done", format_fraction(found.progress)),
    ]
    print_pairs([*lines, *state])
    if found.error:
        print_lines(
            f"{found.error.code}: {found.error.message}", *([f"  {found.error.remedy}"] if found.error.remedy else [])
        )
    if (found.results or {}).get("partial"):
        print_lines("partial: the analysis was cancelled before it was complete")
    print_pairs([(name, value) for name, value in numbers if name != "partial"])


def print_analyses(page: Analyses) -> None:
    """Prints a page of analyses, one line each."""
    if not page.data:
        print_lines("No analyses yet. Request one:  basin analyze JOB --kind landscape")
        return
    rows = [
        (one.id, one.kind, one.status, format_fraction(one.progress), format_age(one.created_at), one.name or "")
        for one in page.data
    ]
    make_console().print(make_table(("analysis", "kind", "status", "done", "age", "name"), rows))


def print_workers(found: Sequence[Worker]) -> None:
    """Prints the workers, one line each, and below them their GPUs."""
    if not found:
        print_lines("No workers. Start one:  basin worker")
        return
    rows = [
        (one.id, one.status, format_slots(one.slots), format_age(one.seen_at), one.release, " ".join(one.jobs) or "-")
        for one in found
    ]
    make_console().print(make_table(("worker", "status", "busy slots", "seen", "release", "your jobs"), rows))
    if gpus := [(one.id, gpu) for one in found for gpu in one.devices]:
        gpu_rows = [(worker, gpu.device, gpu.name or "-", format_memory(gpu), *gpu_status(gpu)) for worker, gpu in gpus]
        make_console().print(make_table(("worker", "gpu", "name", "memory", "status", "since", "why"), gpu_rows))


def format_memory(gpu: Gpu) -> str:
    """As in "80 GB"; a dash when it is unknown."""
    return f"{gpu.memory_bytes / 1e9:.0f} GB" if gpu.memory_bytes else "-"


def gpu_status(gpu: Gpu) -> tuple[str, str, str]:
    """A GPU's status, the time since it has it, and the reason."""
    why = ": ".join(part for part in (gpu.reason, gpu.detail) if part)
    return gpu.status.replace("_", " "), format_age(gpu.since), why


def format_slots(found: Mapping[str, Slots]) -> str:
    """Busy and all slots by kind, as in "1/2 cpu"."""
    return ", ".join(f"{one.slots - one.free}/{one.slots} {kind}" for kind, one in sorted(found.items())) or "-"


def print_queue(found: Queued) -> None:
    """Prints the queued jobs, one line each, with the reason."""
    if not found.data:
        print_lines("None of your jobs is queued.")
        return
    rows = [
        (
            str(one.position),
            one.id,
            "-" if one.eta_seconds is None else format_duration(one.eta_seconds),
            one.reason.message,
        )
        for one in found.data
    ]
    make_console().print(make_table(("place", "job", "starts in", "why it waits"), rows))
    if found.waiting > len(found.data):
        print_lines(f"and {found.waiting - len(found.data)} more")


def format_fraction(progress: Progress) -> str:
    """The completed fraction of a run in percent."""
    return "-" if progress.fraction is None else f"{progress.fraction:.0%}"


def format_age(since: datetime | None) -> str:
    """The time since a moment, in one unit."""
    if since is None:
        return "-"
    return format_duration(max(0.0, (datetime.now(UTC) - since).total_seconds()))


def format_duration(seconds: float) -> str:
    """A duration in one unit: d, h, min or s."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def progress_facts(progress: Progress) -> list[str]:
    """The progress of a run as words: epoch, loss, one quality metric, learning rate."""
    facts = []
    if progress.epoch is not None and progress.epochs is not None:
        facts.append(f"epoch {progress.epoch:.0f}/{progress.epochs:.0f}")
    if progress.loss is not None:
        facts.append(f"loss {progress.loss:.4f}")
    for ending in ("val.accuracy", "accuracy", "val.r2", "val.mae"):
        found = [name for name, value in progress.metrics.items() if name.endswith(ending) and value is not None]
        if found:
            facts.append(f"{found[0].rpartition('.')[2]} {format_number(progress.metrics[found[0]])}")
            break
    if progress.lr is not None:
        facts.append(f"lr {progress.lr:.4f}")
    return facts


def queue_position(job: Job) -> str | None:
    """A queued job's place in the queue; None for other jobs."""
    if not job.queue or job.queue.ahead is None or job.status != "queued":
        return None
    starts = job.queue.eta_seconds
    soon = "" if starts is None else f"; starts in about {format_duration(starts)}"
    return f"{job.queue.ahead} ahead of it{soon}"


def job_page(job: Job, checkpoints: Sequence[Checkpoint]) -> None:
    """Prints one job: its status, progress, recipe, results and checkpoints."""
    reason = f" ({job.stop_reason})" if job.stop_reason else ""
    detail = None if job.status_detail == job.stop_reason else job.status_detail
    lines = [("job", job.id), ("name", job.name), ("status", f"{job.status}{reason}"), ("detail", detail)]
    lines.append(("queue", queue_position(job)))
    whole = f"/{job.progress.steps}" if job.progress.steps else ""
    facts = [f"step {job.progress.step}{whole}" if job.progress.step or whole else "", *progress_facts(job.progress)]
    lines.append(("progress", "  ".join(word for word in facts if word)))
    for label, at in (("created", job.created_at), ("started", job.started_at), ("finished", job.finished_at)):
        lines.append((label, at.strftime("%Y-%m-%d %H:%M:%S UTC") if at else None))
    recipe = job.model_extra or {}
    lines += [(name, format_component(recipe[name])) for name in SHOWN_RECIPE if recipe.get(name) is not None]
    print_pairs(lines)
    print_ending(job)
    if checkpoints:
        rows = [
            (one.kind, str(one.step), format_bytes(one.bytes), one.id, "pinned" if one.pinned else "")
            for one in checkpoints
        ]
        make_console().print(make_table(("weights", "step", "size", "checkpoint", ""), rows))


def print_pairs(lines: Sequence[tuple[str, str | None]]) -> None:
    """Prints labels and values, aligned. Labels without a value are left out."""
    width = max((len(label) for label, _ in lines), default=0) + 2
    print_lines(*(f"{label:<{width}}{value}" for label, value in lines if value))


def format_component(value: Any) -> str:
    """A part of a spec in one line: its name, then its settings."""
    if not isinstance(value, Mapping):
        return str(value)
    settings = (f"{name}={format_setting(one)}" for name, one in value.items() if name != "name" and one is not None)
    return " ".join([*([str(value["name"])] if "name" in value else []), *settings])


def format_setting(value: Any) -> str:
    """A setting in one word."""
    return f"({format_component(value)})" if isinstance(value, Mapping) else format_number(value)


def format_bytes(count: int | None) -> str:
    """A number of bytes in kB or MB."""
    if count is None:
        return "-"
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def print_warnings(found: Iterable[Warned]) -> None:
    """Prints warnings to stderr."""
    print_lines(*(f"warning: {one.pointer}: {one.message}" for one in found), stderr=True)


def print_ending(job: Job) -> None:
    """Prints a job's error and remedy, and its results."""
    if job.error:
        print_lines(f"{job.error.code}: {job.error.message}", *([f"  {job.error.remedy}"] if job.error.remedy else []))
    if job.results:
        print_results(job.results)


def print_results(found: Mapping[str, Any], splits: Sequence[str] = ("test", "val", "train")) -> None:
    """Prints the results: a row for each kind of weights, a column for each metric."""
    cells = {weights: dict(result_columns(one, splits)) for weights, one in found.items()}
    columns = list(dict.fromkeys(measure for one in cells.values() for measure in one))
    rows = [(weights, *(one.get(column, "-") for column in columns)) for weights, one in cells.items()]
    if columns:
        make_console().print(make_table(("weights", *columns), rows, numbers_from=1))


def result_columns(splits_of: Any, splits: Sequence[str]) -> Iterator[tuple[str, str]]:
    """('test accuracy', '0.9722') and so on, in the order of the splits."""
    for split in splits:
        found = splits_of.get(split) if isinstance(splits_of, Mapping) else None
        for name, value in sorted(found.items()) if isinstance(found, Mapping) else ():
            yield f"{split} {name}", f"{value:.4f}" if isinstance(value, float) else format_number(value)


def print_error(error: BasinError) -> None:
    """Prints an error to stderr: cause, place, remedy."""
    if isinstance(error, Problem):
        print_lines(f"error: {error.detail or error.title} ({error.status} {error.code})", stderr=True)
        for field in error.fields:
            print_lines(f"  {field.pointer or '(the whole body)'}: {field.message}", stderr=True)
            if field.hint:
                print_lines(f"      {field.hint}", stderr=True)
        if error.status == 401:
            print_lines("  Give a key:  --key, or BASIN_API_KEY", stderr=True)
        return
    print_lines(*f"error: {error}".splitlines(), stderr=True)
    if isinstance(error, Unreachable):
        print_lines(
            "  Start the service with:  basin up", "  It runs elsewhere:       --url, or BASIN_URL", stderr=True
        )
