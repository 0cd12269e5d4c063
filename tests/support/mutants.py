"""One wrong field each: what a JSON Schema allows says what it does not allow.

`mutants` walks the schema of a document: every field of every component of every union, with values of a wrong type or
out of range, names that nothing has, and fields that nothing has. All other fields are the smallest ones that fit.
A field that is read-only is ignored in a request, so that nothing is wrong there.
"""

import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

Schema = dict[str, Any]
WRONG: Final[dict[str, Any]] = {
    "object": {"no such": {}},
    "string": "no such",
    "boolean": True,
    "number": 1.5,
    "array": [],
    "null": None,
}
"""A value of each type; no integer is one, for a number may be one."""


class Mutant(NamedTuple):
    """A document with one wrong field, and the pointer of that field."""

    pointer: str
    document: Any

    def named_by(self, pointers: list[str]) -> bool:
        """Whether problems name the wrong field or a part of it, and nothing else but what it is a part of."""
        inner = [each for each in pointers if f"{each}/".startswith(f"{self.pointer}/")]
        return bool(inner) and all(self.pointer.startswith(f"{each}/") for each in set(pointers) - set(inner))

    def value(self) -> Any:
        """What stands there."""
        found = self.document
        for part in self.pointer.split("/")[1:]:
            found = found[int(part)] if isinstance(found, list) else found[part]
        return found

    def __str__(self) -> str:
        return f"{self.pointer} = {json.dumps(self.value())[:60]}"


def mutants(schema: Schema, known: dict[str, Any]) -> Iterator[Mutant]:
    """All of the object that `schema` describes; `known` gives by pointer what no schema tells of a field."""
    return _Walk(schema.get("$defs", {}), known).of_object(schema, "")


class _Walk:
    """Below a pointer each document is that of the part alone; whoever is above puts it into its own."""

    def __init__(self, defs: dict[str, Schema], known: dict[str, Any]) -> None:
        self.defs = defs
        self.known = known

    def resolved(self, schema: Schema) -> Schema:
        if "$ref" in schema:
            return self.defs[schema["$ref"].rpartition("/")[2]]
        return schema

    def arms(self, schema: Schema) -> list[Schema]:
        """The alternatives of a field, alternatives of alternatives too; a union by name stays one."""
        schema = self.resolved(schema)
        if "discriminator" in schema:
            return [schema]
        inner = schema.get("anyOf") or schema.get("oneOf")
        return [arm for each in inner for arm in self.arms(each)] if inner else [schema]

    def fitting(self, schema: Schema, pointer: str) -> Any:
        """The smallest value that fits."""
        if pointer in self.known:
            return self.known[pointer]
        if "examples" in schema:
            return schema["examples"][0]
        schema = next(arm for arm in self.arms(schema) if arm.get("type") != "null")
        if "discriminator" in schema:
            return self.fitting(schema["oneOf"][0], pointer) | self.tag(schema, schema["oneOf"][0])
        given = [schema[source] for source in ("default", "const") if source in schema] + schema.get("enum", [])
        return given[0] if given else self.made(schema, pointer)

    def made(self, schema: Schema, pointer: str) -> Any:
        """The smallest value of a type."""
        kind = schema["type"]
        if kind == "object":
            fields = {name: schema["properties"][name] for name in self.required(schema)}
            return {name: self.fitting(field, f"{pointer}/{name}") for name, field in fields.items()}
        if kind == "array":
            each = schema.get("prefixItems") or [schema["items"]] * schema.get("minItems", 0)
            return [self.fitting(item, f"{pointer}/{index}") for index, item in enumerate(each)]
        return "x" if kind == "string" else max(schema.get("minimum", 0), int("exclusiveMinimum" in schema) / 2)

    def required(self, schema: Schema) -> list[str]:
        return list(schema.get("required", ()))

    def tag(self, union: Schema, member: Schema) -> dict[str, str]:
        """The field by which a union knows its member."""
        field = union["discriminator"]["propertyName"]
        return {field: self.resolved(member)["properties"][field]["const"]}

    def of_object(self, schema: Schema, pointer: str, tag: dict[str, str] | None = None) -> Iterator[Mutant]:
        whole = self.fitting(schema, pointer) | (tag or {})
        yield Mutant(f"{pointer}/no_such_field", whole | {"no_such_field": 1})
        for name, field in schema["properties"].items():
            if name not in (tag or {}) and not field.get("readOnly"):
                for at, value in self.of_field(field, f"{pointer}/{name}"):
                    yield Mutant(at, whole | {name: value})

    def of_field(self, schema: Schema, pointer: str) -> Iterator[Mutant]:
        arms = self.arms(schema)
        for value in wrong_values(arms):
            yield Mutant(pointer, value)
        for arm in arms:
            if "discriminator" in arm:
                field = arm["discriminator"]["propertyName"]
                yield Mutant(f"{pointer}/{field}", {field: "no_such_name"})
                yield Mutant(f"{pointer}/{field}", {})
                for member in arm["oneOf"]:
                    yield from self.of_object(self.resolved(member), pointer, self.tag(arm, member))
            elif "properties" in arm:
                yield from self.of_object(arm, pointer)
            elif "items" in arm:
                whole = self.fitting(arm, pointer)
                for at, value in self.of_field(arm["items"], f"{pointer}/0"):
                    yield Mutant(at, [value, *whole[1:]])


def wrong_values(arms: list[Schema]) -> Iterator[Any]:
    """Of a type that no alternative has, and outside the bounds of one of them."""
    kinds = {"object" if "discriminator" in arm else arm.get("type", "string") for arm in arms}
    yield next(value for kind, value in WRONG.items() if kind not in kinds)
    yield from (value for kind, value in (("boolean", True), ("null", None)) if kind not in kinds)
    if kinds & {"integer", "number"} and "string" not in kinds:
        yield "1"
    if "integer" in kinds and "number" not in kinds:
        yield 2.0
    for arm in arms:
        yield from out_of_bounds(arm)


def out_of_bounds(arm: Schema) -> Iterator[Any]:
    """Just outside each bound."""
    if "minimum" in arm:
        yield arm["minimum"] - max(1, abs(arm["minimum"]))
    if "exclusiveMinimum" in arm:
        yield arm["exclusiveMinimum"]
    if "maximum" in arm:
        yield arm["maximum"] * 10 + 1
    if "exclusiveMaximum" in arm:
        yield arm["exclusiveMaximum"]
    if "minLength" in arm:
        yield ""
    if "maxLength" in arm:
        yield "x" * (arm["maxLength"] + 1)
    if arm.get("minItems"):
        yield []
    if "maxItems" in arm and "items" in arm:
        yield [None] * (arm["maxItems"] + 1)
    if {"enum", "const", "pattern"} & set(arm):
        yield "no such value"
