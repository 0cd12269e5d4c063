"""The one way from bytes to a JobSpec; the api and `basin run` both take it."""

import json

from pydantic import ValidationError

from core.errors import InvalidSpec
from core.recipe.problems import field_problems
from core.recipe.spec import JobSpec


def parse_job(body: bytes) -> JobSpec:
    """Read a job from JSON, strictly. Raises InvalidSpec with every problem found."""
    try:
        return JobSpec.model_validate_json(body)
    except ValidationError as error:
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        raise InvalidSpec(errors=field_problems(error, document, JobSpec)) from None
