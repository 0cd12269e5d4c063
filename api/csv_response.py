"""Series as CSV, long or wide. NaN and infinities are words, and no cell starts a spreadsheet formula."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Literal

from fastapi.responses import Response

from api.json_documents import format_timestamp
from core.jobs.metrics.chunks import MetricPoints

MEDIA_TYPE = "text/csv"
Shape = Literal["long", "wide"]


class CsvResponse(Response):
    """A table, sent as an attachment."""

    media_type = MEDIA_TYPE

    def __init__(self, rows: Sequence[Sequence[object]], name: str) -> None:
        """`rows[0]` is the header; `name` is the file's name, in ASCII."""
        text = io.StringIO()
        csv.writer(text).writerows([[_escape_cell(value) for value in row] for row in rows])
        super().__init__(text.getvalue(), headers={"Content-Disposition": f'attachment; filename="{name}"'})


def long_rows(found: Mapping[str, MetricPoints]) -> list[list[object]]:
    """A row for each point."""
    rows: list[list[object]] = [["step", "series", "value", "time"]]
    for name, points in found.items():
        columns = zip(points.steps, points.values, points.times, strict=True)
        rows += [[step, name, value, format_timestamp(time)] for step, value, time in columns]
    return rows


def wide_rows(found: Mapping[str, MetricPoints]) -> list[list[object]]:
    """A row for each step and a column for each series; empty where a series has no point."""
    cells = {name: dict(zip(points.steps, points.values, strict=True)) for name, points in found.items()}
    steps = sorted({step for points in found.values() for step in points.steps})
    rows: list[list[object]] = [["step", *found]]
    rows += [[step, *(cells[name].get(step) for name in found)] for step in steps]
    return rows


def _escape_cell(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return f"'{value}"  # otherwise a spreadsheet evaluates it as a formula
    return value
