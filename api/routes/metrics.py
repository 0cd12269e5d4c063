"""The measured series of a job."""

from typing import Annotated, Literal

from fastapi import APIRouter
from fastapi import Query as InQuery
from fastapi.responses import Response
from pydantic import AfterValidator, BaseModel, Field

from api.auth import Caller
from api.csv_response import MEDIA_TYPE as CSV
from api.csv_response import CsvResponse, Shape, long_rows, wide_rows
from api.dependencies import JobId, Running
from api.json_documents import JsonResponse, format_timestamp
from api.openapi import problem_responses
from api.paging import StrictQuery
from core.errors import FieldProblem, InvalidRequest
from core.jobs.metrics.chunks import MetricPoints, read_series, series_names
from core.jobs.queries import job_version

router = APIRouter(tags=["metrics"])

MOST_SERIES = 64
Step = Annotated[int, Field(ge=0, lt=2**63)]


class SeriesPoints(BaseModel):
    """Three lists of one length."""

    steps: list[int]
    values: list[float | Literal["NaN", "Infinity", "-Infinity"]]
    times: list[str]


class Metrics(BaseModel):
    """Series by name. `train.*` and `lr` carry the number of the optimizer step, from 0; evaluations (`val.*`, `swa.*`,
    `ema.*`, `ensemble.*` …) that of completed steps.
    """

    job: str
    series: dict[str, SeriesPoints]


class SeriesNames(BaseModel):
    """The series that have points so far."""

    job: str
    names: list[str]


def split_names(text: str) -> str:
    names = text.split(",")
    if len(names) > MOST_SERIES or not all(0 < len(name) <= 200 and name.isprintable() for name in names):
        raise ValueError(f"up to {MOST_SERIES} names, separated by commas")
    return text


class MetricsQuery(StrictQuery):
    """Which series, which steps, and how many points of each."""

    series: Annotated[
        str | None,
        AfterValidator(split_names),
        Field(description="names, separated by commas; all when left out", examples=["train.loss,val.accuracy"]),
    ] = None
    from_: Annotated[Step | None, Field(alias="from", description="the first step")] = None
    to: Annotated[Step | None, Field(description="the last step, itself included")] = None
    max_points: Annotated[
        int, Field(ge=2, le=100_000, description="downsampled beyond this; each bucket keeps its extremes")
    ] = 500
    format: Annotated[Literal["json", "csv"], Field(description="`csv` is sent as an attachment")] = "json"
    shape: Annotated[
        Shape, Field(description="of the CSV: `long` is step,series,value,time; `wide` has a column for each series")
    ] = "long"


@router.get(
    "/jobs/{job_id}/metrics",
    operation_id="get_metrics",
    response_model=Metrics,
    responses={200: {"content": {CSV: {"schema": {"type": "string"}}}}, **problem_responses(404, 422)},
)
def get_metrics(job_id: JobId, query: Annotated[MetricsQuery, InQuery()], caller: Caller, service: Running) -> Response:
    """Series of a job. A name without points has empty lists, or an empty column.

    In CSV, a text that a spreadsheet would evaluate as a formula is prefixed with an apostrophe.
    """
    if query.from_ is not None and query.to is not None and query.from_ > query.to:
        raise InvalidRequest(errors=(FieldProblem("/query/to", "less than from"),))
    job_version(service.db, caller.project, job_id)  # 404 for the jobs of others
    names = query.series.split(",") if query.series is not None else None
    found = read_series(service.db, job_id, names, from_=query.from_, to=query.to, max_points=query.max_points)
    chosen = {name: found.get(name, MetricPoints(name, [], [], [])) for name in (found if names is None else names)}
    if query.format == "csv":
        return CsvResponse(long_rows(chosen) if query.shape == "long" else wide_rows(chosen), f"{job_id}.csv")
    return JsonResponse({"job": job_id, "series": {name: _points_document(points) for name, points in chosen.items()}})


@router.get(
    "/jobs/{job_id}/metrics/names",
    operation_id="get_metric_names",
    response_model=SeriesNames,
    responses=problem_responses(404),
)
def list_metric_names(job_id: JobId, caller: Caller, service: Running) -> JsonResponse:
    """The names of the series that have points."""
    job_version(service.db, caller.project, job_id)  # 404 for the jobs of others
    return JsonResponse({"job": job_id, "names": series_names(service.db, job_id)})


def _points_document(points: MetricPoints) -> dict[str, object]:
    return {
        "steps": list(points.steps),
        "values": list(points.values),
        "times": [format_timestamp(time) for time in points.times],
    }
