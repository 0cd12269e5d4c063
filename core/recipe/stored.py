"""Reads stored specs as trusted data: it builds the immutable objects without validation.

An accepted spec stays accepted, so the rules and bounds of this release do not apply to it. A field that the stored
spec lacks takes its default: a new field's default is the behaviour of releases without the field. A name that this
release does not have (a field, a component, a literal) makes the spec unreadable, because without it the job would be a
different one. Each class is compiled once into a closure per field.
"""

import json
import types
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from core.errors import UnreadableSpec
from core.recipe.analyses import Analysis
from core.recipe.component import Component
from core.recipe.duration import Duration
from core.recipe.plugins import joined_members
from core.recipe.spec import JobSpec

AnyModel = TypeVar("AnyModel", bound=BaseModel)
Reader = Callable[[Any], Any]


def read_job(text: str | bytes) -> JobSpec:
    """The job of a row. Raises UnreadableSpec where this release lacks a name in it."""
    return read_stored(JobSpec, json.loads(text))


def read_analysis(text: str | bytes) -> Analysis:
    """The analysis of a row. Raises UnreadableSpec where this release lacks a name in it."""
    found: Analysis = _compiled(Analysis)(json.loads(text))
    return found


def read_stored(shape: type[AnyModel], document: object) -> AnyModel:
    """An object of this class from its stored JSON. Raises UnreadableSpec, its pointer relative to the document."""
    found: AnyModel = _compiled(shape)(document)
    return found


@cache
def _compiled(kind: Any) -> Reader:
    """The reader that builds a value of this type."""
    if build := _GENERIC.get(get_origin(kind)):
        return build(kind)
    if reader := _PLAIN.get(kind):
        return reader
    return _model(kind) if isinstance(kind, type) and issubclass(kind, BaseModel) else _anything


def _model(shape: type[BaseModel]) -> Reader:
    fields = {field.alias or name: (name, _field(field)) for name, field in shape.model_fields.items()}
    required = {field.alias or name for name, field in shape.model_fields.items() if field.is_required()}

    def read(value: Any) -> Any:
        if isinstance(value, shape):
            return value
        if not isinstance(value, dict):
            raise UnreadableSpec("", f"not a {shape.__name__}")
        if unknown := value.keys() - fields.keys():
            raise UnreadableSpec(f"/{min(unknown)}", "this release does not have the field")
        if lacking := required - value.keys():
            raise UnreadableSpec(f"/{min(lacking)}", "required")
        made = shape.model_construct(**{fields[key][0]: _at(key, fields[key][1], each) for key, each in value.items()})
        if isinstance(made, Component) and (foreign := made.unknown_name()):
            raise UnreadableSpec(foreign.pointer, foreign.message)
        return made

    return read


def _field(field: FieldInfo) -> Reader:
    kind: Any = field.annotation
    return (
        _union(kind, field.discriminator, joined_members(field.metadata))
        if isinstance(field.discriminator, str)
        else _compiled(kind)
    )


def _at(key: str | int, reader: Reader, value: Any) -> Any:
    try:
        return reader(value)
    except UnreadableSpec as error:
        raise UnreadableSpec(f"/{key}{error.pointer}", error.reason) from None


def _annotated(kind: Any) -> Reader:
    inner, *metadata = get_args(kind)
    tag = next((each.discriminator for each in metadata if isinstance(each, FieldInfo)), None)
    return _union(inner, tag, joined_members(metadata)) if isinstance(tag, str) else _compiled(inner)


def _union(kind: Any, tag: str | None = None, joined: Sequence[type[BaseModel]] = ()) -> Reader:
    """Selects the member by its tag, else the first member that accepts the value."""
    members = [*(member for member in get_args(kind) if member is not type(None)), *joined]
    read = _tagged(tag, members) if tag else _first_of([_compiled(each) for each in members])
    if type(None) not in get_args(kind):
        return read
    return lambda value: None if value is None else read(value)


def _tagged(tag: str, members: list[type[BaseModel]]) -> Reader:
    known = {member.model_fields[tag].default: _compiled(member) for member in members}

    def read(value: Any) -> Any:
        name = value.get(tag) if isinstance(value, dict) else getattr(value, tag, None)
        if not isinstance(name, str) or name not in known:
            raise UnreadableSpec(f"/{tag}", f"this release has no {name!r}")
        return known[name](value)

    return read


def _first_of(readers: list[Reader]) -> Reader:
    """The first reader that accepts the value. If none does, the problem is that with the deepest pointer."""
    if len(readers) == 1:
        return readers[0]

    def read(value: Any) -> Any:
        problems = []
        for reader in readers:
            try:
                return reader(value)
            except UnreadableSpec as error:
                problems.append(error)
        raise max(problems, key=lambda each: each.pointer.count("/"))

    return read


def _literal(kind: Any) -> Reader:
    words = get_args(kind)

    def read(value: Any) -> Any:
        if value not in words:
            raise UnreadableSpec("", f"this release has no {value!r}")
        return value

    return read


def _tuple(kind: Any) -> Reader:
    kinds = get_args(kind)
    each = _compiled(kinds[0]) if len(kinds) == 2 and kinds[1] is ... else None
    fixed = [] if each else [_compiled(one) for one in kinds]

    def read(value: Any) -> Any:
        if not isinstance(value, list | tuple) or (not each and len(value) != len(fixed)):
            raise UnreadableSpec("", "not a list of this length")
        readers = [each] * len(value) if each else fixed
        return tuple(_at(index, reader, one) for index, (reader, one) in enumerate(zip(readers, value, strict=True)))

    return read


def _mapping(kind: Any) -> Reader:
    each = _compiled(get_args(kind)[1])

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise UnreadableSpec("", "not an object")
        return {key: _at(key, each, one) for key, one in value.items()}

    return read


def _instance(kind: type) -> Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise UnreadableSpec("", f"not a {kind.__name__}")
        return value

    return read


def _anything(value: Any) -> Any:
    return value


def _float(value: Any) -> float:
    """A number of JSON, or one of the strings "Infinity", "-Infinity" and "NaN"."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UnreadableSpec("", "not a number") from None


def _path(value: Any) -> Path:
    if not isinstance(value, str | Path):
        raise UnreadableSpec("", "not a path")
    return Path(value)


def _duration(value: Any) -> Duration:
    try:
        return value if isinstance(value, Duration) else Duration.read(value)
    except (TypeError, ValueError):
        raise UnreadableSpec("", "not a duration") from None


_GENERIC: Final[dict[Any, Callable[[Any], Reader]]] = {
    Annotated: _annotated,
    Union: _union,
    types.UnionType: _union,
    Literal: _literal,
    tuple: _tuple,
    dict: _mapping,
}
_PLAIN: Final[dict[Any, Reader]] = {
    Duration: _duration,
    float: _float,
    Path: _path,
    **{kind: _instance(kind) for kind in (str, int, bool)},
}
