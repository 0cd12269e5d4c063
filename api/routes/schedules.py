"""A learning-rate schedule before anything is trained with it."""

from fastapi import APIRouter
from pydantic import ValidationError

from api.deps import Body
from api.documents import Json, parse
from api.openapi import problems, reads
from core.errors import InvalidSpec
from core.recipe.preview import Preview, PreviewRequest, preview
from core.recipe.problems import field_problems

router = APIRouter(tags=["schedules"])

EXAMPLE = {
    "schedule": {"name": "cosine", "warmup": "1ep"},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "swa": True,
    "epochs": 30,
    "batch_size": 32,
    "examples": 1257,
}


@router.post(
    "/schedules/preview",
    operation_id="preview_schedule",
    response_model=Preview,
    responses=problems(400, 408, 413, 415, 422),
    openapi_extra=reads("PreviewRequest", cosine_with_swa=EXAMPLE),
)
def preview_schedule(body: Body) -> Json:
    """The learning rate of every optimizer step, from the very code that trains, and where SWA starts and collects."""
    document = parse(body)
    try:
        request = PreviewRequest.model_validate_json(body)
    except ValidationError as error:
        raise InvalidSpec(errors=field_problems(error, document, PreviewRequest)) from None
    return Json(preview(request).dump())
