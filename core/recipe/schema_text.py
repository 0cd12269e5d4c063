"""The JSON Schema of a field as short text: "number > 0", "duration or null", "`min` or `max`"."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from core.recipe.duration import PATTERN

Schema = Mapping[str, Any]

UNLIMITED: Final = 10**6  # larger bounds only keep numbers finite, and are not shown
_BOUNDS: Final = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}


def type_text(schema: Schema) -> str:
    """The values that the field accepts, as a cell of a table."""
    kinds = list(dict.fromkeys(_kinds(schema)))
    if "duration" in kinds:
        kinds = [kind for kind in kinds if not kind.startswith("integer")]  # an integer is a duration in steps
    return kinds[0] if len(kinds) == 1 else f"{', '.join(kinds[:-1])} or {kinds[-1]}"


def _kinds(schema: Schema) -> Iterator[str]:
    for alternatives in ("anyOf", "oneOf"):
        if alternatives in schema:
            for one in schema[alternatives]:
                yield from _kinds(one)
            return
    if "$ref" in schema or schema.get("type") == "object":
        yield "object"
    elif "const" in schema:
        yield f"`{_plain(schema['const'])}`"
    elif "enum" in schema:
        yield from (f"`{_plain(value)}`" for value in schema["enum"])
    elif schema.get("pattern") == PATTERN:
        yield "duration"
    elif schema["type"] == "array":
        yield _array(schema)
    else:
        yield _bounded(schema)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _array(schema: Schema) -> str:
    if "prefixItems" in schema:
        return f"list of {len(schema['prefixItems'])} numbers"
    return f"list of {type_text(schema['items'])}"


def _bounded(schema: Schema) -> str:
    bounds = {key: schema[key] for key in _BOUNDS if key in schema and abs(schema[key]) < UNLIMITED}
    if "exclusiveMinimum" in bounds:
        bounds.pop("minimum", None)
    limits = [f"{_BOUNDS[key]} {value:g}" for key, value in bounds.items()]
    return " ".join([schema["type"], ", ".join(limits)]).strip()
