"""Translates pydantic's errors into problems that a user can act on: a JSON pointer, a message, a hint."""

import types
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from core.errors import FieldProblem
from core.recipe.component import CROSS_FIELD
from core.recipe.plugins import JoinPlugins, joined_members
from core.suggest import did_you_mean

MOST = 50  # the most problems of one report
TAGS = ("name", "method", "by", "op")  # the fields that select a member of a union


def field_problems(error: ValidationError, document: object, model: type[BaseModel]) -> tuple[FieldProblem, ...]:
    """The problems of `document`, as parsed JSON, which `model` refused."""
    return tuple(islice(_translated_problems(error, document, model), MOST))


def _translated_problems(error: ValidationError, document: object, model: type[BaseModel]) -> Iterator[FieldProblem]:
    for detail in error.errors(include_url=False):
        path = list(_document_path(detail, document))
        if detail["type"] == CROSS_FIELD:
            for problem in detail["ctx"]["problems"]:
                yield FieldProblem(_json_pointer(path) + problem.pointer, problem.message, problem.hint)
            continue
        if detail["type"] in {"union_tag_invalid", "union_tag_not_found"}:
            path.append(detail["ctx"]["discriminator"].strip("'"))
        yield FieldProblem(_json_pointer(path), _error_message(detail), _error_hint(detail, path, document, model))


def _document_path(detail: ErrorDetails, document: object) -> Iterator[int | str]:
    """The location without the tags of unions, which are not part of the document."""
    names_a_field = detail["type"] in {"extra_forbidden", "missing"}
    last, tagged = len(detail["loc"]) - 1, True  # the document itself is no member of a union
    for index, part in enumerate(detail["loc"]):
        if isinstance(document, dict):
            # A tag may also be a field of its member, as in "function": the first of the two is the tag.
            is_tag = not tagged and any(document.get(tag) == part for tag in TAGS)
            is_foreign = part not in document and index > 0 and not (names_a_field and index == last)
            if is_tag or is_foreign or part == "[key]":
                tagged = tagged or is_tag
                continue
            document = document.get(part)
        elif isinstance(document, list) and isinstance(part, int):
            document = document[part] if part < len(document) else None
        elif not isinstance(part, int) and index > 0:
            continue  # a member of a union that pydantic tried
        tagged = False
        yield part


def _json_pointer(path: Sequence[int | str]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _error_message(detail: ErrorDetails) -> str:
    if detail["type"] == "extra_forbidden":
        return "unknown field"
    if detail["type"] == "missing":
        return "required"
    if detail["type"] == "union_tag_invalid":
        context = {key: str(value).replace("'", "") for key, value in detail["ctx"].items()}
        return f"unknown {context['discriminator']} {context['tag']!r}; there are {context['expected_tags']}"
    if detail["type"] == "union_tag_not_found":
        return f"required: the {detail['ctx']['discriminator'].strip(chr(39))} selects the kind"
    return detail["msg"].removeprefix("Value error, ").replace("Input should ", "must ", 1)


def _error_hint(detail: ErrorDetails, path: list[int | str], document: object, model: type[BaseModel]) -> str | None:
    if detail["type"] == "extra_forbidden":
        return did_you_mean(str(path[-1]), _field_names_at(path[:-1], document, model))
    if detail["type"] == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in detail["ctx"]["expected_tags"].split(",")]
        return did_you_mean(str(detail["ctx"]["tag"]), tags)
    value = detail["input"]
    if detail["type"] == "literal_error" and isinstance(value, str):
        return did_you_mean(
            value, [word.strip(" '") for word in detail["ctx"]["expected"].replace(" or ", ",").split(",")]
        )
    if detail["type"] == "batch_size" and isinstance(value, str):
        return did_you_mean(value, ["full"])
    return None


def _field_names_at(path: Sequence[int | str], document: object, model: type[BaseModel]) -> list[str]:
    """The fields that the object at `path` may have."""
    here: list[type[BaseModel]] = [model]
    for part in path:
        document = document.get(part) if isinstance(document, dict) else None
        fields = [field for each in here for name, field in each.model_fields.items() if (field.alias or name) == part]
        here = [found for field in fields for found in _model_classes(field)]
        here = [each for each in here if _has_tag_of(each, document)]
    return [field.alias or name for each in here for name, field in each.model_fields.items()]


def _model_classes(field: FieldInfo | Any) -> Iterator[type[BaseModel]]:
    kind = field.annotation if isinstance(field, FieldInfo) else field
    if isinstance(field, FieldInfo):
        yield from joined_members(field.metadata)
    if get_origin(kind) in {Union, types.UnionType, Annotated}:
        for part in get_args(kind):
            yield from joined_members((part,)) if isinstance(part, JoinPlugins) else _model_classes(part)
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind


def _has_tag_of(model: type[BaseModel], document: object) -> bool:
    """Whether the tag of `document`, if there is one, is that of this member of the union."""
    for tag in TAGS:
        field, value = model.model_fields.get(tag), document.get(tag) if isinstance(document, dict) else None
        if field and get_origin(field.annotation) is Literal and isinstance(value, str) and value != field.default:
            return False
    return True
