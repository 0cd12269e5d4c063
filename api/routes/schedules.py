"""Preview of a learning-rate schedule."""

from typing import Annotated, Literal

from fastapi import APIRouter
from fastapi import Query as InQuery
from fastapi.responses import Response
from pydantic import Field

from api.dependencies import Body
from api.json_documents import JsonResponse, parse_json
from api.openapi import json_body, problem_responses
from api.svg_response import PICTURE, PictureQuery, SvgResponse
from core.charts.schedule import schedule_chart
from core.recipe.parse import parse_preview
from core.recipe.preview import Preview, compute_preview

router = APIRouter(tags=["schedules"])

EXAMPLE = {
    "schedule": {"name": "cosine", "warmup": "1ep"},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "swa": True,
    "epochs": 30,
    "batch_size": 32,
    "examples": 1257,
}


class PreviewQuery(PictureQuery):
    """The format, and the style of the picture for `svg`."""

    format: Literal["json", "svg"] = "json"
    x: Annotated[Literal["step", "epoch"], Field(description="what is counted along the x axis")] = "step"


@router.post(
    "/schedules/preview",
    operation_id="preview_schedule",
    response_model=Preview,
    responses={200: {"content": PICTURE}, **problem_responses(400, 408, 413, 415, 422)},
    openapi_extra=json_body("PreviewRequest", cosine_with_swa=EXAMPLE),
)
def preview_schedule(body: Body, query: Annotated[PreviewQuery, InQuery()]) -> Response:
    """The learning rate of every optimizer step, computed by the training code, and where SWA starts and collects."""
    parse_json(body)
    request = parse_preview(body)
    if query.format == "svg":
        return SvgResponse(schedule_chart(request, y=query.y, x=query.x), query)
    return JsonResponse(compute_preview(request).dump())
