"""How the command line prints datasets."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final, Self

from basin import terminal_output as out
from basin.errors import BadFile
from basin.shapes import Column, Dataset, DatasetPage

MOST_CLASSES: Final = 100  # of which a service tells the names


class RefusedData(BadFile):
    """The service read the file and refused it; the message has every reason."""


class TransferProgress(AbstractContextManager["TransferProgress"]):
    """A bar on stderr while bytes are hashed and sent; nothing where stderr is not a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[done]}"))
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def report_hash(self, done: int, total: int) -> None:
        self._report("reading", done, total)

    def report_upload(self, done: int, total: int) -> None:
        self._report("uploading", done, total)

    def report_dataset(self, dataset: Dataset) -> None:
        """The share of the preparation, where the service knows it."""
        if dataset.status in {"queued", "preparing"}:
            self.report_prepared((dataset.progress or {}).get("fraction"))

    def report_prepared(self, fraction: float | None) -> None:
        """The share of the preparation, 0 to 1; None where it is not known."""
        if fraction is not None:
            self._show("preparing", float(fraction), 1.0, f"{float(fraction):.0%}")

    def _report(self, what: str, done: int, total: int) -> None:
        self._show(what, done, total, f"{out.format_bytes(done)} of {out.format_bytes(total)}")

    def _show(self, what: str, done: float, total: float, text: str) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total, done="")
        self._bar.update(self._tasks[what], completed=done, total=total, done=text)


def print_datasets(page: DatasetPage) -> None:
    """Prints a page of datasets, one line each."""
    if not page.data:
        out.print_lines("No datasets yet. Add one:  basin data add FILE")
        return
    rows = [
        (one.id, one.name or "", one.status, one.kind or "-", _count(one.examples), out.format_bytes(one.bytes))
        for one in page.data
    ]
    headers = ("dataset", "name", "status", "kind", "examples", "size")
    out.make_console().print(out.make_table(headers, rows, numbers_from=4))
    if page.has_more:
        out.print_lines(f"There are more:  basin data list --after {page.last_id}")


def print_dataset(dataset: Dataset) -> None:
    """Prints what was understood: kind, examples, columns or classes, warnings, errors."""
    lines = [
        ("dataset", dataset.id),
        ("name", dataset.name),
        ("status", dataset.status),
        ("format", dataset.format),
        ("kind", dataset.kind),
        ("examples", _count(dataset.examples) if dataset.examples else None),
        ("size", out.format_bytes(dataset.bytes)),
        ("version", dataset.version),
    ]
    out.print_pairs(lines)
    if dataset.columns:
        rows = [(one.name, one.kind, _count(one.missing), _describe_column(one)) for one in dataset.columns]
        out.make_console().print(out.make_table(("column", "kind", "missing", "values"), rows))
    if dataset.classes:
        out.print_lines(f"classes  {describe_classes(dataset.classes)}")
    print_dataset_warnings(dataset)
    out.print_lines(*(f"error: {line}" for line in refusals(dataset)), stderr=True)


def print_dataset_warnings(dataset: Dataset) -> None:
    """Prints the warnings to stderr."""
    out.print_lines(*(f"warning: {one}" for one in dataset.warnings), stderr=True)


def print_understood(dataset: Dataset) -> None:
    """One screen at most: what `basin submit` prints of the data that it uploaded."""
    head = f"{dataset.name or dataset.id}: {_count(dataset.examples)} examples ({dataset.kind})"
    out.print_lines(f"{head}, {dataset.id}" if dataset.id else head, stderr=True)
    for column in dataset.columns[:20]:
        missing = f", {column.missing} missing" if column.missing else ""
        out.print_lines(f"  {column.name}: {column.kind}{missing}  {_describe_column(column)}", stderr=True)
    if (more := len(dataset.columns) - 20) > 0:
        out.print_lines(f"  and {more:,} more column{'' if more == 1 else 's'}", stderr=True)
    if dataset.classes:
        out.print_lines(f"  classes: {describe_classes(dataset.classes)}", stderr=True)
    print_dataset_warnings(dataset)


def raise_if_unusable(dataset: Dataset) -> None:
    """Raises RefusedData unless the dataset is ready."""
    if dataset.status != "ready":
        said = refusals(dataset) or [f"its status is {dataset.status}"]
        raise RefusedData("\n".join([f"{dataset.name or dataset.id} cannot be used:", *(f"  {line}" for line in said)]))


def refusals(dataset: Dataset) -> list[str]:
    """Each reason in one line: file, row, column, cause."""
    found = []
    for one in dataset.errors:
        row = f"row {one.row}" if one.row is not None else None
        column = f"column {one.column}" if one.column is not None else None
        place = ", ".join(part for part in (one.file, row, column) if part)
        found.append(f"{place}: {one.detail}" if place else one.detail)
    if dataset.error:
        found += [line for line in (dataset.error.message, dataset.error.remedy) if line]
    return found


def print_rows(rows: Sequence[dict[str, Any]], order: Sequence[str] = ()) -> None:
    """Prints rows as a table, its columns in this order."""
    if not rows:
        out.print_lines("There is no preview of these rows.")
        return
    there = dict.fromkeys(name for row in rows for name in row)
    names = list(dict.fromkeys([*(name for name in order if name in there), *there]))
    cells = [[out.format_number(row.get(name)) for name in names] for row in rows]
    out.make_console().print(out.make_table(names, cells))


def describe_classes(classes: Mapping[str, int]) -> str:
    """Names with counts; the first ten."""
    parts = [f"{name} ({count:,})" for name, count in list(classes.items())[:10]]
    more = len(classes) - len(parts)
    least = "at least " if len(classes) >= MOST_CLASSES else ""
    return ", ".join([*parts, *([f"and {least}{more} more"] if more else [])])


def _describe_column(column: Column) -> str:
    if column.classes is not None:
        return f"{column.classes:,} value{'' if column.classes == 1 else 's'}"
    if column.min is not None and column.max is not None:
        return f"{out.format_number(column.min)} to {out.format_number(column.max)}"
    return ""


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
