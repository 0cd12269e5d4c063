"""From an answer of the service to a shape."""

from typing import Any, TypeVar

import httpx2
from pydantic import ValidationError

from basin.errors import BadAnswer
from basin.shapes import Shape
from basin.transport import parse_object

AnyShape = TypeVar("AnyShape", bound=Shape)


def parse_answer(shape: type[AnyShape], answer: httpx2.Response) -> AnyShape:
    """The answer's JSON object as a `Shape`. Raises BadAnswer when it does not fit."""
    return validate_body(shape, parse_object(answer))


def validate_body(shape: type[AnyShape], body: Any) -> AnyShape:
    """A JSON value as a `Shape`. Raises BadAnswer when it does not fit."""
    try:
        return shape.read(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadAnswer(f"unexpected {shape.__name__.lower()}: {where}: {first['msg']}; is this Basin?") from error
