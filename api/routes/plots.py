"""Curves and paths as SVG pictures."""

from typing import Annotated, Literal

from fastapi import APIRouter
from fastapi import Query as InQuery
from fastapi.responses import Response
from pydantic import AfterValidator, Field

from api.auth import Caller
from api.dependencies import JobId, Running
from api.openapi import problem_responses
from api.routes.compare import Jobs, Names, find_compared_jobs
from api.routes.metrics import Step, split_names
from api.svg_response import PICTURE, PictureQuery, SvgResponse
from core.charts.metrics import Window, job_chart, jobs_chart
from core.charts.trajectory import path_map
from core.errors import FieldProblem, InvalidRequest
from core.jobs.metrics.comparison import XAxis, load_compared_jobs
from core.jobs.metrics.series_names import check_series

router = APIRouter(tags=["metrics"])

POINTS_PER_PIXEL = 2  # of each curve: the minimum and the maximum, so that downsampling is not visible


Kind = Annotated[
    Literal["curves", "path"],
    Field(description="`path` draws the iterates of a run over its objective, a function of one or two variables"),
]
OF_CURVES = ("series", "x", "y", "mean")
"""Parameters that do not apply to a path."""


class PlotQuery(PictureQuery):
    """What to draw, and the style of the picture."""

    kind: Kind = "curves"
    series: Annotated[
        str | None,
        AfterValidator(split_names),
        Field(description="names, separated by commas; a selection by default", examples=["val.loss"]),
    ] = None
    x: Annotated[XAxis, Field(description="`seconds` count from the start of the job")] = "step"
    from_: Annotated[Step | None, Field(alias="from", description="the first step")] = None
    to: Annotated[Step | None, Field(description="the last step, itself included")] = None


class JobsPlotQuery(PictureQuery):
    """Which jobs and series to draw, and the style of the picture."""

    jobs: Jobs
    kind: Kind = "curves"
    series: Names | None = None
    x: Annotated[XAxis, Field(description="`seconds` count from the start of each job")] = "step"
    mean: Annotated[
        bool, Field(description="put the mean over the jobs and its 95 % interval (Student's t) in front")
    ] = False


def is_path(query: PlotQuery | JobsPlotQuery) -> bool:
    """Whether a path is requested; raises InvalidRequest for parameters that do not apply to a path."""
    if query.kind == "path":
        asked = [name for name in OF_CURVES if name in query.model_fields_set]
        if asked:
            raise InvalidRequest(
                errors=tuple(
                    FieldProblem(f"/query/{name}", "does not apply to kind=path", "leave it out") for name in asked
                )
            )
    return query.kind == "path"


@router.get(
    "/jobs/{job_id}/plot.svg",
    operation_id="plot_job",
    response_class=Response,
    responses={200: {"content": PICTURE, "description": "The picture"}, **problem_responses(404, 422)},
)
def plot_job(job_id: JobId, query: Annotated[PlotQuery, InQuery()], caller: Caller, service: Running) -> SvgResponse:
    """Curves of a job; series that measure the same quantity share a panel. Light or dark, as the reader prefers.

    Values that are NaN or infinite leave a gap, with a mark where it begins. `kind=path` draws the iterates.
    A series that does not exist, of a job that has ended, gets 422 with the names of those that exist.
    """
    if query.from_ is not None and query.to is not None and query.from_ > query.to:
        raise InvalidRequest(errors=(FieldProblem("/query/to", "less than from"),))
    (subject,) = load_compared_jobs(service.db, caller.project, [job_id])
    if is_path(query):
        return SvgResponse(path_map(service.db, [subject], from_=query.from_, to=query.to), query)
    names = None if query.series is None else query.series.split(",")
    check_series(service.db, [subject], names or ())
    cut = Window(query.x, query.y, POINTS_PER_PIXEL * query.width, query.from_, query.to)
    return SvgResponse(job_chart(service.db, subject, names, cut), query)


@router.get(
    "/metrics/plot.svg",
    operation_id="plot_jobs",
    response_class=Response,
    responses={200: {"content": PICTURE, "description": "The picture"}, **problem_responses(404, 422)},
)
def plot_jobs(query: Annotated[JobsPlotQuery, InQuery()], caller: Caller, service: Running) -> SvgResponse:
    """Several jobs in one picture: one panel per series, one colour per job; or their paths over one function."""
    found = find_compared_jobs(service, caller, query.jobs)
    if is_path(query):
        return SvgResponse(path_map(service.db, found), query)
    if query.series is None:
        raise InvalidRequest(errors=(FieldProblem("/query/series", "required", 'as in "val.loss"; or kind=path'),))
    names = query.series.split(",")
    check_series(service.db, found, names)
    cut = Window(query.x, query.y, POINTS_PER_PIXEL * query.width)
    return SvgResponse(jobs_chart(service.db, found, names, cut, mean=query.mean), query)
