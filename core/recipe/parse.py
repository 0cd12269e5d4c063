"""The one way from bytes to a JobSpec, and to an analysis; the api and `basin run` both take it."""

import json

from pydantic import ValidationError

from core.errors import FieldProblem, InvalidSpec
from core.recipe.analyses import AnyAnalysis, kinds
from core.recipe.problems import field_problems
from core.recipe.spec import JobSpec
from core.suggest import did_you_mean


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


def parse_analysis(body: bytes, document: object) -> AnyAnalysis:
    """Read an analysis from JSON, strictly; `document` is the body, parsed. InvalidSpec with every problem found."""
    known = kinds()
    wanted = document.get("kind") if isinstance(document, dict) else None
    if not isinstance(wanted, str) or wanted not in known:
        message = f"there are {', '.join(known)}"
        raise InvalidSpec(errors=(FieldProblem("/kind", message, did_you_mean(str(wanted), known)),))
    try:
        return known[wanted].model_validate_json(body)
    except ValidationError as error:
        raise InvalidSpec(errors=field_problems(error, document, known[wanted])) from None
