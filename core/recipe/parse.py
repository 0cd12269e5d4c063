"""The only way from bytes to a new job, analysis or preview. The api and `basin run` both use it.

A document is checked once, here: types and bounds by its class, then the rules between its fields by
core/recipe/checks. Stored documents are read by core/recipe/stored.py and are not checked again.
"""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from core.errors import FieldProblem, InvalidSpec
from core.recipe.analyses import AnyAnalysis, analysis_classes
from core.recipe.checks import preview as of_preview
from core.recipe.checks import spec as of_spec
from core.recipe.data import Dataset, DataSpec
from core.recipe.data.columns import show_name
from core.recipe.preview import PreviewRequest
from core.recipe.shape import RunShape
from core.recipe.spec import JobSpec
from core.recipe.validation_errors import MOST, field_problems
from core.suggest import did_you_mean

ResolveData = Callable[[DataSpec], DataSpec]
"""Looks an uploaded dataset up, in a database, a folder or a dict, and gives it resolved; other data is given as it is.

It raises InvalidSpec with pointers below /data. core.recipe.data.resolve.resolve_dataset does all but the looking up.
"""
AnyModel = TypeVar("AnyModel", bound=BaseModel)


def build_schemas() -> None:
    """Look the plug-ins up, and build what the first request would otherwise wait for."""
    JobSpec.model_rebuild()
    PreviewRequest.model_rebuild()


def resolve_built_in(data: DataSpec) -> DataSpec:
    """The look-up of a place without uploaded datasets: it refuses them."""
    if isinstance(data, Dataset):
        message = f"there is no dataset {show_name(data.dataset)} here"
        raise InvalidSpec(errors=(FieldProblem("/data/dataset", message, "upload it first"),))
    return data


def parse_job(body: bytes, resolve_data: ResolveData = resolve_built_in) -> JobSpec:
    """A resolved job from JSON, read strictly. Raises InvalidSpec with every problem found."""
    return parse_sized_job(body, resolve_data)[0]


def parse_sized_job(body: bytes, resolve_data: ResolveData = resolve_built_in) -> tuple[JobSpec, RunShape]:
    """As parse_job, with the sizes of the run, which the checks compute."""
    asked = _validated(JobSpec, body)
    spec = asked.model_copy(update={"data": resolve_data(asked.data)})
    shape = spec.shape()
    _refuse_problems(of_spec.problems(spec, shape))
    return spec.resolved(shape), shape


def parse_analysis(body: bytes, document: object) -> AnyAnalysis:
    """Read an analysis from JSON, strictly; `document` is the body, parsed. InvalidSpec with every problem found."""
    known = analysis_classes()
    wanted = document.get("kind") if isinstance(document, dict) else None
    if not isinstance(wanted, str) or wanted not in known:
        message = f"there are {', '.join(known)}"
        raise InvalidSpec(errors=(FieldProblem("/kind", message, did_you_mean(str(wanted), known)),))
    spec = _validated(known[wanted], body)
    _refuse_problems(spec.contradictions())
    return spec


def parse_preview(body: bytes) -> PreviewRequest:
    """Read the request of a preview from JSON, strictly. Raises InvalidSpec with every problem found."""
    request = _validated(PreviewRequest, body)
    _refuse_problems(of_preview.problems(request))
    return request


def _validated(shape: type[AnyModel], body: bytes) -> AnyModel:
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        raise InvalidSpec(errors=field_problems(error, _document(body), shape)) from None


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _refuse_problems(found: Iterator[FieldProblem]) -> None:
    if problems := tuple(islice(found, MOST)):
        raise InvalidSpec(errors=problems)
