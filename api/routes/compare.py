"""The same series of several jobs, side by side."""

from typing import Annotated, Literal

from fastapi import APIRouter
from fastapi import Query as InQuery
from pydantic import AfterValidator, BaseModel, Field

from api.auth import Caller
from api.dependencies import Running
from api.json_documents import JsonResponse
from api.openapi import problem_responses
from api.paging import StrictQuery
from api.routes.metrics import split_names
from core.errors import NotFound
from core.ids import is_id
from core.jobs.metrics.comparison import MOST_JOBS, AlignedPoints, ComparedJob, XAxis, align_series, load_compared_jobs

router = APIRouter(prefix="/metrics", tags=["metrics"])

MOST_SERIES = 8
Number = float | Literal["NaN", "Infinity", "-Infinity"] | None


class Compared(BaseModel):
    """A job of the comparison."""

    id: str
    name: str | None


class AlignedSeries(BaseModel):
    """Lists as long as `x`; null where a job has no value, and for the mean where fewer than two have one.

    `low` and `high` bound the 95 % interval of the mean over the jobs (Student's t). Where a job has no point, its
    value is interpolated linearly between its neighbours; `interpolated` says whether that happened anywhere. `count`
    is the number of jobs whose series reach that x. A job that diverged makes the mean NaN.
    """

    x: list[float]
    values: dict[str, list[Number]]
    count: list[int]
    mean: list[Number]
    low: list[Number]
    high: list[Number]
    interpolated: bool


class Comparison(BaseModel):
    """Jobs in the order of the request, and series by name."""

    x: XAxis
    jobs: list[Compared]
    series: dict[str, AlignedSeries]


def _few_jobs(text: str) -> str:
    if not 1 <= len(set(text.split(","))) <= MOST_JOBS or not text.isprintable() or "" in text.split(","):
        raise ValueError(f"1 to {MOST_JOBS} ids of jobs, separated by commas")
    return text


def _few_series(text: str) -> str:
    if len(set(split_names(text).split(","))) > MOST_SERIES:
        raise ValueError(f"up to {MOST_SERIES} names, separated by commas")
    return text


Jobs = Annotated[
    str,
    AfterValidator(_few_jobs),
    Field(max_length=2000, description=f"ids of up to {MOST_JOBS} jobs, separated by commas"),
]
Names = Annotated[
    str,
    AfterValidator(_few_series),
    Field(description=f"up to {MOST_SERIES} names, separated by commas", examples=["val.loss"]),
]


class CompareQuery(StrictQuery):
    """Which jobs, which series, and what is counted along the x axis."""

    jobs: Jobs
    series: Names
    x: Annotated[XAxis, Field(description="`seconds` count from the start of each job")] = "step"
    max_points: Annotated[
        int, Field(ge=100, le=20_000, description="downsampled beyond this; the extremes of each job are kept")
    ] = 500


def find_compared_jobs(service: Running, caller: Caller, ids: str) -> list[ComparedJob]:
    """The jobs that a query names; raises NotFound for malformed ids, missing jobs and jobs of other projects."""
    wanted = ids.split(",")
    if not all(is_id(one, "job") for one in wanted):
        raise NotFound("One of the ids is not the id of a job.")
    return load_compared_jobs(service.db, caller.project, wanted)


@router.get("/compare", operation_id="compare_jobs", response_model=Comparison, responses=problem_responses(404, 422))
def compare_jobs(query: Annotated[CompareQuery, InQuery()], caller: Caller, service: Running) -> JsonResponse:
    """Series of several jobs on a common x axis, with the mean and its interval over jobs that differ in the seed."""
    found = find_compared_jobs(service, caller, query.jobs)
    names = dict.fromkeys(query.series.split(","))
    aligned = {name: align_series(service.db, found, name, x=query.x, max_points=query.max_points) for name in names}
    return JsonResponse(
        {
            "x": query.x,
            "jobs": [{"id": one.id, "name": one.name} for one in found],
            "series": {name: _series_document(one) for name, one in aligned.items()},
        }
    )


def _series_document(one: AlignedPoints) -> dict[str, object]:
    return {
        "x": one.x,
        "values": one.values,
        "count": one.count,
        "mean": one.mean,
        "low": one.low,
        "high": one.high,
        "interpolated": one.interpolated,
    }
